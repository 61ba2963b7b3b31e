"""Wrong input gets one clear sentence and the right exit code, whichever command it is given to, and the image stays as it is."""

import fcntl
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from razortools.engine import files, namespace
from razortools.engine.store.device import open_image
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import Superblock
from razortools.service import mountpoints
from razortools.units import KIB, MIB
from tests.acceptance.damage import superblock_places
from tests.images import make_image, open_for_writing
from tests.mount.mounts import MOUNT, UMOUNT, Mounted, run
from tests.workload import opened

NOBODY = 65_534
IMAGE_BYTES = 2 * MIB
CONTENTS = b"what was in the image before\n" * 3000

# Starts a command as somebody without privileges. It has run in vain as root before: wherever Python is installed, that user may
# not be able to read the modules that are only loaded then.
AS_NOBODY = f"""
import contextlib, io, os, sys
import razortools.engine.volume, razortools.service.server
from razortools.{{module}} import main
words, sys.argv = sys.argv, [word.replace("/", "/nowhere/", 1) for word in sys.argv]
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
    main()
sys.argv = words
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
main()
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One of the five, and how it is told to do its usual work on an image."""

    name: str
    module: str
    arguments: Callable[[Path, Path], list[str]]  # of the image and a mount point

    def run(self, image: Path, mount_point: Path) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return run([sys.executable, "-m", f"razortools.{self.module}"], *self.arguments(image, mount_point))

    def run_as_nobody(self, image: Path, mount_point: Path) -> subprocess.CompletedProcess[str]:
        """Run it to its end without privileges, and without the test's own measuring, which has no right to write then."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        command = [sys.executable, "-c", AS_NOBODY.format(module=self.module)]
        return run(command, *self.arguments(image, mount_point), env=plain)


MKFS = Command("mkfs.razorfs", "mkfs", lambda image, mount_point: [str(image)])
MOUNTED = Command("mount.razorfs", "mount", lambda image, mount_point: [str(image), str(mount_point)])
FSCK = Command("razorfsck", "fsck", lambda image, mount_point: ["-n", str(image)])
DEBUG = Command("razorfs-debug", "debugfs", lambda image, mount_point: ["-R", "ls /", str(image)])
DEBUG_WRITING = Command("razorfs-debug", "debugfs", lambda image, mount_point: ["-w", "-R", "ls /", str(image)])
HEALTH = Command("razorfs-health", "health", lambda image, mount_point: [str(image)])


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a directory that everybody may enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="razortools-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for mount_point in (folder / "mnt", folder / "small"):
            if mountpoints.mount_at(str(mount_point)) is not None:
                mountpoints.detach(str(mount_point))
        shutil.rmtree(folder)


@pytest.fixture
def image(place: Path) -> Path:
    """Return a good image with a file in it."""
    path = make_image(place / "image", IMAGE_BYTES)
    with open_for_writing(path) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
        files.write(volume, ino, 0, CONTENTS)
    return path


@pytest.fixture
def mount_point(place: Path) -> Path:
    """Return an empty directory."""
    (place / "mnt").mkdir()
    return place / "mnt"


@pytest.fixture
def root() -> None:
    """Root is needed to become somebody else, or to mount."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else, or mount")


def assert_refused(command: Command, done: subprocess.CompletedProcess[str], exit_code: int, *about: str) -> None:
    """One sentence that names what it is about, the exit code of the contract, and nothing else."""
    lines = done.stderr.splitlines()
    if command is HEALTH and not lines:  # that it cannot know is its result
        lines = done.stdout.splitlines()
    else:
        assert done.stdout == ""
        assert lines[0].startswith(f"{command.name}: ")
    assert len(lines) == 1, lines
    assert done.returncode == exit_code, lines
    assert [word for word in about if word not in lines[0]] == []
    assert "Traceback" not in lines[0]
    assert "a bug in" not in lines[0]


def refuse(command: Command, image: Path, mount_point: Path, exit_code: int, *about: str) -> None:
    """Let *command* refuse *image* and leave it as it is."""
    before = image.read_bytes() if image.is_file() else None
    done = command.run(image, mount_point)
    assert_refused(command, done, exit_code, str(image), *about)
    assert (image.read_bytes() if image.is_file() else None) == before
    assert mountpoints.mount_at(str(mount_point)) is None


