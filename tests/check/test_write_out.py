"""Writing a repair out: the means to take it back first, then the image; or nothing at all, and a sentence that says why."""

import os
import random
import stat
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from razortools.check.repair.undo import take_back, undo
from razortools.check.repair.undo_file import UndoReader
from razortools.check.repair.undo_shelf import HostShelf
from razortools.check.repair.write_order import WriteOrder
from razortools.check.repair.write_out import write_out, write_out_keeping
from razortools.check.runner import check_quietly
from razortools.debug.crashtest.repair_log import LoggedShelf
from razortools.engine.store.device import open_image
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.engine.store.simulated import Faults, SimulatedDevice
from razortools.errors import DeviceFailed, RazorError, UsageError
from razortools.format.superblock import State, Superblock
from razortools.format.undo import UNDO_MAGIC, Fate, Stage
from razortools.units import MIB
from tests.check.damages import DeafDevice
from tests.check.editing import image_of, write_superblocks
from tests.check.mending import damaged, damaged_file, default_undo, mend, repair_file
from tests.check.samples import Copy, healthy


def fate_of(path: Path) -> Fate:
    with open_image(path, writable=False) as file:
        return UndoReader(file).fate


def in_memory() -> MemoryDevice:
    """Return the damaged image in memory."""
    device, source = MemoryDevice(damaged().size_bytes), damaged()
    device.write(0, source.read(0, source.size_bytes))
    return device


def test_the_image_holds_what_the_overlay_showed_and_is_clean(tmp_path: Path) -> None:
    image = tmp_path / "image"
    before = damaged_file(image)
    written, wanted = repair_file(image)
    assert image.read_bytes() == wanted != before
    assert written.page_count
    with open_image(image, writable=False) as device:
        assert check_quietly(device).clean


def test_the_undo_file_is_readable_by_its_owner_only_and_says_that_the_repair_is_complete(tmp_path: Path) -> None:
    damaged_file(tmp_path / "image")
    written, _ = repair_file(tmp_path / "image")
    assert written.undo_path == str(tmp_path / "image.undo")
    assert stat.S_IMODE(os.stat(written.undo_path).st_mode) == 0o600
    assert fate_of(tmp_path / "image.undo") is Fate.WRITTEN


def test_where_nothing_changes_nothing_is_written_and_no_undo_file_is_made(tmp_path: Path) -> None:
    before = damaged_file(tmp_path / "image")
    with open_image(tmp_path / "image", writable=True) as image:
        overlay = OverlayDevice(image)
        overlay.write(5000, overlay.read(5000, 3000))
        assert write_out(overlay, image, str(tmp_path / "undo")).page_count == 0
    assert (tmp_path / "image").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_what_the_new_filesystem_needs_comes_first_then_its_superblock_then_the_rest() -> None:
    image = in_memory()
    overlay = OverlayDevice(image)
    mend(overlay)
    order = WriteOrder(overlay)
    new = image_of(overlay).superblock
    assert order.stage(new.address * 4096) is Stage.TRUTH
    assert order.stage((1 - new.address) * 4096) is Stage.BEHIND
    assert order.stage(new.root.address * 4096) is Stage.AHEAD
    maps = (new.spacemap_a, new.spacemap_b)
    assert order.stage(maps[new.spacemap_active] * 4096) is Stage.AHEAD
    assert order.stage(maps[1 - new.spacemap_active] * 4096) is Stage.BEHIND
    assert order.stage(new.journal_start * 4096) is Stage.BEHIND
    assert order.stage(image.size_bytes - 4096) is Stage.BEHIND  # a backup
    assert order.stage(image_of(image).superblock.root.address * 4096) is Stage.BEHIND  # it is free now


def test_each_stage_is_flushed_before_the_next_one_begins(tmp_path: Path) -> None:
    image = SimulatedDevice.holding(in_memory())
    overlay = OverlayDevice(image)
    mend(overlay)
    write_out(overlay, image, str(tmp_path / "undo"))
    assert image.flush_count == len(Stage)
    assert not image.pending


