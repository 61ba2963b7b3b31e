"""When making fails: one clear sentence, exit code 1, and nothing half-made left."""

import errno
import gzip
import io
import os
import resource
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from razortools.engine.make import target as make_target
from razortools.engine.make.held_device import HeldDevice
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.errors import DeviceFailed
from razortools.format.geometry import plan_geometry
from razortools.units import MIB
from tests.mkfs.conftest import Mkfs
from tests.mkfs.test_populate import member, tar_of
from tests.mkfs.trees import make_tree, tarred

LIST_OF_NOBODY = "user::rw-\nuser:nobody we know:rw-\ngroup::r--\nmask::rw-\nother::---\n"
LIST_OF_4711 = LIST_OF_NOBODY.replace("nobody we know", "4711")


def fails(run: object, *, about: str) -> None:
    """Check that a run failed with one sentence about this."""
    assert run.code == 1, run  # type: ignore[attr-defined]
    assert run.out == ""  # type: ignore[attr-defined]
    assert about in run.err  # type: ignore[attr-defined]
    assert run.err.count("\n") == 1  # type: ignore[attr-defined]
    assert "internal error" not in run.err  # type: ignore[attr-defined]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A directory that does not fit into 2 MiB."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(os.urandom(3 * MIB))
    return tmp_path / "large"


def test_a_tree_that_is_too_big_leaves_no_file(run_mkfs: Mkfs, image: Path, large: Path) -> None:
    fails(run_mkfs(image, "2M", "-d", large), about="does not fit")
    assert not image.exists()


def test_too_many_files_leave_no_file(run_mkfs: Mkfs, image: Path) -> None:
    names = [f"{number % 10}/a rather long name that takes room {number}" for number in range(4000)]
    archive = tar_of(*((member(name), b"x" * 300) for name in names))
    fails(run_mkfs(image, "1M", "-d", "-", stdin=archive), about="does not fit")
    assert not image.exists()


def test_an_existing_file_keeps_its_length_and_becomes_no_image(run_mkfs: Mkfs, image: Path, large: Path) -> None:
    for before in (bytes(2 * MIB), b"", bytes(100)):
        image.write_bytes(before)
        fails(run_mkfs(image, "2M", "-d", large), about="does not fit")
        assert image.read_bytes()[:8] != b"RAZORFS\x01"
        assert image.stat().st_size == len(before)
        assert run_mkfs(image, "2M").code == 0  # it still looks like nothing: no --force needed
        image.unlink()


def test_an_unreadable_source_is_found_before_anything_is_written(run_mkfs: Mkfs, image: Path) -> None:
    image.write_bytes(b"\xaa" * (2 * MIB))
    fails(run_mkfs(image, "-d", "/no/such/place"), about="/no/such/place")
    assert image.read_bytes() == b"\xaa" * (2 * MIB)


