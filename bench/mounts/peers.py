"""The filesystems that are measured: how each is made, mounted and taken away again.

A peer is a few shell commands. Whatever happens, nothing of it is left: no mount, no loop device, no daemon, no image. Daemons
are found because they become children of this process (it asks the kernel for that) when the command that started them has ended.
"""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from razortools.service import mountpoints
from razortools.service.control import Waiter

MOUNTING_S = 60
STARTING_S = 2
ENDING_S = 120  # a daemon may have much to write before it ends
COMMAND_S = 600  # some write everything before their unmount command returns
SIGNAL_S = 10  # but not after a signal
UNMOUNT_TRIES = 20
PR_SET_CHILD_SUBREAPER = 36
RAZORFS = "razorfs"
CLIENT_ALONE = "tmpfs"

UNMOUNT = "umount {dir}"
MAKE_EXT4 = "truncate -s 4G {image} && mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {image}"


class PeerFailed(Exception):
    """A filesystem that cannot be mounted or unmounted, and what it said."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A filesystem beside which razorfs is measured.

    In the commands {dir} stands for the mount point, {image} for a path where nothing is yet, {lower} for an empty directory
    beside it, {python} for this interpreter. *tools*: the commands that are needed, and the Debian packages they come from.
    """

    name: str
    mount: str
    make: str = "true"
    unmount: str = UNMOUNT
    tools: tuple[tuple[str, str], ...] = ()


OURS = Peer(
    RAZORFS,
    "{python} -m razortools.mount {image} {dir} -o log={image}.log",
    "{python} -m razortools.mkfs -q {image} 4G",
    "{python} -m razortools.umount {dir}",
)
PEERS = (
    Peer(CLIENT_ALONE, "mount -t tmpfs -o size=4G none {dir}"),
    Peer("ext4", "mount -o loop {image} {dir}", MAKE_EXT4, tools=(("mkfs.ext4", "e2fsprogs"),)),
    Peer(
        "xfs", "mount -o loop {image} {dir}", "truncate -s 4G {image} && mkfs.xfs -q {image}", tools=(("mkfs.xfs", "xfsprogs"),)
    ),
    Peer(
        "btrfs",
        "mount -o loop,compress=zstd:1 {image} {dir}",
        "truncate -s 4G {image} && mkfs.btrfs -q {image}",
        tools=(("mkfs.btrfs", "btrfs-progs"),),
    ),
    Peer("fuse2fs", "fuse2fs -f {image} {dir}", MAKE_EXT4, tools=(("mkfs.ext4", "e2fsprogs"), ("fuse2fs", "fuse2fs"))),
    OURS,
)


def daemon_of(point: Path) -> int | None:
    """Return the process that serves razorfs at *point*; None if it does not tell."""
    mount = mountpoints.mount_at(str(point))
    if mount is None:
        return None
    try:
        waiter = Waiter(mount.device)
    except OSError:
        return None
    waiter.close()
    return waiter.greeting.pid


def missing_tools(peers: list[Peer]) -> dict[str, str]:
    """Return for each peer that cannot be measured here a sentence that says which package it needs."""
    return {
        peer.name: f"{peer.name} needs {tool}, which is not here; install the package {package}, or leave it out: "
        f"--without {peer.name}"
        for peer in peers
        for tool, package in peer.tools
        if shutil.which(tool) is None
    }


def adopt_daemons() -> None:
    """Become the parent of daemons whose own parent ends. For the whole process, so only a program of its own does it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def mounted(peer: Peer, folder: Path, warn: Callable[[str], object] = sys.stderr.write) -> Iterator[Path]:
    """Make *peer*'s image in *folder*, mount it, give the mount point; afterwards nothing of it is left.

    Raises PeerFailed with what the peer's command said. *warn* is told what did not end by itself.
    """
    home = folder / peer.name
    point = home / "mnt"
    for path in (point, home / "lower"):
        path.mkdir(parents=True)
    before = _children()
    try:
        _run(peer.make, home)
        with (home / "output").open("wb") as output:
            process = _start(peer.mount, home, output.fileno())
        try:
            _wait_until_mounted(peer, process, home)
            yield point
        finally:
            with undisturbed(lambda: warn(f"{peer.name} is being taken away; then this stops\n")):
                _unmount(peer, home, warn)
                _wait_for_daemons(peer, process, before, warn)
    finally:
        if not _is_mounted(home):  # never remove what is in a filesystem that somebody may still need to look at
            shutil.rmtree(home)


@contextmanager
def undisturbed(tell: Callable[[], object]) -> Iterator[None]:
    """Let signals that stop this process wait until the block is done. *tell* is called when one comes."""
    waiting: list[int] = []

    def later(number: int, frame: object) -> None:
        waiting.append(number)
        tell()

    handlers = {number: signal.signal(number, later) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if waiting:
            os.kill(os.getpid(), waiting[0])


def _words(command: str, home: Path) -> list[str]:
    """Return the shell's command line for *command*."""
    for name, value in {"dir": home / "mnt", "image": home / "image", "lower": home / "lower", "python": sys.executable}.items():
        command = command.replace(f"{{{name}}}", shlex.quote(str(value)))
    return ["sh", "-c", command]