# What is in the way of the undo file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of the host with room for the image, but not for its undo file."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2052k", "small disk", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"nothing can be mounted here: {made.stderr}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_on_a_full_disk_the_repair_does_not_start(small_disk: Path) -> None:
    before = damaged_file(small_disk / "image")
    with pytest.raises(DeviceFailed, match=r"No space left on device. The repair did not start, nothing was changed"):
        repair_file(small_disk / "image")
    assert (small_disk / "image").read_bytes() == before
    assert [path.name for path in small_disk.iterdir()] == ["image"]


def test_an_undo_file_in_memory_is_refused_if_the_image_would_outlive_it(tmp_path: Path, small_disk: Path) -> None:
    before = damaged_file(tmp_path / "image")
    with pytest.raises(UsageError, match=r"lies in memory, and would be gone after a power cut; name a place on a disk"):
        repair_file(tmp_path / "image", small_disk / "undo")
    assert (tmp_path / "image").read_bytes() == before


def test_what_is_no_undo_file_is_not_overwritten(tmp_path: Path) -> None:
    before = damaged_file(tmp_path / "image")
    (tmp_path / "image.undo").write_text("notes on undoing things")
    with pytest.raises(UsageError, match=r"exists, and is no undo file; name another place with --undo-file"):
        repair_file(tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == before
    assert (tmp_path / "image.undo").read_text() == "notes on undoing things"


def test_the_image_itself_is_no_place_for_the_undo_file(tmp_path: Path) -> None:
    before = damaged_file(tmp_path / "image")
    with pytest.raises(UsageError, match="exists, and is no undo file"):
        repair_file(tmp_path / "image", tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == before


@pytest.mark.parametrize("place", ["no such directory/undo", "directory"])
def test_a_place_where_no_file_can_be_made_stops_the_repair(tmp_path: Path, place: str) -> None:
    before = damaged_file(tmp_path / "image")
    (tmp_path / "directory").mkdir()
    with pytest.raises(RazorError, match="nothing was changed"):
        repair_file(tmp_path / "image", tmp_path / place)
    assert (tmp_path / "image").read_bytes() == before


def test_the_undo_file_of_an_earlier_repair_moves_to_a_number(tmp_path: Path) -> None:
    image = tmp_path / "image"
    states = [damaged_file(image)]
    for number in range(3):
        with open_image(image, writable=True) as device:
            overlay = OverlayDevice(device)
            mend(overlay)
            write_out(overlay, device, str(default_undo(image)))
        states.append(image.read_bytes())
        names = {"image", "image.undo", *(f"image.undo.{older}" for older in range(1, number + 1))}
        assert {path.name for path in tmp_path.iterdir()} == names
    # Each takes its own repair back, the latest first, and names the one that can be taken back next.
    with open_image(image, writable=True) as device:
        assert undo(device, str(default_undo(image))).older_paths == (f"{image}.undo.2",)
        assert device.read(0, device.size_bytes) == states[2]
        assert undo(device, f"{image}.undo.2").older_paths == (f"{image}.undo.1",)
        assert device.read(0, device.size_bytes) == states[1]
        assert undo(device, f"{image}.undo.1").older_paths == ()
        assert device.read(0, device.size_bytes) == states[0]


def test_an_undo_file_whose_repair_was_taken_back_is_replaced(tmp_path: Path) -> None:
    image = tmp_path / "image"
    damaged_file(image)
    for _ in range(2):
        repair_file(image)
        with open_image(image, writable=True) as device:
            undo(device, str(default_undo(image)))
    assert {path.name for path in tmp_path.iterdir()} == {"image", "image.undo"}


def test_what_is_left_of_an_undo_file_that_was_never_complete_is_replaced(tmp_path: Path) -> None:
    damaged_file(tmp_path / "image")
    for rest in (b"", bytes(5000), UNDO_MAGIC + b"and so on"):
        (tmp_path / "image.undo.new").write_bytes(rest)
        repair_file(tmp_path / "image")
        assert not (tmp_path / "image.undo.new").exists()


def test_a_file_of_somebody_elses_that_has_the_temporary_name_is_left_alone(tmp_path: Path) -> None:
    before = damaged_file(tmp_path / "image")
    (tmp_path / "image.undo.new").write_text("mine")
    with pytest.raises(UsageError, match="exists, and is no undo file"):
        repair_file(tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == before
    assert (tmp_path / "image.undo.new").read_text() == "mine"


# A device that fails, or somebody who has seen enough


def failing_calls() -> int:
    """Return how many writes and flushes a repair of the image in memory makes."""
    image = SimulatedDevice.holding(in_memory())
    overlay = OverlayDevice(image)
    mend(overlay)
    image.write_count = image.flush_count = 0
    with_shelf(overlay, image)
    return image.write_count + image.flush_count


def with_shelf(overlay: OverlayDevice, image: SimulatedDevice) -> None:
    write_out_keeping(overlay, image, LoggedShelf([]), lambda: 0)


@pytest.mark.parametrize("what", ["fail_write_at", "fail_flush_at"])
def test_whichever_call_fails_once_the_image_is_put_back_as_it_was(tmp_path: Path, what: str) -> None:
    before = in_memory().read(0, in_memory().size_bytes)
    for number in range(failing_calls()):
        image = SimulatedDevice.holding(in_memory())
        overlay = OverlayDevice(image)
        mend(overlay)
        image.write_count = image.flush_count = 0
        image.faults = Faults(**{what: number})
        try:
            with_shelf(overlay, image)
        except DeviceFailed as failed:
            assert str(failed).endswith("The image was put back as it was")
            assert image.read(0, image.size_bytes) == before
            assert image.stable().read(0, image.size_bytes) == before
        else:
            assert number >= (image.write_count if what == "fail_write_at" else image.flush_count)


def test_if_the_image_cannot_be_put_back_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    image = SimulatedDevice.holding(in_memory())
    before = image.read(0, image.size_bytes)
    overlay = OverlayDevice(image)
    mend(overlay)
    image.faults = Faults(fail_write_at=3, for_ever=True)
    with pytest.raises(DeviceFailed, match=r"It is half written, and .*undo takes that back: see to the device, then run"):
        write_out(overlay, image, str(tmp_path / "undo"))
    image.faults = Faults()
    undo(image, str(tmp_path / "undo"))
    assert image.read(0, image.size_bytes) == before


def test_who_interrupts_gets_the_image_as_it_was(tmp_path: Path) -> None:
    class Impatient(SimulatedDevice):
        left = 3

        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            super().write(offset, data)
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    image = Impatient.holding(in_memory())
    before = image.read(0, image.size_bytes)
    overlay = OverlayDevice(image)
    mend(overlay)
    with pytest.raises(KeyboardInterrupt):
        write_out(overlay, image, str(tmp_path / "undo"))
    assert image.left <= 0
    assert image.stable().read(0, image.size_bytes) == before
    assert fate_of(tmp_path / "undo") is Fate.TAKEN_BACK


def test_a_cut_off_repair_leaves_an_image_that_asks_for_a_check(tmp_path: Path) -> None:
    image = SimulatedDevice.holding(in_memory())
    assert image_of(image).superblock.state == State.CLEAN
    overlay = OverlayDevice(image)
    mend(overlay)
    image.faults = Faults(fail_write_at=1, for_ever=True)  # the first writes the mark
    with pytest.raises(DeviceFailed):
        write_out(overlay, image, str(tmp_path / "undo"))
    superblock: Superblock = image_of(image).superblock
    assert superblock.state == State.CLEAN  # it may still be mounted
    assert superblock.error_count == 1


def test_an_image_that_counts_as_many_errors_as_it_can_is_repaired_all_the_same(tmp_path: Path) -> None:
    image = in_memory()
    write_superblocks(image, error_count=(1 << 32) - 1)
    overlay = OverlayDevice(image)
    mend(overlay)
    write_out(overlay, image, str(tmp_path / "undo"))
    assert image_of(image).superblock.error_count == 0


# Images of other kinds


def test_a_bad_sector_that_the_repair_writes_over_is_no_obstacle(tmp_path: Path) -> None:
    base = healthy()
    deaf = DeafDevice(base)
    root = image_of(base).superblock.root.address * 4096
    before = deaf.read(0, deaf.size_bytes)
    deaf.bad = range(root + 1024, root + 1536)
    overlay = OverlayDevice(deaf)
    overlay.write(root, before[root : root + 4096])
    shelf = HostShelf(tmp_path / "undo", "memory")
    write_out_keeping(overlay, deaf, shelf)
    deaf.bad = range(0)
    assert deaf.read(0, deaf.size_bytes) == before
    deaf.write(root + 512, b"!" * 512)
    deaf.write(root + 1024, b"?" * 512)  # nobody knows what was in this sector, so nobody can tell whether it was changed
    with pytest.raises(RazorError, match="was changed since the repair"):
        take_back(deaf, shelf)
    deaf.write(root + 512, before[root + 512 : root + 1024])
    take_back(deaf, shelf)
    assert deaf.read(root + 1024, 512) == b"?" * 512


@pytest.mark.parametrize("change", [-5000, -4096, 3000, 4096, 100_000])
@pytest.mark.parametrize("size", [40 * 4096, 40 * 4096 + 1000])
def test_the_length_of_the_image_is_given_back_as_well(tmp_path: Path, size: int, change: int) -> None:
    image = tmp_path / "image"
    raw = damaged_file(image) + random.Random(1).randbytes(size)
    image.write_bytes(raw)
    with open_image(image, writable=True) as device:
        overlay = OverlayDevice(device)
        mend(overlay)
        overlay.resize(len(raw) + change)
        overlay.write(overlay.size_bytes - 600, b"the new end")
        wanted = overlay.read(0, overlay.size_bytes)
        write_out(overlay, device, str(tmp_path / "undo"))
        assert image.read_bytes() == wanted
        undo(device, str(tmp_path / "undo"))
    assert image.read_bytes() == raw


def test_holes_are_given_back_as_zeros_and_take_no_room_in_the_undo_file(tmp_path: Path) -> None:
    image = tmp_path / "image"
    damaged_file(image)
    with image.open("r+b") as file:
        file.truncate(64 * MIB)
    before = image.read_bytes()
    with open_image(image, writable=True) as device:
        overlay = OverlayDevice(device)
        mend(overlay)
        for at in range(32 * MIB, 40 * MIB, 4096):
            overlay.write(at, b"x" * 4096)
        write_out(overlay, device, str(tmp_path / "undo"))
        assert os.stat(tmp_path / "undo").st_size < 1 * MIB
        undo(device, str(tmp_path / "undo"))
    assert image.read_bytes() == before


def test_memory_does_not_grow_with_what_is_taken_back(tmp_path: Path) -> None:
    """The undo file of 32 MiB passes through little memory, on its way out and back."""
    image = tmp_path / "image"
    damaged_file(image)
    with image.open("r+b") as file:
        file.truncate(64 * MIB)
    chance = random.Random(3)
    with open_image(image, writable=True) as device:
        for at in range(16 * MIB, 48 * MIB, MIB):
            device.write(at, chance.randbytes(MIB))
        overlay = OverlayDevice(device)
        mend(overlay)
        for at in range(16 * MIB, 48 * MIB, MIB):
            overlay.write(at, bytes(MIB))
        tracemalloc.start()
        write_out(overlay, device, str(tmp_path / "undo"))
        undo(device, str(tmp_path / "undo"))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10 * MIB


def test_an_image_on_a_block_device_is_repaired_and_taken_back(tmp_path: Path) -> None:
    before = damaged_file(tmp_path / "backing")
    made = subprocess.run(["losetup", "--show", "-f", tmp_path / "backing"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr}")
    device = made.stdout.strip()
    try:
        with pytest.raises(UsageError, match="lies in memory"):
            repair_file(Path(device))  # /dev is no place to keep anything
        _, wanted = repair_file(Path(device), tmp_path / "undo")
        assert Path(device).read_bytes() == wanted
        with open_image(device, writable=True) as image:
            undo(image, str(tmp_path / "undo"))
        assert Path(device).read_bytes() == before
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_an_overlay_that_changed_nothing_on_a_copy_of_the_image_still_belongs_to_it(tmp_path: Path) -> None:
    """The undo file belongs to the contents, not to the file that had them."""
    before = damaged_file(tmp_path / "image")
    _, wanted = repair_file(tmp_path / "image")
    copy = Copy(MemoryDevice(len(wanted)))
    copy.write(0, wanted)
    undo(copy, str(tmp_path / "image.undo"))
    assert copy.read(0, len(before)) == before
