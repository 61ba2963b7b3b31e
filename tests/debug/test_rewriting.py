"""defrag, recompress, relabel, newuuid: what a file holds stays, and the image is good."""

import random
import uuid
from pathlib import Path

import pytest

from razortools.check.runner import check_quietly
from razortools.debug import rewriting
from razortools.debug.identity import become
from razortools.engine import files, namespace, xattrs
from razortools.engine.attributes import AttributeChange
from razortools.engine.store.device import FileDevice, open_image
from razortools.engine.volume import open_volume
from razortools.errors import OutOfSpace
from razortools.format.compression import Algorithm
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB
from tests.debug.tool import NOISE, TEXT, answer, crashed, debug, furnished, text, written
from tests.images import make_image, open_for_writing


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return furnished(tmp_path / "a.img")


def is_good(image: Path) -> bool:
    """Return whether razorfsck finds nothing."""
    with open_image(image, writable=False) as device:
        return check_quietly(device).exit_code == 0


def test_defrag_puts_scattered_files_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = make_image(tmp_path / "a.img", 8 * MIB)
    data = random.Random(3).randbytes(2_400_000)
    with open_for_writing(image) as volume:
        count = 0
        while volume.store.maps.free_blocks > 300:
            written(volume, ROOT_INODE, b"c%d" % count, random.Random(count).randbytes(4096 * 20))
            count += 1
            volume.checkpoint()
        for number in range(0, count, 2):
            namespace.unlink(volume, ROOT_INODE, b"c%d" % number)
        volume.checkpoint()
        written(volume, ROOT_INODE, b"scattered", data)
        volume.checkpoint()
        for number in range(1, count, 2):
            namespace.unlink(volume, ROOT_INODE, b"c%d" % number)
    mtime_ns = answer(capsys, image, "stat /scattered")["mtime_ns"]
    done = answer(capsys, image, "defrag /", "-w")
    assert done["files"] == 1
    assert done["pieces_after"] < done["pieces_before"] // 2
    assert answer(capsys, image, "stat /scattered")["mtime_ns"] == mtime_ns
    assert is_good(image)
    with open_for_writing(image) as volume:
        assert files.read(volume, namespace.resolve(volume, b"/scattered"), 0, len(data)) == data