def _run(command: str, home: Path) -> None:
    """Run *command* to its end. Raises PeerFailed with what it said."""
    words = _words(command, home)
    try:
        # In a session of its own: a terminal's Ctrl-C means this process, which stops when everything is taken away.
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{command!r} takes more than {COMMAND_S} s") from None
    if done.returncode:
        raise PeerFailed(f"{command!r} exits {done.returncode}: {(done.stdout + done.stderr).strip()}")


def _start(command: str, home: Path, output: int) -> "subprocess.Popen[bytes]":
    """Start a command that may stay in the foreground, become a daemon, or just end."""
    words = _words(command, home)
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)


def _is_mounted(home: Path) -> bool:
    """Whether something is mounted in *home*, alive or dead."""
    return mountpoints.mount_at(str(home / "mnt")) is not None


def _wait_until_mounted(peer: Peer, process: "subprocess.Popen[bytes]", home: Path) -> None:
    """Return when the mount answers. Raises PeerFailed when it never will."""

    def said() -> str:
        return (home / "output").read_text(errors="replace").strip()

    deadline = time.monotonic() + MOUNTING_S
    while not _is_mounted(home):
        if process.poll() or time.monotonic() > deadline:
            how = f"exits {process.returncode}" if process.poll() else f"has mounted nothing after {MOUNTING_S} s"
            raise PeerFailed(f"{peer.mount!r} {how}: {said()}")
        time.sleep(0.01)
    os.listdir(home / "mnt")  # a FUSE filesystem answers this after it has been set up
    try:
        process.wait(STARTING_S)  # what becomes a daemon returns when it has finished starting
    except subprocess.TimeoutExpired:  # what stays in the foreground does not
        return
    if process.returncode:
        raise PeerFailed(f"{peer.mount!r} exits {process.returncode}: {said()}")


def _unmount(peer: Peer, home: Path, warn: Callable[[str], object]) -> None:
    """Unmount, whatever it takes."""
    problem = "it stays mounted"
    for _ in range(UNMOUNT_TRIES):
        if not _is_mounted(home):
            return
        try:
            _run(peer.unmount, home)
        except PeerFailed as error:  # a client that was killed may keep it busy for a moment
            problem = str(error)
            time.sleep(0.1)
    if _is_mounted(home):
        warn(f"{peer.name} is taken away by force: {problem}\n")
        _run("umount -l {dir}", home)


def _children() -> set[int]:
    """Return the pids of this process's children."""
    return {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def _wait_for_daemons(peer: Peer, process: "subprocess.Popen[bytes]", before: set[int], warn: Callable[[str], object]) -> None:
    """Return when all that the peer has started has ended. What takes too long is ended."""
    signals = [signal.SIGTERM, signal.SIGKILL]
    limit_s, deadline = ENDING_S, time.monotonic() + ENDING_S
    while True:
        process.poll()
        left = _children() - before
        for pid in left - {process.pid}:
            os.waitpid(pid, os.WNOHANG)
        if not left:
            return
        if time.monotonic() > deadline:
            if not signals:
                raise PeerFailed(f"{peer.name}: processes {sorted(left)} cannot be ended")
            number = signals.pop(0)
            warn(f"{peer.name} has not ended {limit_s} s after that was asked of it; it gets {number.name}\n")
            for pid in left:
                os.kill(pid, number)
            limit_s, deadline = SIGNAL_S, time.monotonic() + SIGNAL_S
        time.sleep(0.01)
