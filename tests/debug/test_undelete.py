"""undelete: what comes back is what was deleted, byte for byte, or it is said that it is not."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from razortools.check.runner import check_quietly
from razortools.debug import undeleting
from razortools.debug.deleted import find_deleted
from razortools.debug.opening import open_session
from razortools.debug.undeleting import restore
from razortools.engine import files, namespace, xattrs
from razortools.engine.limits import Limits
from razortools.engine.store.device import open_image
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.data import Run
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import inode_key, record_key
from razortools.format.node import NODE_MAGIC, decode_header, decode_items
from razortools.units import KIB, MIB, BlockNo
from tests.debug.tool import NOISE, TEXT, answer, debug, furnished, hurt, text, written
from tests.images import make_image, open_for_writing


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


def test_a_file_whose_directories_were_deleted_with_it_is_listed_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by playing an incident: after `rm -r photos` the list said ?/beach.jpg, and undelete had no place for it."""
    image = make_image(tmp_path / "a.img")
    with open_for_writing(image) as volume:
        above = namespace.mkdir(volume, ROOT_INODE, b"photos", 0o755, 0, 0)
        below = namespace.mkdir(volume, above, b"old", 0o755, 0, 0)
        written(volume, below, b"beach.jpg", NOISE)
        volume.checkpoint()
        namespace.rename(volume, above, b"old", above, b"2020")
    with open_for_writing(image) as volume:
        namespace.unlink(volume, below, b"beach.jpg")
        namespace.rmdir(volume, above, b"2020")
        namespace.rmdir(volume, ROOT_INODE, b"photos")
    (listed,) = answer(capsys, image, "undelete --list")
    assert (listed["path"], listed["state"]) == ("/photos/2020/beach.jpg", "whole")
    assert "-> /undeleted-" in text(capsys, image, f"undelete {listed['inode']}", write=True)
    put_back = ("mkdir /photos", "mkdir /photos/2020", f"undelete {listed['inode']}")
    assert "-> /photos/2020/beach.jpg: 300000 bytes" in text(capsys, image, *put_back, write=True)


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


def test_a_file_of_which_a_node_is_lost_is_not_called_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = make_image(tmp_path / "a.img", 8 * MIB, record_bytes=4096)  # nodes of one block, and a record for each block
    with open_for_writing(image) as volume:
        ino = written(volume, ROOT_INODE, b"long", random.Random(4).randbytes(400 * 4096))
    delete(image, b"/long")
    (listed,) = answer(capsys, image, "undelete")
    assert listed["state"] == "whole"
    raw = image.read_bytes()
    inodes_leaf = inode_key(ino)
    for place in range(0, len(raw), 4096):
        if raw[place : place + 4] == NODE_MAGIC:
            keys, _ = decode_items(raw[place : place + 4096], decode_header(raw[place : place + 4096]))
            if record_key(ino, 300) in keys and inodes_leaf not in keys:
                hurt(image, place + 500)
    (listed,) = answer(capsys, image, "undelete")
    assert "blocks not found" in listed["state"]


def test_what_comes_back_is_not_written_over_what_is_still_to_be_read(tmp_path: Path) -> None:
    image = make_image(tmp_path / "a.img", 4 * MIB)
    data = random.Random(6).randbytes(3 * 128 * KIB)
    with open_for_writing(image) as volume:
        written(volume, ROOT_INODE, b"first", random.Random(5).randbytes(128 * KIB))
        volume.checkpoint()
        ino = written(volume, ROOT_INODE, b"file", data[: 2 * 128 * KIB])
        volume.checkpoint()
        namespace.unlink(volume, ROOT_INODE, b"first")
    with open_for_writing(image) as volume:  # its last record takes the place of the first file, which is the lowest
        files.write(volume, ino, 2 * 128 * KIB, data[2 * 128 * KIB :])
    delete(image, b"/file")
    with open_session(str(image), writable=True, tell=lambda said: None) as session:
        session.volume.set_limits(Limits(dirty_bytes=128 * KIB))
        (found,) = (one for one in find_deleted(session) if one.ino == ino)
        starts = [found.records[number].address for number in range(3)]
        assert min(starts) == starts[2]
        restore(session, found, "/back", kept=[found])
        assert files.read(session.volume, session.find("/back"), 0, len(data)) == data
    with open_image(image, writable=False) as device:
        assert check_quietly(device).exit_code == 0


