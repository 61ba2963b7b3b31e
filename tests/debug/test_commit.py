"""commit: what is staged is in the image or it is not, wherever a power cut comes; and it can be taken back bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from razortools.check import problems
from razortools.check.comparison import loss
from razortools.check.inventory import take_inventory
from razortools.check.repair.undo import take_back, undo
from razortools.check.repair.undo_file import UndoReader
from razortools.check.repair.write_order import Order
from razortools.check.repair.write_out import write_out_keeping
from razortools.check.runner import Options, check_quietly
from razortools.debug.commands import COMMANDS
from razortools.debug.crashtest.disks import RecordingDisk
from razortools.debug.crashtest.repair_log import LoggedShelf
from razortools.debug.opening import look_into
from razortools.debug.session import run_line
from razortools.debug.surgery import CommitOrder, StagedDevice, newest_superblock
from razortools.engine import namespace
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.powercut import SECTOR_BYTES
from razortools.errors import RazorError
from razortools.format.superblock import Superblock
from razortools.format.undo import Fate, Stage
from tests.check.editing import indexed
from tests.check.samples import Copy, healthy, opened
from tests.debug.cut_off import states
from tests.debug.tool import answer, debug, furnished, text

SEED = 11
PATHS = (b"/docs/one", b"/crowd/member 39", b"/link")
COMMANDS_STAGED = tuple(f"set inode.uid 77 '{path.decode()}'" for path in PATHS) + ("set superblock.error_count 3",)
# Between the first copy of a node and the second one, and between a slot and its backups, the others say what was.
HALF_WAY = {
    problems.NODE_COPY_DAMAGED.code, problems.COPY_CHECKSUM.code, problems.BACKUP_FOREIGN.code, problems.ERRORS_RECORDED.code,
}  # fmt: skip


class InOne(CommitOrder):
    """Everything at once: what must not be."""

    def stage(self, offset: int) -> Stage:
        """See Order."""
        return Stage.AHEAD


def staged_on(disk: RecordingDisk, hurt: str) -> StagedDevice:
    session = look_into(disk, writable=True)
    session.begin_surgery()
    if hurt:  # one copy of the root does not verify: the other one must stay until the new superblock is there
        root = newest_superblock(disk).root
        disk.image[(root.address if hurt == "first" else root.mirror) * 4096 + 2000] ^= 1
    for line in COMMANDS_STAGED:
        run_line(session, COMMANDS, line)
    assert session.surgery is not None
    return session.surgery.device


def committed(image: bytes, order: Callable[[StagedDevice], Order], hurt: str = "") -> tuple[RecordingDisk, bytes, bytes]:
    """Return (the disk with the log of a commit, what it held before, the undo file)."""
    disk = RecordingDisk(bytearray(image))
    staged = staged_on(disk, hurt)
    before = bytes(disk.image)
    disk.log.clear()
    shelf = LoggedShelf([])
    write_out_keeping(staged, disk, shelf, is_sound=True, order=order(staged))
    return disk, before, shelf.standing()[-1]


def holding(image: bytes) -> Device:
    device = MemoryDevice(len(image))
    device.write(0, image)
    return Copy(device)


def values_in(device: Device) -> tuple[int, ...] | None:
    """Return the owners of the files that were changed, and the superblock's count; None: it cannot be opened."""
    try:
        errors = newest_superblock(device).error_count
        volume = opened(Copy(device))
        return (*(volume.inodes.get(namespace.resolve(volume, path)).uid for path in PATHS), errors)
    except RazorError:
        return None


OLD, NEW = (1, 1, 1, 0), (77, 77, 77, 3)


def found_after_power_cuts(image: bytes, order: Callable[[StagedDevice], Order], hurt: str = "") -> set[tuple[int, ...] | None]:
    """Return what is found of the changed values; check that each state can be taken back."""
    print(f"seed {SEED}")
    disk, before, undo_file = committed(image, order, hurt)
    kept = take_inventory(holding(before), 1)
    seen = set()
    for left in dict.fromkeys(states(before, disk.log, 10, SEED)):
        values = values_in(holding(left))
        seen.add(values)
        again = MemoryDevice(len(left))
        again.write(0, left)
        take_back(again, LoggedShelf([], (undo_file,)))
        assert again.read(0, again.size_bytes) == before
        if values is not None and order is CommitOrder:
            codes = {finding.code for finding in check_quietly(holding(left), Options(threads=1)).findings}
            assert codes <= HALF_WAY, codes
            assert not loss(kept, take_inventory(holding(left), 1)).harmed
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("hurt", ["", "first", "second"])
def test_a_power_cut_leaves_all_or_nothing(hurt: str) -> None:
    assert found_after_power_cuts(healthy().read(0, healthy().size_bytes), CommitOrder, hurt) == {OLD, NEW}


