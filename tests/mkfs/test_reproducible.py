"""Under SOURCE_DATE_EPOCH the same input gives the same bytes; with content the same UUID whichever way the files come."""

import gzip
import os
import random
import shutil
from pathlib import Path

import pytest

from razortools.engine.populate.digest import digest_entries
from razortools.engine.populate.directory import DirectorySource
from razortools.engine.populate.entry import Entry, SourceFailed, clamped
from tests.mkfs.conftest import EPOCH_S, Mkfs
from tests.mkfs.trees import make_tree, tarred, volume_pictures


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def test_an_empty_image_comes_out_the_same(run_mkfs: Mkfs, image: Path, epoch: None) -> None:
    assert run_mkfs(image, "8M", "-L", "name").code == 0
    first = image.read_bytes()
    image.unlink()
    assert run_mkfs(image, "8M", "-L", "name").code == 0
    assert image.read_bytes() == first


@pytest.mark.parametrize("uuid", ["content", "time", "6a0c4fd2-1dfe-4c7e-b1a5-57a27dcf5a6b", None])
@pytest.mark.parametrize("way", ["directory", "tarball", "stdin"])
def test_the_same_input_gives_the_same_bytes(
    run_mkfs: Mkfs, image: Path, tree: Path, epoch: None, way: str, uuid: str | None
) -> None:
    archive = tarred(tree)
    tarball = image.with_name("tree.tar.gz")
    tarball.write_bytes(gzip.compress(archive))
    source = {"directory": tree, "tarball": tarball, "stdin": "-"}[way]
    images = []
    for _ in range(2):
        words = [] if uuid is None else ["-U", uuid]
        assert run_mkfs(image, "32M", "-d", source, *words, stdin=archive if way == "stdin" else b"").code == 0
        images.append(image.read_bytes())
        image.unlink()
        for name in os.listdir(tree):  # reading must not show: access times move, and the order of a directory is the host's
            os.utime(tree / name, ns=(random.randrange(10**18), os.lstat(tree / name).st_mtime_ns), follow_symlinks=False)
    assert images[0] == images[1]


def test_what_was_in_the_file_before_does_not_show(run_mkfs: Mkfs, image: Path, tree: Path, epoch: None) -> None:
    assert run_mkfs(image, "16M", "-d", tree).code == 0
    first = image.read_bytes()
    image.write_bytes(b"\x5a" * (16 << 20))
    assert run_mkfs(image, "-f", "-d", tree).code == 0
    assert image.read_bytes() == first


def test_content_gives_one_uuid_whichever_way_the_files_come(run_mkfs: Mkfs, image: Path, tree: Path) -> None:
    archive = tarred(tree)
    image.with_name("tree.tar").write_bytes(archive)
    shutil.copytree(tree / "sticky", tree.with_name("other"))
    uuids = [
        run_mkfs(image, size, "-f", "-U", "content", "-d", source, "--json", stdin=archive).document["uuid"]
        for source in (tree, image.with_name("tree.tar"), "-")
        for size in ("16M", "32M")
    ]
    assert len(set(uuids)) == 1
    assert run_mkfs(image, "-f", "-U", "content", "-d", tree.with_name("other"), "--json").document["uuid"] not in uuids
    assert run_mkfs(image, "-f", "-U", "content", "-d", tree, "-L", "label", "--json").document["uuid"] not in uuids


def test_no_time_is_later_than_the_epoch(run_mkfs: Mkfs, image: Path, tree: Path, epoch: None) -> None:
    os.utime(tree / "small", ns=(0, (EPOCH_S + 99) * 10**9))
    assert run_mkfs(image, "16M", "-d", tree, "--json").document["made_at_ns"] == EPOCH_S * 10**9
    found = volume_pictures(image)
    assert found[b"small"].mtime_ns == EPOCH_S * 10**9
    assert found[b"empty"].mtime_ns == -1_500_000_000


def test_an_epoch_that_is_no_number_is_a_usage_error(run_mkfs: Mkfs, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("yesterday", "-1", "1.5", "9" * 30, "9" * 5000):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
        assert run_mkfs(image, "1M").code == 2
    assert not image.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "plain").write_bytes(b"Some text\n" * 1000),
        lambda tree: (tree / "empty").chmod(0o601),
        lambda tree: (tree / "empty").rename(tree / "empty2"),
        lambda tree: os.utime(tree / "empty", ns=(0, 1)),
        lambda tree: os.setxattr(tree / "plain", "user.comment", b"other"),
        lambda tree: (tree / "zz other name").unlink(),
        lambda tree: (tree / "zz other name").rename(tree / "yy other name"),
        lambda tree: (tree / "sticky").chmod(0o777),
        lambda tree: os.truncate(tree / "sparse", (5 << 20) + 1),
        lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("small")),
    ],
)
def test_the_digest_notices_every_change(tree: Path, change: object) -> None:
    def digest() -> bytes:
        return digest_entries(entry for entry in DirectorySource(str(tree)).entries() if entry.path)

    before = digest()
    assert digest() == before
    change(tree)  # type: ignore[operator]
    assert digest() != before


def test_the_digest_does_not_see_order_holes_and_access(tree: Path) -> None:
    entries = list(DirectorySource(str(tree)).entries())
    links = [entry for entry in entries if entry.link_to is not None]
    others = [entry for entry in entries if entry.link_to is None and not entry.size]
    random.Random(1).shuffle(others)
    assert digest_entries([*others, *_first_names(links)]) == digest_entries([*reversed(others), *_first_names(links)])
    copy = tree.with_name("copy")
    copy.mkdir()
    (copy / "sparse").write_bytes((tree / "sparse").read_bytes())
    facts = os.stat(tree / "sparse")
    os.utime(copy / "sparse", ns=(1, facts.st_mtime_ns))
    here = [entry for entry in DirectorySource(str(copy)).entries() if entry.path == b"sparse"]
    there = [entry for entry in entries if entry.path == b"sparse"]
    # The contents are read while the entries come, so each is asked for again.
    assert _digest_of(copy, b"sparse") == _digest_of(tree, b"sparse")
    assert here[0].size == there[0].size


def _first_names(links: list[Entry]) -> list[Entry]:
    firsts = {entry.link_to for entry in links if entry.link_to is not None}
    return [Entry(path=path, mode=0o100644) for path in sorted(firsts)] + links


def _digest_of(tree: Path, path: bytes) -> bytes:
    return digest_entries(entry for entry in DirectorySource(str(tree)).entries() if entry.path == path)


def test_a_link_to_what_never_came_has_no_digest() -> None:
    with pytest.raises(SourceFailed, match="hard link"):
        digest_entries([Entry(path=b"a", mode=0o100644, link_to=b"b")])


def test_times_beyond_what_the_format_holds_are_moved_to_its_edge() -> None:
    far = Entry(path=b"a", mode=0o100644, mtime_ns=1 << 70, atime_ns=-(1 << 70))
    kept = next(clamped([far], None))
    assert (kept.mtime_ns, kept.atime_ns) == ((1 << 63) - 1, -(1 << 63))
    clamped_to = next(clamped([far], 5))
    assert (clamped_to.mtime_ns, clamped_to.atime_ns) == (5, 5)
