"""Programs that people use every day do their work on a mount, and what they have made is still right after a remount."""

import ctypes
import fcntl
import mmap
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from razortools.units import MIB
from tests.mount.mounts import ANSWER_S, FSCK, Mounted, run
from tests.mount.sidebyside import ACCESS, DEFAULT, LISTS, LONG_AGO_NS, tried
from tests.mount.test_trees import look, plant

pytestmark = [pytest.mark.mount, pytest.mark.slow]

IMAGE_BYTES = 512 * MIB
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def disk(fuse: None, tmp_path: Path) -> Iterator[Mounted]:
    """A mounted image of the test's own, with room for programs; razorfsck must find nothing when they are done."""
    made = Mounted(tmp_path, IMAGE_BYTES)
    try:
        yield made.mount("commit=0.5", "checkpoint=1")
        made.umount()
        done = run(FSCK, "-n", made.image)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        made.take_away()
    assert made.complaints == []


def do(*words: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """Run a program that must succeed and return what it said."""
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=2 * ANSWER_S
    )
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


# git


def git(repository: Path, *words: str | Path) -> str:
    """Run git without any configuration of this machine."""
    person = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always")
    return do("git", *person, *words, cwd=repository, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null")


def test_git_keeps_a_repository(disk: Mounted, tmp_path: Path) -> None:
    work = disk.path / "work"
    shutil.copytree(PROJECT / "razortools", work / "razortools", ignore=shutil.ignore_patterns("__pycache__"))
    git(work, "init", "--quiet", "--initial-branch=main")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "first")
    source = random.Random(1)
    files = sorted(work.rglob("*.py"))
    for number in range(10):
        for path in source.sample(files, 5):
            path.write_text(f"{path.read_text()}# {number}\n")
        git(work, "commit", "--quiet", "-a", "-m", f"change {number}")
    git(work, "checkout", "--quiet", "-b", "other", "HEAD~5")
    git(work, "mv", "razortools/units.py", "razortools/measures.py")
    git(work, "commit", "--quiet", "-m", "moved")
    git(work, "merge", "--quiet", "-m", "merged", "main")
    git(disk.path, "clone", "--quiet", "work", "local")  # hard links
    git(disk.path, "clone", "--quiet", f"file://{work}", "packed")
    git(work, "gc", "--quiet", "--aggressive", "--prune=now")
    disk.remount()
    git(tmp_path, "clone", "--quiet", work, "outside")
    for clone in (work, disk.path / "local", disk.path / "packed", tmp_path / "outside"):
        git(clone, "fsck", "--full", "--strict")
        assert git(clone, "status", "--porcelain") == ""
        assert git(clone, "rev-list", "--count", "HEAD").strip() == "13"
        assert not (clone / "razortools/units.py").exists()


# sqlite