@pytest.mark.slow
def test_written_at_once_it_would_be_neither() -> None:
    device = healthy()
    assert found_after_power_cuts(device.read(0, device.size_bytes), InOne) - {OLD, NEW}


@pytest.mark.slow
def test_with_one_copy_of_the_metadata_every_state_can_be_taken_back() -> None:
    device = healthy(copies=1)
    assert found_after_power_cuts(device.read(0, device.size_bytes), CommitOrder) >= {OLD, NEW}


def test_all_that_a_commit_changes_of_a_superblock_lies_in_its_first_sector() -> None:
    *told, history = Superblock.FIELDS
    assert history.name == "admin_history" and max(field.offset + field.size_bytes for field in told) <= SECTOR_BYTES


def test_both_copies_of_what_was_changed_verify_in_the_end() -> None:
    disk, _, _ = committed(healthy().read(0, healthy().size_bytes), CommitOrder)
    device = holding(bytes(disk.image))
    codes = {finding.code for finding in check_quietly(device, Options(threads=1)).findings}
    assert values_in(device) == NEW and codes == {problems.ERRORS_RECORDED.code}
    assert indexed(device).is_whole


# The command


def test_a_commit_is_taken_back_with_razorfsck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    text(capsys, image, "set inode.uid 1 /hard", "discard", write=True)
    with open_image(image, writable=False) as device:
        before = check_quietly(device).findings
    said = text(capsys, image, "set inode.uid 5 /hard", f"commit --undo-file {tmp_path / 'kept'}", write=True)
    assert f"as long as {tmp_path / 'kept'} is kept" in said
    assert answer(capsys, image, "stat /hard")["uid"] == 5
    with open_image(image, writable=True) as device:
        undo(device, str(tmp_path / "kept"))
        assert check_quietly(device).findings == before
    assert answer(capsys, image, "stat /hard")["uid"] == 1000


def test_without_a_place_for_the_undo_file_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    Path(f"{image}.undo").write_text("no undo file")
    assert debug("-w", "-R", "set inode.uid 5 /hard", "-R", "commit", image) == 2
    assert "no undo file" in capsys.readouterr().err
    assert answer(capsys, image, "stat /hard")["uid"] == 1000


def test_what_was_set_on_a_damaged_image_is_committed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    answer(capsys, image, f"damage --class link-count {tmp_path / 'hurt'}")
    assert "2 changes written" in text(
        capsys, tmp_path / "hurt", "set inode.uid 5 /hard", "set superblock.error_count 9", "commit", write=True
    )
    assert answer(capsys, tmp_path / "hurt", "stat /hard")["uid"] == 5
    assert answer(capsys, tmp_path / "hurt", "super")["superblock"]["error_count"] == 9


def test_a_commit_that_was_cut_off_is_told_of_and_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    text(capsys, image, "set inode.uid 1 /hard", "discard", write=True)
    before = image.read_bytes()
    text(capsys, image, "set inode.uid 5 /hard", "commit", write=True)
    undo_file = Path(f"{image}.undo")
    with open_image(undo_file, writable=True) as file:
        UndoReader(file).note(Fate.BEGUN, 0)
    whole = image.read_bytes()
    first = next(at for at in range(8192, len(whole), 4096) if whole[at : at + 4096] != before[at : at + 4096])
    image.write_bytes(whole[:first] + before[first : first + 4096] + whole[first + 4096 :])  # one page did not arrive
    assert debug("-w", "-R", "ls", image) == 1
    assert "razorfsck --undo" in capsys.readouterr().err
    assert debug("-R", "super", image) == 0
    assert "was cut off" in capsys.readouterr().err
    with open_image(image, writable=True) as device:
        undo(device, str(undo_file))
        assert check_quietly(device).findings == ()
    assert answer(capsys, image, "stat /hard")["uid"] == 1000
    assert debug("-w", "-R", "ls", image) == 0
    assert "cut off" not in capsys.readouterr().err