def test_recompress_keeps_contents_and_holes_and_the_file_keeps_the_policy(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = answer(capsys, image, "recompress none /home", "-w")
    assert (done["files"], done["blocks_after"] > done["blocks_before"]) == (4, True)
    assert {piece["algorithm"] for piece in answer(capsys, image, "records /home/text")["pieces"]} == {"none"}
    assert len(answer(capsys, image, "records /home/sparse")["pieces"]) == 1  # the hole stayed one
    back = answer(capsys, image, "recompress lz4 /home/text", "-w")
    assert back["blocks_after"] < back["blocks_before"]
    assert {piece["algorithm"] for piece in answer(capsys, image, "records --verify /home/text")["pieces"]} == {"lz4"}
    with open_for_writing(image) as volume:
        assert files.read(volume, namespace.resolve(volume, b"/home/text"), 0, len(TEXT)) == TEXT
    assert is_good(image)
    assert debug("-w", "-R", "recompress best /home", image) == 2


def test_times_and_compression_are_right_at_whatever_moment_the_work_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is killed in the middle leaves the last commit; the time of the rewriting must not be that of the file in any."""
    image, data = make_image(tmp_path / "a.img", 8 * MIB), TEXT[:50_000] * 20 + NOISE
    with open_for_writing(image) as volume:
        ino = written(volume, ROOT_INODE, b"large", data)
        xattrs.set(volume, ino, xattrs.COMPRESSION, b"none")
        namespace.setattr(volume, ino, AttributeChange(atime_ns=1, mtime_ns=1000))
    monkeypatch.setattr(rewriting, "COMMIT_BYTES", 256 * KIB)
    flush, states = FileDevice.flush, list[bytes]()

    def flush_and_look(device: FileDevice) -> None:
        flush(device)
        states.append(image.read_bytes())

    monkeypatch.setattr(FileDevice, "flush", flush_and_look)
    assert debug("-w", "-R", "recompress zlib:6 /large", "-R", "defrag /large", image) == 0
    monkeypatch.undo()
    found = [seen_in(tmp_path / "state.img", state, data) for state in states]
    assert {(atime_ns, mtime_ns) for atime_ns, mtime_ns, _, _ in found} == {(1, 1000)}
    told = list(dict.fromkeys((policy, attribute) for _, _, policy, attribute in found))
    assert told == [(Algorithm.NONE, b"none"), (Algorithm.ZLIB, b"zlib:6")]
    assert len(found) > 8


def seen_in(path: Path, state: bytes, data: bytes) -> tuple[int, int, int, bytes]:
    """Return (atime, mtime, algorithm, attribute) of /large in an image that is cut off as *state*, where it must hold *data*."""
    path.write_bytes(state)
    with open_volume(open_image(path, writable=False), read_only=True) as volume:
        ino = namespace.resolve(volume, b"/large")
        inode = volume.inodes.get(ino)
        assert files.read(volume, ino, 0, len(data) + 1) == data
        return inode.atime_ns, inode.mtime_ns, inode.compression, xattrs.get(volume, ino, xattrs.COMPRESSION)


def test_a_file_that_finds_no_room_keeps_its_compression_and_its_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, data = make_image(tmp_path / "a.img", 4 * MIB), TEXT * 9
    with open_for_writing(image) as volume:
        written(volume, ROOT_INODE, b"large", data)
        written(volume, ROOT_INODE, b"fill", random.Random(5).randbytes(2 * MIB))
    before = answer(capsys, image, "stat /large")
    assert debug("-w", "-R", "recompress none /large", image) == 1
    assert "no room to store it anew" in capsys.readouterr().err
    assert answer(capsys, image, "stat /large")["mtime_ns"] == before["mtime_ns"]
    assert answer(capsys, image, "stat /large")["compression"] == before["compression"]
    with open_for_writing(image) as volume:
        ino = namespace.resolve(volume, b"/large")
        assert xattrs.names(volume, ino) == []
        assert files.read(volume, ino, 0, len(data)) == data
    assert is_good(image)


def test_a_label_and_a_uuid_are_changed_in_every_copy(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = str(uuid.UUID(int=77 << 70))
    text(capsys, image, "relabel 'näme'", f"newuuid {new}", "mkdir /after", write=True)
    assert answer(capsys, image, "label") == {"label": "näme"}
    assert answer(capsys, image, "uuid") == {"uuid": new}
    for copy in ("A", "B", "1", "4"):
        assert answer(capsys, image, f"super {copy}")["superblock"]["uuid"] == new
    assert answer(capsys, image, "verify")["damaged"] == []
    assert is_good(image)
    dirty = crashed(tmp_path / "dirty.img", image)  # the journal is the new filesystem's, too
    assert answer(capsys, dirty, "stat /late")["size"] == 10
    assert is_good(image)
    for wrong in ("relabel " + "x" * 65, "newuuid x"):
        assert debug("-w", "-R", wrong, image) == 2
    assert "patches" in text(capsys, image, "feature")


def test_a_new_uuid_that_finds_no_room_changes_nothing(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = answer(capsys, image, "uuid")
    with open_for_writing(image) as volume, monkeypatch.context() as patched:
        patched.setattr(volume.store.pool, "reserve", lambda node_count: False)
        with pytest.raises(OutOfSpace, match="no room to write the tree anew"):
            become(volume, bytes(range(16, 32)))
    assert answer(capsys, image, "uuid") == before
    assert is_good(image)


def test_what_is_committed_after_a_new_uuid_survives_a_crash(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_for_writing(image) as volume:
        become(volume, bytes(range(16, 32)))
        namespace.mkdir(volume, ROOT_INODE, b"after", 0o755, 0, 0)
        volume.commit()
        (tmp_path / "crashed.img").write_bytes(image.read_bytes())
    assert answer(capsys, tmp_path / "crashed.img", "stat /after")["type"] == "directory"
    assert len(answer(capsys, tmp_path / "crashed.img", "journal")["transactions"]) == 1
