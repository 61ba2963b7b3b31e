"""Taking a repair back: bit for bit, or not at all, and a sentence that says why not."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from razortools.check.repair.undo import undo
from razortools.check.repair.undo_file import UndoReader
from razortools.engine import namespace
from razortools.engine.store.device import FileDevice, open_image
from razortools.engine.volume import open_volume
from razortools.errors import CannotUndo, DeviceFailed, ImageBusy, ReadOnly
from razortools.format.inode import ROOT_INODE
from razortools.format.undo import UNDO_HEAD_BYTES, UNDO_SECTOR_BYTES, Fate, Stage, UndoHeader
from tests.check.mending import damaged_file, default_undo, repair_file


class Repaired:
    """An image in a file that was repaired."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "image"
        self.undo_path = default_undo(self.path)
        self.before = damaged_file(self.path)
        _, self.after = repair_file(self.path)

    def take_back(self) -> int:
        with open_image(self.path, writable=True) as image:
            return undo(image, str(self.undo_path)).page_count

    def expect_refusal(self, match: str) -> None:
        """Taking back must be refused, and must have written nothing, neither to the image nor to the undo file."""
        held = self.path.read_bytes(), self.undo_path.read_bytes() if self.undo_path.exists() else b""
        with pytest.raises(CannotUndo, match=match):
            self.take_back()
        assert (self.path.read_bytes(), self.undo_path.read_bytes() if self.undo_path.exists() else b"") == held

    def fate(self) -> Fate:
        with open_image(self.undo_path, writable=False) as file:
            return UndoReader(file).fate

    def flip(self, path: Path, offset: int) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))


@pytest.fixture
def repaired(tmp_path: Path) -> Repaired:
    return Repaired(tmp_path)


def test_the_image_is_what_it_was_bit_for_bit(repaired: Repaired) -> None:
    assert repaired.take_back()
    assert repaired.path.read_bytes() == repaired.before
    assert repaired.fate() is Fate.TAKEN_BACK


def test_doing_it_twice_is_doing_it_once(repaired: Repaired) -> None:
    repaired.take_back()
    assert repaired.take_back() == 0
    assert repaired.path.read_bytes() == repaired.before


def test_an_image_that_was_mounted_since_is_refused(repaired: Repaired) -> None:
    open_volume(open_image(repaired.path, writable=True)).close()
    repaired.expect_refusal(r"was changed since the repair, or .*image.undo belongs to another image.*Nothing was changed")


def test_an_image_that_was_used_since_is_refused(repaired: Repaired) -> None:
    with open_volume(open_image(repaired.path, writable=True)) as volume:
        namespace.create(volume, ROOT_INODE, b"new work", 0o644, 0, 0)
    repaired.expect_refusal("was changed since the repair")


def test_a_later_repair_has_to_be_taken_back_first(repaired: Repaired) -> None:
    repair_file(repaired.path)
    earlier = repaired.undo_path.with_name("image.undo.1")
    with open_image(repaired.path, writable=True) as image, pytest.raises(CannotUndo, match="was changed since the repair"):
        undo(image, str(earlier))
    repaired.take_back()
    assert repaired.path.read_bytes() == repaired.after
    with open_image(repaired.path, writable=True) as image:
        undo(image, str(earlier))
    assert repaired.path.read_bytes() == repaired.before


def test_an_earlier_repair_is_offered_only_if_it_can_still_be_taken_back(repaired: Repaired) -> None:
    """What was written between two repairs stays when the second one is taken back, and stands against the first one."""
    open_volume(open_image(repaired.path, writable=True)).close()
    repair_file(repaired.path)
    repaired.undo_path.with_name("image.undo.2").write_text("no undo file at all")
    assert repaired.undo_path.with_name("image.undo.1").exists()
    with open_image(repaired.path, writable=True) as image:
        done = undo(image, str(repaired.undo_path))
    assert done.page_count > 0
    assert done.older_paths == ()


def test_an_earlier_repair_of_an_image_of_another_size_is_not_offered(repaired: Repaired) -> None:
    with repaired.path.open("ab") as file:
        file.write(bytes(8192))
    repair_file(repaired.path)
    with open_image(repaired.path, writable=True) as image:
        assert undo(image, str(repaired.undo_path)).older_paths == ()


def test_one_foreign_byte_in_any_page_that_the_repair_wrote_is_noticed(repaired: Repaired) -> None:
    with open_image(repaired.undo_path, writable=False) as file:
        offsets = sorted({page.offset for page in UndoReader(file).pages()})
    for number, offset in enumerate(offsets):
        at = offset + number * UNDO_SECTOR_BYTES % 4096 + 5
        repaired.flip(repaired.path, at)
        repaired.expect_refusal(f"1 of its pages, the first at byte {offset},")
        repaired.flip(repaired.path, at)
    repaired.take_back()


def test_the_superblocks_are_always_among_what_is_looked_at(repaired: Repaired) -> None:
    """Whoever changes the filesystem changes one of them, even if a repair had left both alone."""
    with open_image(repaired.undo_path, writable=False) as file:
        assert {0, 4096} <= {page.offset for page in UndoReader(file).pages()}


