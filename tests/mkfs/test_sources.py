"""The parts that read sources: chunks, times, attributes, deep directories."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine.populate.directory import DirectorySource
from razortools.engine.populate.entry import CHUNK_BYTES, SourceFailed, data_chunks, show_path, split_path
from razortools.engine.populate.pax import pax_time_ns, pax_xattrs
from razortools.engine.populate.tar import TarSource
from tests.mkfs.conftest import Mkfs, Pipe
from tests.mkfs.test_populate import member, tar_of
from tests.mkfs.trees import host_pictures, volume_pictures

PIECE = CHUNK_BYTES // 4


@st.composite
def sparse_files(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int]]]:
    """Contents, and ranges that contain everything in them but zeros."""
    marks = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(0, PIECE - 1)), max_size=8))
    size = draw(st.integers(1, 21 * PIECE))
    data = bytearray(size)
    for piece, offset in marks:
        if piece * PIECE + offset < size:
            data[piece * PIECE + offset] = 1
    extra = draw(st.sets(st.integers(0, 20)))
    pieces = sorted(extra | {piece for piece, _ in marks})
    return bytes(data), [(piece * PIECE, PIECE) for piece in pieces if piece * PIECE < size]


@given(sparse_files())
def test_chunks_hold_everything_but_zeros_wherever_the_holes_are(file: tuple[bytes, list[tuple[int, int]]]) -> None:
    data, ranges = file

    def read_at(offset: int, size: int) -> bytes:
        assert 0 < size <= CHUNK_BYTES and offset + size <= len(data)
        return data[offset : offset + size]

    chunks = list(data_chunks(len(data), ranges, read_at))
    assert chunks == list(data_chunks(len(data), [(0, len(data))], read_at))
    made = bytearray(len(data))
    for offset, chunk in chunks:
        assert offset % CHUNK_BYTES == 0
        made[offset : offset + len(chunk)] = chunk
        assert any(chunk)
    assert bytes(made) == data


@given(st.integers(-(1 << 62), 1 << 62))
def test_times_are_exact_to_the_nanosecond(time_ns: int) -> None:
    seconds, fraction = divmod(abs(time_ns), 10**9)
    assert pax_time_ns(f"{'-' if time_ns < 0 else ''}{seconds}.{fraction:09}") == time_ns


@pytest.mark.parametrize(("text", "time_ns"), [("1", 10**9), ("1.5", 15 * 10**8), ("0.0000000019", 1), ("7.", 7 * 10**9)])
def test_times_may_have_fewer_or_more_digits(text: str, time_ns: int) -> None:
    assert pax_time_ns(text) == time_ns


@pytest.mark.parametrize("text", ["", "now", "1e9", "1.2.3", " 1", "0x10"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        pax_time_ns(text)


NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name)


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=4))
def test_attributes_come_out_of_a_tar_as_they_went_in(pairs: dict[bytes, bytes]) -> None:
    headers = {}
    for name, value in pairs.items():
        escaped = name.replace(b"%", b"%25").replace(b"=", b"%3D")
        headers["SCHILY.xattr.user." + escaped.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    assert pax_xattrs(headers) == tuple(sorted((b"user." + name, value) for name, value in pairs.items()))


def test_headers_of_other_things_are_no_attributes() -> None:
    assert pax_xattrs({"mtime": "1", "comment": "SCHILY.xattr.x", "GNU.sparse.major": "1"}) == ()


@given(data=st.data())
def test_a_damaged_archive_is_refused_or_read_and_never_anything_else(data: st.DataObject) -> None:
    archive = bytearray(tar_of((member("d", tarfile.DIRTYPE), b""), (member("d/ü" * 60), b"contents"), (member("x"), b"y" * 700)))
    for _ in range(data.draw(st.integers(1, 3))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        for entry in TarSource(io.BytesIO(bytes(archive)), "archive").entries():
            for _ in entry.chunks():
                pass
    except SourceFailed as refused:
        assert str(refused).startswith("archive: ")


def test_a_file_can_be_read_twice_and_a_stream_once() -> None:
    archive = tar_of((member("a"), b"contents"))
    source = TarSource(io.BytesIO(b"before" + archive), "archive")
    with pytest.raises(SourceFailed):
        list(source.entries())
    file = io.BytesIO(b"before" + archive)
    file.seek(6)
    source = TarSource(file, "archive")
    assert [entry.path for entry in source.entries()] == [entry.path for entry in source.entries()] == [b"a"]
    stream = TarSource(Pipe(archive), "stream")
    assert [entry.path for entry in stream.entries()] == [b"a"]
    with pytest.raises(AssertionError):
        stream.entries()


@pytest.mark.parametrize("name", ["]", "]]", "(", "BZh", "\x1f\x8b"])
def test_a_name_that_looks_like_compressed_data_is_a_name(name: str) -> None:
    assert [entry.path for entry in TarSource(io.BytesIO(tar_of((member(name), b"x"))), "tar").entries()] == [name.encode()]


def test_directories_may_be_deeper_than_a_path_may_be_long(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("x" * 200, dir_fd=here)
        below = os.open("x" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here))
    os.close(here)
    assert run_mkfs(image, "4M", "-d", root).code == 0
    deepest = max(volume_pictures(image), key=len)
    assert deepest == b"/".join([b"x" * 200] * 60) + b"/bottom"


def test_hundreds_of_levels_need_no_recursion(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / Path(*["d"] * 600)).mkdir(parents=True)
    assert run_mkfs(image, "8M", "-d", tmp_path / "deep").code == 0
    assert volume_pictures(image).keys() == host_pictures(tmp_path / "deep").keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.truncate(path, 10),
        lambda path: os.truncate(path, 10_000),
    ],
)
def test_a_file_that_changes_while_it_is_read_keeps_its_first_size(tmp_path: Path, change: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    for entry in DirectorySource(str(tmp_path)).entries():
        if entry.path == b"file":
            change(tmp_path / "file")
            contents = b"".join(data for _, data in entry.chunks())
            assert len(contents) == entry.size == 5000
            assert contents[:10] == b"x" * 10


def test_a_file_that_goes_while_the_directory_is_read_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    entries = DirectorySource(str(tmp_path)).entries()
    assert next(entries).path == b""
    (tmp_path / "a").unlink()
    with pytest.raises(SourceFailed, match="/a: cannot be read: No such file"):
        next(entries)


def test_paths_are_split_and_shown() -> None:
    assert split_path(b"a/b/c") == (b"a/b", b"c")
    assert split_path(b"a") == (b"", b"a")
    assert show_path(b"") == "/"
    assert show_path(b"a\xff") == "a\\xff"