COUNTING = """
    import sqlite3, sys
    path, number = sys.argv[1:]
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    for step in range(40):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE counts SET value = value + 1 WHERE name = 'all'")
        connection.execute("INSERT INTO steps VALUES (?, ?, ?)", (number, step, bytes(step * 50)))
        connection.execute("ROLLBACK" if step % 5 == 4 else "COMMIT")
    connection.close()
"""


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_sqlite_counts_right_for_three_processes_at_once(disk: Mounted, mode: str) -> None:
    path = disk.path / "base"
    with sqlite3.connect(path) as connection:
        assert connection.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
        connection.execute("CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER)")
        connection.execute("CREATE TABLE steps (number INTEGER, step INTEGER, load BLOB, PRIMARY KEY (number, step))")
        connection.execute("INSERT INTO counts VALUES ('all', 0)")
    reader = sqlite3.connect(path, timeout=60, isolation_level=None)
    words = [sys.executable, "-c", textwrap.dedent(COUNTING), str(path)]
    writers = [subprocess.Popen([*words, str(number)]) for number in range(3)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        value, steps = reader.execute("SELECT value, (SELECT count(*) FROM steps) FROM counts").fetchone()
        assert value == steps >= seen  # never half of a transaction, never back
        seen = steps
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    reader.close()
    connection.close()
    disk.remount()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT value FROM counts").fetchone() == (3 * 32,)
        assert connection.execute("SELECT count(*) FROM steps").fetchone() == (3 * 32,)
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


# Copying trees


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every kind of thing, access control lists too."""
    root = tmp_path / "tree"
    root.mkdir()
    plant(root, seed=11)
    for number, path in enumerate(sorted(root.glob("f*"))[:4] + sorted(root.glob("d*"))[:4]):
        os.setxattr(path, ACCESS, LISTS[2 + number % 3])
        if path.is_dir():
            os.setxattr(path, DEFAULT, LISTS[2 + number % 4])
    for path in root.iterdir():
        if not stat.S_ISREG(path.lstat().st_mode):  # rsync does not set the time of a pipe or link that is as old as its copy
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)
    return root


def with_tar(source: Path, target: Path) -> None:
    options = "--sparse --acls --xattrs --xattrs-include='*' --numeric-owner --format=posix"
    do("bash", "-o", "pipefail", "-c", f"tar -C '{source}' {options} -c . | tar -C '{target}' {options} -xp")


def with_rsync(source: Path, target: Path) -> None:
    do("rsync", "-aHAXS", "--numeric-ids", "--devices", "--specials", f"{source}/", f"{target}/")


@pytest.mark.parametrize("copy", [with_tar, with_rsync])
def test_a_tree_with_lists_goes_in_and_comes_out(
    disk: Mounted, tree: Path, tmp_path: Path, copy: Callable[[Path, Path], None]
) -> None:
    inside, outside = disk.path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    copy(tree, inside)
    assert look(inside) == look(tree)
    disk.remount()
    copy(inside, outside)
    assert look(outside) == look(tree)
    differences = ("rsync", "-aHAX", "--numeric-ids", "--checksum", "--dry-run", "--delete", "--itemize-changes")
    assert do(*differences, f"{tree}/", f"{inside}/") == ""
    assert do(*differences, f"{inside}/", f"{tree}/") == ""


def test_rsync_brings_a_tree_up_to_date(disk: Mounted, tree: Path) -> None:
    inside = disk.path / "in"
    with_rsync(tree, inside)
    for path in sorted(tree.glob("f*"))[:3]:
        path.write_bytes(b"other contents")
    shutil.rmtree(tree / "d0")
    (tree / "linked").rename(tree / "moved")
    os.setxattr(tree / "moved", "user.comment", b"said anew")
    do("rsync", "-aHAX", "--numeric-ids", "--delete", f"{tree}/", f"{inside}/")
    disk.remount()
    assert look(inside) == look(tree)


@pytest.mark.parametrize("options", ["--sparse=always", "--sparse=never", "--reflink=auto"])
def test_cp_copies_files_with_holes(disk: Mounted, options: str) -> None:
    original, copied = disk.path / "original", disk.path / "copied"
    noise = random.Random(2).randbytes(3 * MIB)
    with open(original, "wb") as file:
        file.write(noise)
        file.seek(40 * MIB)
        file.write(noise)
        file.truncate(60 * MIB)
    do("cp", options, original, copied)
    do("dd", f"if={original}", f"of={disk.path / 'by dd'}", "bs=1M", "conv=sparse,fsync", "status=none")
    disk.remount()
    do("cmp", original, copied)
    do("cmp", original, disk.path / "by dd")
    assert copied.stat().st_blocks * 512 < 7 * MIB  # zeros take no room, however they were written
    assert (disk.path / "by dd").stat().st_blocks * 512 < 7 * MIB


@pytest.mark.parametrize("flags", [("oflag=direct",), ("oflag=append", "conv=notrunc"), ("oflag=dsync",), ("iflag=direct",)])
def test_dd_writes_in_every_mode(disk: Mounted, flags: tuple[str, ...]) -> None:
    source, target = disk.path / "source", disk.path / "target"
    source.write_bytes(random.Random(3).randbytes(2 * MIB))
    do("dd", f"if={source}", f"of={target}", "bs=64K", "status=none", *flags)
    disk.remount()
    assert target.read_bytes() == source.read_bytes()


# Python


def a_wheel(folder: Path, module_count: int) -> Path:
    """Return a wheel made here, so that no index is needed."""
    path = folder / "countless-1.0-py3-none-any.whl"
    files = {f"countless/m{number}.py": f"value = {number}\n" for number in range(module_count)}
    files["countless/__init__.py"] = ""
    adding = f"sum(importlib.import_module(f'countless.m{{n}}').value for n in range({module_count}))"
    files["countless/__main__.py"] = f"import importlib\nprint({adding})\n"
    info = "countless-1.0.dist-info"
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: countless\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = "[console_scripts]\ncountless = countless.m0:value.__index__\n"
    names = [*files, f"{info}/RECORD"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in names))
    return path


def test_pip_installs_into_an_environment_on_the_mount(disk: Mounted, tmp_path: Path) -> None:
    wheel = a_wheel(tmp_path, 100)
    do(sys.executable, "-m", "venv", disk.path / "venv")  # installs pip there
    python = disk.path / "venv" / "bin" / "python"
    do(python, "-m", "pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check", wheel)
    disk.remount()
    assert do(python, "-m", "countless") == f"{sum(range(100))}\n"
    assert "countless 1.0" in do(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check").replace("==", " ")
    assert do(disk.path / "venv" / "bin" / "countless") == ""
    do(python, "-m", "pip", "uninstall", "--yes", "countless")
    assert not list((disk.path / "venv").rglob("countless*"))


def test_python_replaces_maps_copies_and_takes_temporary_files(disk: Mounted) -> None:
    shutil.copytree(PROJECT / "razortools", disk.path / "one")
    shutil.copytree(disk.path / "one", disk.path / "two", symlinks=True)
    assert look(disk.path / "one") == look(disk.path / "two")
    assert shutil.disk_usage(disk.path).total < IMAGE_BYTES
    with tempfile.TemporaryDirectory(dir=disk.path) as folder, tempfile.TemporaryFile(dir=folder) as nameless:
        nameless.write(b"somewhere")
        nameless.seek(0)
        assert nameless.read() == b"somewhere"
        with tempfile.NamedTemporaryFile(dir=folder) as named:
            assert Path(named.name).stat().st_mode & 0o777 == 0o600
    state = disk.path / "state"
    for number in range(200):  # how programs keep a file that is always whole
        with open(disk.path / "state.new", "w", encoding="ascii") as file:
            file.write(f"{number}\n" * 1000)
            file.flush()
            os.fsync(file.fileno())
        os.replace(disk.path / "state.new", state)
        assert state.read_text() == f"{number}\n" * 1000
    with open(disk.path / "mapped", "w+b") as file:
        file.truncate(5 * MIB)
        with mmap.mmap(file.fileno(), 5 * MIB) as shared:
            for offset in range(0, 5 * MIB, 4099):
                shared[offset : offset + 4] = offset.to_bytes(4, "little")
    shutil.rmtree(disk.path / "two")
    disk.remount()
    mapped = (disk.path / "mapped").read_bytes()
    assert all(mapped[offset : offset + 4] == offset.to_bytes(4, "little") for offset in range(0, 5 * MIB - 4, 4099))
    assert sorted(os.listdir(disk.path)) == ["mapped", "one", "state"]


# A compiler

MAKEFILE = """
objects := $(patsubst %.c,%.o,$(wildcard *.c))
program: $(objects)
\t$(CC) -o $@ $^
%.o: %.c
\t$(CC) -O1 -MMD -c -o $@ $<
-include $(objects:.o=.d)
"""
PART_COUNT = 20


def plant_program(folder: Path) -> None:
    """Write a program of some twenty sources and headers whose parts call one another."""
    folder.mkdir()
    for number in range(PART_COUNT):
        (folder / f"part{number}.h").write_text(f"int part{number}(int);\n")
        then = f"part{number + 1}(x + {number})" if number + 1 < PART_COUNT else "x"
        includes = "".join(f'#include "part{other}.h"\n' for other in (number, min(number + 1, PART_COUNT - 1)))
        (folder / f"part{number}.c").write_text(f"{includes}int part{number}(int x) {{ return {then}; }}\n")
    main = 'int main(void) { printf("%d\\n", part0(0)); return 0; }'
    (folder / "main.c").write_text(f'#include <stdio.h>\n#include "part0.h"\n{main}\n')
    (folder / "Makefile").write_text(MAKEFILE)


def test_make_builds_a_program_and_builds_again_only_what_changed(disk: Mounted) -> None:
    folder = disk.path / "program"
    plant_program(folder)
    do("make", "-j2", cwd=folder)
    assert do(folder / "program") == f"{sum(range(PART_COUNT - 1))}\n"
    assert "up to date" in do("make", cwd=folder)
    disk.remount()
    assert "up to date" in do("make", cwd=folder)  # times are kept to the nanosecond
    (folder / "part7.h").write_text("int part7(int);  /* changed */\n")
    built = do("make", cwd=folder)
    assert sorted(line.split()[-1] for line in built.splitlines() if " -c " in line) == ["part6.c", "part7.c"]
    assert do(folder / "program") == f"{sum(range(PART_COUNT - 1))}\n"


# What the kernel does for a mount

HOLDING = """
    import fcntl, os, sys
    descriptor = os.open(sys.argv[1], os.O_RDWR)
    getattr(fcntl, sys.argv[2])(descriptor, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_locks_count_between_processes_and_end_with_them(disk: Mounted, call: str) -> None:
    path = disk.path / "file"
    path.touch()
    lock = getattr(fcntl, call)
    words = [sys.executable, "-c", textwrap.dedent(HOLDING), str(path), call]
    with open(path, "r+b") as file, subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert tried(lock, file, fcntl.LOCK_EX | fcntl.LOCK_NB) == "EAGAIN"
        other.stdin.close()
        assert other.wait(ANSWER_S) == 0
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


INOTIFY = {0x100: "create", 0x2: "modify", 0x8: "close", 0x40: "moved from", 0x80: "moved to", 0x200: "delete", 0x4: "attributes"}


def test_inotify_tells_what_happens_in_a_directory(disk: Mounted) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(descriptor, os.fsencode(disk.path), sum(INOTIFY)) >= 0, os.strerror(ctypes.get_errno())
    try:
        (disk.path / "one").write_bytes(b"contents")
        os.chmod(disk.path / "one", 0o600)
        os.rename(disk.path / "one", disk.path / "two")
        os.unlink(disk.path / "two")
        told, at = os.read(descriptor, 4096), 0
    finally:
        os.close(descriptor)
    events = []
    while at < len(told):
        mask, length = int.from_bytes(told[at + 4 : at + 8], "little"), int.from_bytes(told[at + 12 : at + 16], "little")
        events.append((INOTIFY[mask & sum(INOTIFY)], told[at + 16 : at + 16 + length].rstrip(b"\0").decode()))
        at += 16 + length
    assert events == [
        ("create", "one"), ("modify", "one"), ("close", "one"), ("attributes", "one"), ("moved from", "one"), ("moved to", "two"),
        ("delete", "two"),
    ]  # fmt: skip
