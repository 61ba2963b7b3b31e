"""undelete: what comes back is what was deleted, byte for byte, or it is said that it is not."""

import os
import random
from pathlib import Path

import pytest

from razortools.check.runner import check_quietly
from razortools.engine import files, namespace
from razortools.engine.store.device import open_image
from razortools.engine.volume import Volume
from tests.debug.tool import NOISE, TEXT, answer, debug, furnished, hurt, text, written
from tests.images import open_for_writing


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return furnished(tmp_path / "a.img")


def delete(image: Path, *paths: bytes) -> None:
    with open_for_writing(image) as volume:
        for path in paths:
            _unlink(volume, path)


def _unlink(volume: Volume, path: bytes) -> None:
    parent, _, name = path.rpartition(b"/")
    namespace.unlink(volume, namespace.resolve(volume, parent or b"/"), name)


def test_deleted_files_are_listed_and_copied_out_without_a_change(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(capsys, image, "undelete") == []
    delete(image, b"/home/noise", b"/home/text", b"/home/symlink", b"/hard", b"/home/small")
    before = image.read_bytes()
    listed = {one["path"]: one for one in answer(capsys, image, "undelete --list")}
    assert len(listed) == 4
    assert listed.keys() - {"/hard", "/home/small"} == {"/home/noise", "/home/text", "/home/symlink"}
    assert {one["state"] for one in listed.values()} == {"whole"}
    for path, contents in (("/home/noise", NOISE), ("/home/text", TEXT)):
        out = tmp_path / path.rpartition("/")[2]
        text(capsys, image, f"undelete {listed[path]['inode']} --out {out}")
        assert out.read_bytes() == contents
        assert debug("-R", f"undelete {listed[path]['inode']} --out {out}", image) == 2
    assert image.read_bytes() == before


def test_a_file_is_put_back_with_its_attributes_and_the_image_is_good(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = answer(capsys, image, "stat /home/noise")
    delete(image, b"/home/noise", b"/home/symlink")
    listed = {one["path"]: one["inode"] for one in answer(capsys, image, "undelete")}
    text(capsys, image, f"undelete {listed['/home/noise']}", f"undelete {listed['/home/symlink']} /elsewhere", write=True)
    back = answer(capsys, image, "stat /home/noise")
    for name in ("mode", "uid", "gid", "size", "mtime_ns", "atime_ns", "xattrs"):
        assert back[name] == facts[name], name
    assert answer(capsys, image, "stat /elsewhere")["target"] == "../nowhere"
    with open_image(image, writable=False) as device:
        assert check_quietly(device).exit_code == 0
    with open_for_writing(image) as volume:
        assert files.read(volume, namespace.resolve(volume, b"/home/noise"), 0, len(NOISE)) == NOISE


def test_what_was_overwritten_is_never_returned_as_if_it_were_whole(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = image.read_bytes().find(NOISE[140_000:140_064])
    delete(image, b"/home/noise")
    hurt(image, place)
    (listed,) = answer(capsys, image, "undelete")
    assert listed["state"] == "131072 bytes overwritten"
    out = tmp_path / "out"
    assert debug("-R", f"undelete {listed['inode']} --out {out}", image) == 2
    assert "--partly" in capsys.readouterr().err
    text(capsys, image, f"undelete {listed['inode']} --partly --out {out}")
    assert out.read_bytes() == NOISE[:131072] + bytes(131072) + NOISE[262144:]


def test_a_file_comes_back_as_it_was_last_and_not_as_it_was_before(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_for_writing(image) as volume:
        ino = namespace.resolve(volume, b"/home/noise")
        files.truncate(volume, ino, 5)
        volume.checkpoint()
        files.write(volume, ino, 200_000, b"end")
        volume.checkpoint()
        _unlink(volume, b"/home/noise")
    (listed,) = answer(capsys, image, "undelete")
    text(capsys, image, f"undelete {listed['inode']} --out {tmp_path / 'out'}")
    assert (tmp_path / "out").read_bytes() == NOISE[:5] + bytes(199_995) + b"end"


def test_whatever_is_called_whole_is_the_same_however_much_was_written_since(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(23)
    image = furnished(tmp_path / "a.img", 2 * 2**20)
    held: dict[int, bytes] = {}
    whole = 0
    for step in range(4):
        with open_for_writing(image) as volume:
            root = namespace.resolve(volume, b"/")
            for number in range(6):
                data = chance.randbytes(chance.choice((10, 3000, 40_000)))
                held[written(volume, root, b"f%d-%d" % (step, number), data)] = data
            volume.checkpoint()
            for number in chance.sample(range(6), 4):
                _unlink(volume, b"/f%d-%d" % (step, number))
        for one in answer(capsys, image, "undelete"):
            if one["state"] == "whole" and one["inode"] in held:
                out = tmp_path / f"out{step}-{one['inode']}"
                text(capsys, image, f"undelete {one['inode']} --out {out}")
                assert out.read_bytes() == held[one["inode"]], (step, one)
                os.unlink(out)
                whole += 1
    assert whole > 6


def test_undelete_without_the_right_to_write_says_what_can_be_done(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    delete(image, b"/home/noise")
    (listed,) = answer(capsys, image, "undelete")
    assert debug("-R", f"undelete {listed['inode']}", image) == 1
    assert "--out copies it" in capsys.readouterr().err
    assert debug("-w", "-R", "undelete 99999", image) == 2
    assert debug("-w", "-R", f"undelete {listed['inode']} /hard", image) == 1