def change_superblocks(image: Path, **changes: object) -> None:
    """Write all copies of the superblock anew, with *changes* and good checksums: as another version would have written them."""
    places = superblock_places(image)
    with open(image, "r+b") as file:
        for place in places:
            file.seek(place)
            found = Superblock.decode(file.read(Superblock.skipped_bytes() + Superblock.FIXED_BYTES))
            file.seek(place)
            file.write(replace(found, **changes).encode())  # type: ignore[arg-type]


# What is not there, or is something else


@pytest.mark.parametrize(("command", "exit_code"), [(MKFS, 2), (MOUNTED, 32), (FSCK, 8), (DEBUG, 1), (HEALTH, 3)])
def test_no_such_file(place: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    refuse(command, place / "nothing", mount_point, exit_code)
    refuse(command, place / "nowhere" / "nothing", mount_point, exit_code)
    assert sorted(path.name for path in place.iterdir()) == ["mnt"]


def test_mkfs_with_a_size_where_no_directory_is(place: Path) -> None:
    image = place / "nowhere" / "image"
    done = run([sys.executable, "-m", "razortools.mkfs"], image, "8M")
    assert_refused(MKFS, done, 1, str(image), "No such file or directory")


@pytest.mark.parametrize(("command", "exit_code"), [(MKFS, 1), (MOUNTED, 32), (FSCK, 8), (DEBUG, 1), (HEALTH, 3)])
def test_a_directory_instead_of_an_image(place: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    (place / "folder").mkdir()
    refuse(command, place / "folder", mount_point, exit_code)


@pytest.mark.parametrize(("command", "exit_code"), [(MOUNTED, 32), (FSCK, 8), (DEBUG, 1), (HEALTH, 3)])
def test_not_an_image(place: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    for size in (0, 100, IMAGE_BYTES):
        nonsense = place / f"nonsense of {size}"
        nonsense.write_bytes(random.Random(size).randbytes(size))
        refuse(command, nonsense, mount_point, exit_code, "not a RAZORFS image")


@pytest.mark.parametrize(("command", "exit_code"), [(MKFS, 1), (MOUNTED, 32), (FSCK, 8), (DEBUG, 1), (HEALTH, 2)])
def test_a_truncated_image(image: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    os.truncate(image, IMAGE_BYTES - 300 * KIB)
    refuse(command, image, mount_point, exit_code, "looks like" if command is MKFS else "truncated")


# What is newer than we are


@pytest.mark.parametrize(("command", "exit_code"), [(MKFS, 1), (MOUNTED, 32), (FSCK, 8), (DEBUG, 1), (HEALTH, 3)])
def test_a_newer_version_of_the_format(image: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    change_superblocks(image, version_major=2)
    refuse(command, image, mount_point, exit_code, *(() if command is MKFS else ("version 2", "newer")))


@pytest.mark.parametrize(("command", "exit_code"), [(MKFS, 1), (MOUNTED, 32), (FSCK, 8), (DEBUG, 1), (HEALTH, 3)])
def test_an_unknown_feature(image: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    change_superblocks(image, incompat=1 << 40 | 15)
    refuse(command, image, mount_point, exit_code, *(() if command is MKFS else ("0x10000000000",)))


def test_an_unknown_feature_that_allows_reading_allows_reading(image: Path, mount_point: Path, fuse: None) -> None:
    change_superblocks(image, read_only_compat=1 << 40)
    before = image.read_bytes()
    refuse(MOUNTED, image, mount_point, 32, "newer razortools", "read-only")
    refuse(DEBUG_WRITING, image, mount_point, 1, "newer razortools", "read-only")
    assert DEBUG.run(image, mount_point).returncode == 0
    assert run(MOUNT, image, mount_point, "-o", "ro").returncode == 0
    assert (mount_point / "file").read_bytes() == CONTENTS
    assert run(UMOUNT, mount_point).returncode == 0
    assert image.read_bytes() == before


# What somebody else has


@pytest.mark.parametrize(("command", "exit_code"), [(MKFS, 1), (MOUNTED, 32), (FSCK, 8), (DEBUG_WRITING, 1)])
def test_an_image_in_use(image: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    with open(image, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refuse(command, image, mount_point, exit_code, "in use", str(os.getpid()))


def test_an_image_in_use_can_be_looked_at(image: Path, mount_point: Path) -> None:
    with open(image, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = image.read_bytes()
        looked = DEBUG.run(image, mount_point)
        assert (looked.returncode, "file" in looked.stdout) == (0, True)
        assert f"in use by pid {os.getpid()}" in looked.stderr
        assert HEALTH.run(image, mount_point).returncode == 0
        assert image.read_bytes() == before


@pytest.mark.parametrize(("command", "exit_code"), [(MKFS, 1), (MOUNTED, 1), (FSCK, 8), (DEBUG, 1), (HEALTH, 3)])
def test_no_permission(root: None, image: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    os.chown(mount_point, NOBODY, NOBODY)
    before = image.read_bytes()
    assert stat.S_IMODE(image.stat().st_mode) == 0o600
    done = command.run_as_nobody(image, mount_point)
    assert_refused(command, done, exit_code, str(image), "ermission")
    assert image.read_bytes() == before


def test_permission_to_read_only(root: None, image: Path, mount_point: Path) -> None:
    os.chown(mount_point, NOBODY, NOBODY)
    image.chmod(0o644)
    before = image.read_bytes()
    assert_refused(MOUNTED, MOUNTED.run_as_nobody(image, mount_point), 1, str(image), "no permission to write", "-o ro")
    assert_refused(DEBUG_WRITING, DEBUG_WRITING.run_as_nobody(image, mount_point), 1, str(image), "no permission to write")
    for command in (FSCK, DEBUG, HEALTH):
        assert command.run_as_nobody(image, mount_point).returncode == 0
    assert image.read_bytes() == before


# A host without room


@pytest.fixture
def small_host(root: None, place: Path) -> Path:
    """Return a directory that has room for very little."""
    folder = place / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "none", folder], check=True, timeout=60)
    return folder


@pytest.fixture
def image_on_full_host(small_host: Path) -> Path:
    """Return a sparse image that its host has no room for any more."""
    path = make_image(small_host / "image", 16 * MIB)
    with open_for_writing(path) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
        files.write(volume, ino, 0, CONTENTS)
    fill(small_host)
    return path


def fill(folder: Path) -> None:
    """Take all the room that is left."""
    with open(folder / "filler", "ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4 * KIB))


def test_mkfs_on_a_host_without_room(small_host: Path, place: Path) -> None:
    fill(small_host)
    image = small_host / "image"
    done = run([sys.executable, "-m", "razortools.mkfs"], image, "64M")
    assert_refused(MKFS, done, 1, str(image), "No space left", "free space on the host")
    assert sorted(path.name for path in small_host.iterdir()) == ["filler"]


def test_changing_an_image_on_a_host_without_room(image_on_full_host: Path, mount_point: Path) -> None:
    source = mount_point.parent / "source"  # too large for what the host has allocated for the image already
    source.write_bytes(random.Random(1).randbytes(3 * MIB))
    put = replace(DEBUG, arguments=lambda image, mount_point: ["-w", "-R", f"put {source} /copy", str(image)])
    done = put.run(image_on_full_host, mount_point)
    assert_refused(put, done, 1, str(image_on_full_host), "No space left", "free space on the host")
    assert FSCK.run(image_on_full_host, mount_point).returncode == 0
    (image_on_full_host.parent / "filler").unlink()
    with opened(open_image(image_on_full_host, writable=True)) as volume:
        assert files.read(volume, namespace.resolve(volume, b"/file"), 0, len(CONTENTS) + 1) == CONTENTS
    assert FSCK.run(image_on_full_host, mount_point).returncode == 0


def test_looking_at_an_image_takes_no_room_on_the_host(image_on_full_host: Path, mount_point: Path) -> None:
    before = image_on_full_host.read_bytes()
    for command in (FSCK, DEBUG, HEALTH):
        done = command.run(image_on_full_host, mount_point)
        assert (done.returncode, done.stderr) == (0, ""), command.name
    assert image_on_full_host.read_bytes() == before


def test_a_host_that_runs_full_under_a_mount_is_an_error_and_costs_nothing_that_was_synced(
    small_host: Path, mount_point: Path, fuse: None
) -> None:
    image = make_image(small_host / "image", 16 * MIB)
    log = mount_point.parent / "log"
    assert run(MOUNT, image, mount_point, "-o", f"log={log}").returncode == 0
    with open(mount_point / "synced", "wb", buffering=0) as file:
        file.write(CONTENTS)
        os.fsync(file.fileno())
    fill(small_host)
    with pytest.raises(OSError), open(mount_point / "too much", "wb", buffering=0) as file:
        file.write(random.Random(1).randbytes(2 * MIB))
        os.fsync(file.fileno())
    assert (mount_point / "synced").read_bytes() == CONTENTS
    assert run(UMOUNT, mount_point).returncode != 0, "what was not synced is lost, and that is told"
    assert "Traceback" not in log.read_text()
    (small_host / "filler").unlink()
    assert FSCK.run(image, mount_point).returncode == 0
    assert run(MOUNT, image, mount_point, "-o", f"log={log}").returncode == 0
    assert (mount_point / "synced").read_bytes() == CONTENTS
    (mount_point / "after").write_bytes(CONTENTS)
    assert run(UMOUNT, mount_point).returncode == 0


# Where it cannot be mounted


def test_a_mount_point_that_is_missing_or_no_directory(image: Path, place: Path) -> None:
    before = image.read_bytes()
    for mount_point, about in ((place / "nothing", "does not exist"), (image, "not a directory")):
        assert_refused(MOUNTED, MOUNTED.run(image, mount_point), 32, str(mount_point), about)
    assert image.read_bytes() == before
    assert not (place / "nothing").exists()


def test_a_mount_point_that_is_not_empty(image: Path, mount_point: Path) -> None:
    (mount_point / "something").write_text("to keep")
    before = image.read_bytes()
    assert_refused(MOUNTED, MOUNTED.run(image, mount_point), 32, str(mount_point), "not empty")
    assert image.read_bytes() == before
    assert (mount_point / "something").read_text() == "to keep"


def test_a_mount_point_that_is_taken(mounted: Mounted, image: Path) -> None:
    (mounted.path / "file").write_text("mounted already")
    before = image.read_bytes()
    assert_refused(MOUNTED, MOUNTED.run(image, mounted.path), 32, str(mounted.path))
    assert image.read_bytes() == before
    assert (mounted.path / "file").read_text() == "mounted already"


def test_unmounting_what_is_not_mounted(mount_point: Path) -> None:
    done = run(UMOUNT, mount_point)
    assert (done.returncode, done.stdout) == (32, "")
    assert done.stderr == f"umount.razorfs: {mount_point}: is not mounted\n"


def test_a_machine_without_fuse(root: None, image: Path, mount_point: Path) -> None:
    without_dev = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh"]
    before = image.read_bytes()
    done = run([*without_dev, *MOUNT], image, mount_point)
    assert_refused(MOUNTED, done, 2, "FUSE is not available", "/dev/fuse")
    assert image.read_bytes() == before


def test_a_machine_without_the_library_for_fuse(image: Path, mount_point: Path, fuse: None) -> None:
    without_library = "import sys; sys.modules['pyfuse3'] = None; from razortools.mount import main; main()"
    before = image.read_bytes()
    done = run([sys.executable, "-c", without_library], image, mount_point)
    assert_refused(MOUNTED, done, 2, "FUSE is not available", "pyfuse3")
    assert image.read_bytes() == before


# A command line that makes no sense


@pytest.mark.parametrize(("command", "exit_code"), [(MKFS, 2), (MOUNTED, 1), (FSCK, 16), (DEBUG, 2), (HEALTH, 3)])
def test_an_unknown_option(image: Path, mount_point: Path, command: Command, exit_code: int) -> None:
    before = image.read_bytes()
    wrong = replace(command, arguments=lambda image, mount_point: ["--no-such-option", *command.arguments(image, mount_point)])
    assert_refused(wrong, wrong.run(image, mount_point), exit_code, "--no-such-option")
    assert image.read_bytes() == before
