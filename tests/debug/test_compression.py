"""compression: its sums are the volume's, and each reason is the one for which the data are stored so."""

import random
from pathlib import Path

import pytest

from razortools.engine import files, xattrs
from razortools.engine.adaptive import Verdict
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB
from tests.debug.tool import answer, hurt, text, written
from tests.images import make_image, open_for_writing

TEXT = b"a line of text that compresses well\n" * 10_000
SEED = 6
NOISE = random.Random(SEED).randbytes(128 * KIB)
SMALL_NOISE = NOISE[: 5 * 4096]  # tried, not only glanced at


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Files that are compressed, and files that are not for every reason there is."""
    image = make_image(tmp_path / "a.img")
    with open_for_writing(image) as volume:
        xattrs.set(volume, ROOT_INODE, xattrs.COMPRESSION, b"none")
        off = written(volume, ROOT_INODE, b"off.log", TEXT)
        before = written(volume, ROOT_INODE, b"before.log", TEXT)
        volume.commit()
        xattrs.set(volume, before, xattrs.COMPRESSION, b"auto")
        xattrs.set(volume, ROOT_INODE, xattrs.COMPRESSION, b"auto")
        written(volume, ROOT_INODE, b"some.log", TEXT)
        written(volume, ROOT_INODE, b"small.LOG", b"small\n")
        written(volume, ROOT_INODE, b"picture.png", b"\x89PNG\r\n\x1a\n" + NOISE[8:])
        written(volume, ROOT_INODE, b"noise", SMALL_NOISE)
        slow = written(volume, ROOT_INODE, b"slow", b"")
        xattrs.set(volume, slow, xattrs.COMPRESSION, b"zlib")
        files.write(volume, slow, 0, NOISE)
        assert volume.inodes.get(off).size == len(TEXT)
    return image


def test_what_it_counts_is_what_there_is(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    types = {one["suffix"]: one for one in answer(capsys, image, "compression")["types"]}
    assert {suffix: one["files"] for suffix, one in types.items()} == {".log": 4, ".png": 1, "": 2}
    assert types[".log"]["raw_bytes"] == 3 * len(TEXT) + 6
    assert types[".log"]["inline_bytes"] == 6
    assert types[".log"]["as_is_bytes"] == 2 * len(TEXT)
    assert types[""]["raw_bytes"] == types[""]["stored_bytes"] == types[""]["as_is_bytes"] == len(NOISE) + len(SMALL_NOISE)
    with open_for_writing(image) as volume:
        assert sum(one["raw_bytes"] - one["inline_bytes"] for one in types.values()) == volume.statistics().raw_bytes


def test_why_something_is_stored_as_it_is_is_told(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = {one["example"]: one["reason"] for one in answer(capsys, image, "compression --why")["reasons"]}
    wanted = {
        "/off.log": Verdict.NOT_ASKED, "/picture.png": Verdict.KNOWN_FORMAT, "/noise": Verdict.NO_GAIN, "/slow": Verdict.PROBED,
    }  # fmt: skip
    for path, verdict in wanted.items():
        assert f"stored: {reasons.pop(path)}" == verdict.value
    assert reasons == {"/before.log": "it was stored so before, and would shrink now: see recompress"}
    text(capsys, image, "recompress auto /before.log", write=True)
    assert "/before.log" not in text(capsys, image, "compression --why /")


def test_what_cannot_be_read_is_told_and_the_rest_is_counted(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run, *_) = answer(capsys, image, "where /noise")["runs"]
    hurt(image, run["first_block"] * 4096)
    told = answer(capsys, image, "compression --why")
    assert [one["path"] for one in told["unreadable"]] == ["/noise"]
    assert {one["example"] for one in told["reasons"]} == {"/off.log", "/picture.png", "/slow", "/before.log"}