def test_the_undo_file_of_another_image_is_refused(repaired: Repaired, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Repaired(tmp_path / "other")
    with open_volume(open_image(other.path, writable=True)):
        pass
    repaired.undo_path.write_bytes(other.undo_path.read_bytes())
    repaired.path.write_bytes(random.Random(1).randbytes(len(repaired.before)))
    repaired.expect_refusal("belongs to another image")


def test_an_image_of_another_length_is_refused(repaired: Repaired) -> None:
    with repaired.path.open("r+b") as file:
        file.truncate(len(repaired.before) + 4096)
    repaired.expect_refusal(rf"has {len(repaired.before) + 4096} bytes, .* belongs to an image of {len(repaired.before)}")


def test_without_an_undo_file_it_says_so(repaired: Repaired) -> None:
    repaired.undo_path.unlink()
    repaired.expect_refusal("there is no such undo file; name the one of the repair with --undo-file")


def test_another_file_is_no_undo_file(repaired: Repaired) -> None:
    repaired.undo_path.write_bytes(b"hello")
    repaired.expect_refusal("is no undo file")
    repaired.undo_path.write_bytes(b"")
    repaired.expect_refusal("is no undo file")


def test_an_undo_file_that_is_cut_off_anywhere_is_refused(repaired: Repaired) -> None:
    raw = repaired.undo_path.read_bytes()
    for length in range(8, len(raw), 499):
        repaired.undo_path.write_bytes(raw[:length])
        repaired.expect_refusal("the undo file is damaged")


def test_any_flipped_byte_of_an_undo_file_is_noticed(repaired: Repaired) -> None:
    """All but the padding and the mark at the end, which taking back does not depend on."""
    raw = repaired.undo_path.read_bytes()
    seed = 9
    print(f"seed {seed}")
    chance = random.Random(seed)
    end = raw.rindex(b"RZUE") + 20
    for at in [*range(8, 600), *chance.sample(range(600, end), 300), *range(end - 20, end)]:
        repaired.flip(repaired.undo_path, at)
        repaired.expect_refusal("nothing was changed|Nothing was changed")
        repaired.flip(repaired.undo_path, at)
    for at in (end, len(raw) - UNDO_SECTOR_BYTES, len(raw) - 1):
        repaired.flip(repaired.undo_path, at)
    repaired.take_back()
    assert repaired.path.read_bytes() == repaired.before


def test_an_undo_file_of_another_version_asks_for_that_version(repaired: Repaired) -> None:
    raw = repaired.undo_path.read_bytes()
    header = replace(UndoHeader.decode(raw[:UNDO_HEAD_BYTES]), version=2)
    repaired.undo_path.write_bytes(header.encode() + raw[UNDO_HEAD_BYTES:])
    repaired.expect_refusal("was made by another version of razorfsck; use that one")


def test_an_image_that_is_in_use_or_read_only_is_left_alone(repaired: Repaired) -> None:
    with open_image(repaired.path, writable=True), pytest.raises(ImageBusy):
        repaired.take_back()
    with open_image(repaired.path, writable=False) as image, pytest.raises(ReadOnly):
        undo(image, str(repaired.undo_path))
    assert repaired.path.read_bytes() == repaired.after


def test_the_stages_are_taken_back_the_other_way_round(repaired: Repaired, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_image(repaired.undo_path, writable=False) as file:
        stages = {page.offset: page.stage for page in UndoReader(file).pages() if page.stage != Stage.MARK}
    written: list[int] = []
    real_write = FileDevice.write

    def write(device: FileDevice, offset: int, data: bytes) -> None:
        if device.name == str(repaired.path):
            written.append(stages[offset])
        real_write(device, offset, data)

    monkeypatch.setattr(FileDevice, "write", write)
    repaired.take_back()
    *others, last = written
    assert last in (Stage.TRUTH, Stage.BEHIND)  # the page of the mark, which is written first and a second time later
    assert others == sorted(others, reverse=True)
    assert set(others) == {Stage.AHEAD, Stage.TRUTH, Stage.BEHIND}


class Killed(BaseException):
    """The process is gone; the host keeps what it wrote."""


def kill_after(writes: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process die, so to speak, after so many writes to the file."""
    left = writes
    real_write = FileDevice.write

    def write(device: FileDevice, offset: int, data: bytes) -> None:
        nonlocal left
        if device.name == str(path):
            left -= 1
            if left < 0:
                raise Killed
        real_write(device, offset, data)

    monkeypatch.setattr(FileDevice, "write", write)


@pytest.mark.parametrize("writes", range(8))
def test_a_repair_that_was_killed_anywhere_can_be_taken_back(
    repaired: Repaired, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    repaired.take_back()
    kill_after(writes, repaired.path, monkeypatch)
    with pytest.raises(Killed):
        repair_file(repaired.path)
    monkeypatch.undo()
    assert (repaired.path.read_bytes() == repaired.before) == (writes == 0)
    repaired.take_back()
    assert repaired.path.read_bytes() == repaired.before


@pytest.mark.parametrize("writes", range(8))
def test_a_taking_back_that_was_killed_anywhere_is_completed_by_another(
    repaired: Repaired, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    kill_after(writes, repaired.path, monkeypatch)
    with pytest.raises(Killed):
        repaired.take_back()
    monkeypatch.undo()
    assert repaired.path.read_bytes() != repaired.before
    repaired.take_back()
    assert repaired.path.read_bytes() == repaired.before


def test_a_device_that_cannot_be_read_is_told_as_such(repaired: Repaired, monkeypatch: pytest.MonkeyPatch) -> None:
    real_read = FileDevice.read

    def read(device: FileDevice, offset: int, length: int) -> bytes:
        if device.name == str(repaired.path) and offset <= 4096 < offset + length:
            raise DeviceFailed("bad sector")
        return real_read(device, offset, length)

    monkeypatch.setattr(FileDevice, "read", read)
    with pytest.raises(DeviceFailed, match=r"byte 4096 and what follows cannot be read. Nothing was changed"):
        repaired.take_back()
    monkeypatch.undo()
    assert repaired.path.read_bytes() == repaired.after