def test_a_place_that_cannot_be_written_is_told(run_mkfs: Mkfs, tmp_path: Path) -> None:
    fails(run_mkfs(tmp_path / "no" / "such" / "directory" / "img", "1M"), about="cannot be created")
    (tmp_path / "file").touch()
    fails(run_mkfs(tmp_path / "file" / "img", "1M"), about=str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("archive", "about"),
    [
        (b"this is no archive at all" * 100, "not a tar"),
        (b"short", "not a tar"),
        (b"", "empty"),
        (gzip.compress(b"neither is this" * 100), "not a tar"),
        (gzip.compress(tar_of((member("file"), b"contents" * 1000)))[:-20], "damaged or cut off"),
        (gzip.compress(tar_of((member("file"), b"contents" * 1000)))[:-8] + bytes(8), "damaged"),
        (tar_of((member("file"), b"contents" * 1000))[:4000], "cut off"),
        (tar_of((member("a"), b""), (member("b"), b""))[:700], "damaged"),
        (tar_of((member("a"), b""))[:512] + b"\x01" * 512, "damaged"),
        (tar_of((member("../outside"), b"")), "leads out of the tree"),
        (tar_of((member("n" * 256), b"")), "too long"),
        (tar_of((member("a", b"1", linkname="missing"), b"")), "does not come before it"),
        (tar_of((member("a"), b""), (member("a/b"), b"")), "not a directory"),
        (tar_of((member("d/f"), b""), (member("d"), b"")), "d cannot be kept"),
        (tar_of((member("a", uid=1 << 33), b"")), "belongs to"),
        (tar_of((member("a", b"2", linkname="x" * 5000), b"")), "a cannot be kept"),
        (tar_of((member("a", pax_headers={"SCHILY.xattr.nonsense": "x"}), b"")), "a cannot be kept"),
        (tar_of((member("a", pax_headers={"LIBARCHIVE.xattr.user.x": "*"}), b"")), "base64"),
        (tar_of((member("a", pax_headers={"SCHILY.acl.access": "user::rwx,other::---"}), b"")), "one entry each for owner"),
        (tar_of((member("a", pax_headers={"SCHILY.acl.access": "nonsense"}), b"")), "'nonsense' cannot be in an access control"),
        (tar_of((member("a", pax_headers={"SCHILY.acl.access": LIST_OF_NOBODY}), b"")), "no user 'nobody we know' here"),
        (tar_of((member("a", pax_headers={"SCHILY.acl.default": LIST_OF_4711}), b"")), "only a directory has a default"),
        (tar_of((member("a", pax_headers={"SCHILY.acl.ace": "owner@:rw::allow"}), b"")), "NFSv4"),
        (b"\x28\xb5\x2f\xfd" + bytes(1000), "zstd -dc"),
        (tar_of((member("."), b"contents")), "it would be the root"),
        (tar_of((member("./"), b"contents")), "it would be the root"),
        (tar_of((member("/", tarfile.SYMTYPE, linkname="a"), b"")), "it would be the root"),
        (tar_of((member("a"), b"1"), (member(".", tarfile.LNKTYPE, linkname="a"), b"")), "it would be the root"),
        (tar_of((member("a"), b""))[:512], "cut off"),
        (gzip.compress(tar_of((member("a"), b""))[:512]), "cut off"),
        (bytes(1024) + b"\x53\xef" * 512 + bytes(1 << 21), "not a tar archive"),  # the head of an ext4 image
        (bytes(100), "not a tar"),
        (tar_of((member("a"), b"1")) + tar_of((member("b"), b"2")), "more follows behind its end"),
        (tar_of((member("a"), b"")) + bytes(2 << 20) + b"x", "more follows behind its end"),
    ],
)
def test_a_bad_archive_is_told_and_leaves_nothing(run_mkfs: Mkfs, image: Path, archive: bytes, about: str) -> None:
    fails(run_mkfs(image, "2M", "-d", "-", stdin=archive), about=about)
    assert not image.exists()