@pytest.mark.parametrize("room", [True, False], ids=["there is room", "the others are all the room that there is"])
def test_files_that_come_back_one_after_the_other_do_not_lie_in_each_others_place(
    room: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one that came back used to take the place of the second, which then was told as overwritten."""
    image = make_image(tmp_path / "a.img", (16 if room else 4) * MIB)
    size = 200_000 if room else 1_400_000
    contents = {f"/{number}": random.Random(number).randbytes(size) for number in range(2)}
    with open_for_writing(image) as volume:
        for path, data in contents.items():
            written(volume, ROOT_INODE, path[1:].encode(), data)
    delete(image, *(path.encode() for path in contents))
    listed = {one["path"]: one["inode"] for one in answer(capsys, image, "undelete")}
    for path in contents if room else ("/0",):
        text(capsys, image, f"undelete {listed[path]}", write=True)
    with open_for_writing(image) as volume:
        for path in contents if room else ("/0",):
            assert files.read(volume, namespace.resolve(volume, path.encode()), 0, size) == contents[path], path
    if not room:
        states = [one["state"] for one in answer(capsys, image, "undelete") if one["path"] != "/0"]
        assert any("overwritten" in state for state in states), "there was no other place, and it is told"
    with open_image(image, writable=False) as device:
        assert check_quietly(device).exit_code == 0


LARGE_ATTRIBUTES = {path: random.Random(path).randbytes(60_000) for path in ("/0", "/1")}


@pytest.fixture
def with_attributes(tmp_path: Path) -> Path:
    """An image with two deleted files whose attributes are too large for the tree."""
    image = make_image(tmp_path / "b.img", 16 * MIB)
    with open_for_writing(image) as volume:
        for path, value in LARGE_ATTRIBUTES.items():
            ino = written(volume, ROOT_INODE, path[1:].encode(), path.encode() * 100)
            xattrs.set(volume, ino, b"user.large", value)
    delete(image, *(path.encode() for path in LARGE_ATTRIBUTES))
    return image


def test_a_file_that_comes_back_does_not_lie_over_the_attributes_of_another(
    with_attributes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the contents of the other files used to be kept apart."""
    listed = {one["path"]: one["inode"] for one in answer(capsys, with_attributes, "undelete")}
    for path in reversed(LARGE_ATTRIBUTES):  # the lowest free place is that of the first one's attribute
        text(capsys, with_attributes, f"undelete {listed[path]}", write=True)
    with open_for_writing(with_attributes) as volume:
        for path, value in LARGE_ATTRIBUTES.items():
            assert xattrs.get(volume, namespace.resolve(volume, path.encode()), b"user.large") == value


def test_a_file_that_lost_an_attribute_is_not_called_whole(with_attributes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It used to come back without, and nobody was told."""
    hurt(with_attributes, with_attributes.read_bytes().find(LARGE_ATTRIBUTES["/0"][:64]))
    listed = {one["path"]: one for one in answer(capsys, with_attributes, "undelete")}
    assert (listed["/0"]["state"], listed["/1"]["state"]) == ("attribute user.large overwritten", "whole")
    command = f"undelete {listed['/0']['inode']}"
    assert debug("-w", "-R", command, with_attributes) == 2
    assert "attribute user.large overwritten; --partly takes what is left" in capsys.readouterr().err
    text(capsys, with_attributes, f"{command} --partly", write=True)
    with open_for_writing(with_attributes) as volume:
        ino = namespace.resolve(volume, b"/0")
        assert files.read(volume, ino, 0, 300) == b"/0" * 100 and xattrs.names(volume, ino) == []


def test_what_lies_beyond_a_smaller_image_or_partly_in_use_is_kept_apart_as_far_as_it_goes(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete(image, b"/home/noise")
    with open_session(str(image), writable=True, tell=lambda said: None) as session:
        (found,) = (one for one in find_deleted(session) if one.records)
        maps = session.for_writing().store.maps
        before = maps.free_blocks
        runs = [run for record in (*found.records.values(), *found.outside) for run in record.runs(4096)]
        blocks = [BlockNo(block) for first, count in runs for block in range(first, first + count)]
        taken = blocks[3]
        maps.mark_used(taken, 1)
        beyond = replace(found.records[0], address=session.volume.store.geometry.block_count + 10**6)
        with undeleting._kept_apart(session, [replace(found, records=found.records | {99: beyond}), found]):
            assert all(map(maps.is_used, blocks)) and maps.free_blocks == before - len(blocks)
        assert [block for block in blocks if maps.is_used(block)] == [taken]
        maps.free_now(taken, 1)
        honest = maps.free_parts

        def damaged(start: BlockNo, count: int) -> list[Run]:
            if start <= blocks[40] < start + count:
                raise CorruptImage("as the test asked")
            return honest(start, count)

        monkeypatch.setattr(maps, "free_parts", damaged)
        with pytest.raises(CorruptImage), undeleting._kept_apart(session, [found]):
            raise AssertionError
        assert maps.free_blocks == before and maps.unclaimed == {}