def test_every_cut_of_an_archive_is_noticed(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    archive = tarred(make_tree(tmp_path / "tree"))
    content_end = len(archive.rstrip(b"\0")) // 512 * 512
    for cut in range(1, content_end, content_end // 37):
        fails(run_mkfs(image, "16M", "-d", "-", stdin=archive[:cut]), about="standard input: ")
        assert not image.exists()


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_that_is_cut_off_between_two_members_is_not_whole(
    run_mkfs: Mkfs, image: Path, tmp_path: Path, tar_format: int
) -> None:
    names = [f"file {number}" for number in range(20)]
    archive = tar_of(*((member(name), name.encode() * 100) for name in names), tar_format=tar_format)
    tarball = tmp_path / "cut.tar"
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        starts = [found.offset for found in opened]
    end = starts[-1] + starts[1]
    for cut in (*starts[1:], end):
        tarball.write_bytes(archive[:cut])
        fails(run_mkfs(image, "4M", "-d", tarball), about="cut off: the mark at the end of the archive is missing")
        assert not image.exists()
    for blocks in (1, 2, 3):  # behind the first zeros nothing can be missing
        tarball.write_bytes(archive[: end + 512 * blocks])
        assert run_mkfs(image, "4M", "-d", tarball).code == 0
        image.unlink()


def test_a_file_that_may_not_be_read_is_named(
    run_mkfs: Mkfs, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "secret").write_bytes(b"x")
    really_open = os.open

    def refuse(path: str | bytes, *arguments: int, **options: int | None) -> int:
        if path == b"secret":  # even root is refused here, so that the test says the same to everybody
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return really_open(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    fails(run_mkfs(image, "2M", "-d", tmp_path / "tree"), about="tree/secret: cannot be read: Permission denied")
    assert not image.exists()


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The host refuses files above 8 MiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * MIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_size_that_the_host_refuses_is_told(run_mkfs: Mkfs, image: Path, small_files_only: None) -> None:
    fails(run_mkfs(image, "64M"), about="the host refuses")
    assert not image.exists()
    image.write_bytes(b"old")
    fails(run_mkfs(image, "64M"), about="the host refuses")
    assert image.stat().st_size == 3


def test_a_full_host_is_told_and_the_file_removed(
    run_mkfs: Mkfs, image: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.pwrite

    def fill_up(descriptor: int, data: bytes, offset: int) -> int:
        if offset > 1 * MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really_write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fill_up)
    fails(run_mkfs(image, "64M", "-d", large), about="No space left on device; free space on the host")
    assert not image.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_what_was_half_made(image: Path, number: signal.Signals) -> None:
    # A pipe that stays open holds the command in the middle of its work for as long as the test wants.
    command = [sys.executable, "-m", "razortools.mkfs", str(image), "16M", "-v", "-d", "-"]
    archive = tar_of((member("first"), b"contents"), (member("second"), b"contents" * 200_000))

    def heed_signal() -> None:
        # A suite that runs in the background or under nohup inherits ignored signals; mkfs is right to leave those ignored.
        signal.signal(number, signal.SIG_DFL)

    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, preexec_fn=heed_signal) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(archive[: 1 << 20] + archive[1 << 20 : (1 << 20) + 5000])
        process.stdin.flush()
        assert process.stderr.readline() == b"first\n"
        assert image.exists()
        process.send_signal(number)
        assert process.wait(timeout=60) == 1
        assert b"interrupted" in process.stderr.read()
    assert not image.exists()


class FailingDevice(MemoryDevice):
    """Refuses to write after a while."""

    def __init__(self, size_bytes: int, writes: int) -> None:
        super().__init__(size_bytes)
        self.writes_left = writes

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise DeviceFailed("memory: write failed: Input/output error")
        super().write(offset, data)


@pytest.mark.parametrize("writes", [0, 1, 2, 5, 8, 10])
def test_whenever_the_device_fails_there_is_no_filesystem(
    run_mkfs: Mkfs, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    device = FailingDevice(4 * MIB, writes)
    device.close = lambda: None  # type: ignore[method-assign]

    def create(path: str, size_bytes: int) -> Device:
        Path(path).touch()
        return device

    monkeypatch.setattr(make_target, "create_image", create)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(os.urandom(100_000))
    run = run_mkfs(image, "4M", "-d", tmp_path / "tree")
    assert run.code == (1 if device.writes_left < 0 else 0)
    assert image.exists() == (run.code == 0)
    if device.writes_left < 0 and writes < 6:
        assert device.read(0, 8) == device.read(4096, 8) == bytes(8)


def test_held_superblocks_are_read_back_and_come_last() -> None:
    base = Recorder(4 * MIB)
    geometry = plan_geometry(4 * MIB, 4096)
    held = HeldDevice(base, geometry)
    held.write(0, b"slot")
    held.write(100, b"more")
    held.write(geometry.backups[0] * 4096, b"backup")
    held.write(500 * 4096, b"node")
    held.write(geometry.journal_start * 4096, b"wiped")
    held.drop_journal()
    held.write(geometry.journal_start * 4096 + 5, b"dropped")
    held.flush()
    assert base.log == [500 * 4096, geometry.journal_start * 4096]
    assert held.read(0, 104) == b"slot" + bytes(96) + b"more"
    assert held.read(98, 3) == b"\0\0m"
    assert base.read(0, 4) == bytes(4)
    held.release()
    assert base.log[2:] == ["flush", geometry.backups[0] * 4096, 0, "flush"]
    assert base.read(0, 4) == b"slot"
    held.close()
    assert not base.is_closed


class Recorder(MemoryDevice):
    """Notes what happens to it."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.log: list[object] = []
        self.is_closed = False

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.log.append(offset)
        super().write(offset, data)

    def flush(self) -> None:
        self.log.append("flush")

    def close(self) -> None:
        self.is_closed = True
