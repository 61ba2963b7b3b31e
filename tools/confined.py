"""A mount and its client in a control group with little memory, and far more data than that: nobody is killed, nothing is wrong.

    python -m tools.confined                               256 MiB of memory, 4 GiB of data
    python -m tools.confined --memory 128 --data 1024 --mount-options cache=32M

The client writes files of random bytes (nothing shrinks, so all of it passes through), many small ones, reads 4 KiB at random
places, and everything once from start to end; each byte is compared. The kernel's caches of its files and of the image count in
the group as well. Needs root, /dev/fuse, and a kernel that lets us make the group.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from razortools.units import KIB, MIB
from tests.mount.mounts import FSCK, MOUNT, Mounted, run
from tools.daemon_figures import figures_of
from tools.memory_group import MemoryGroup, NoGroup, memory_group

FILE_BYTES, PIECE_BYTES, SMALL_BYTES = 32 * MIB, 1 * MIB, 8 * KIB
POOL_BYTES = 4 * MIB
SMALL_FILES, RANDOM_READS = 1000, 2000
PATIENCE_S = 3600
SEED = 5


def piece(pool: bytes, file_no: int, piece_no: int, size_bytes: int) -> bytes:
    """Return what a piece of a file holds: a stretch of *pool*, which is 1 MiB longer than POOL_BYTES."""
    start = (file_no * 1_000_003 + piece_no * 77_777) % POOL_BYTES
    return pool[start : start + size_bytes]


def work(folder: Path, data_bytes: int) -> None:
    """Be the client. Exits with a sentence if something reads back wrong."""
    pool = random.Random(SEED).randbytes(POOL_BYTES + PIECE_BYTES)
    pieces = FILE_BYTES // PIECE_BYTES
    paths = [folder / f"large {number}" for number in range(max(1, data_bytes // FILE_BYTES))]
    for number, path in enumerate(paths):
        with path.open("wb", buffering=0) as file:
            for at in range(pieces):
                file.write(piece(pool, number, at, PIECE_BYTES))
    for number in range(SMALL_FILES):
        (folder / f"small {number}").write_bytes(piece(pool, number, 0, SMALL_BYTES))
    chance = random.Random(SEED)
    for _ in range(RANDOM_READS):
        number, at = chance.randrange(len(paths)), chance.randrange(pieces)
        with paths[number].open("rb", buffering=0) as file:
            if os.pread(file.fileno(), 4 * KIB, at * PIECE_BYTES) != piece(pool, number, at, 4 * KIB):
                sys.exit(f"{paths[number].name}: 4 KiB at {at} MiB differ")
    for number, path in enumerate(paths):
        with path.open("rb", buffering=0) as file:
            for at in range(pieces):
                if file.read(PIECE_BYTES) != piece(pool, number, at, PIECE_BYTES):
                    sys.exit(f"{path.name}: 1 MiB at {at} MiB differ")
    for number in range(SMALL_FILES):
        if (folder / f"small {number}").read_bytes() != piece(pool, number, 0, SMALL_BYTES):
            sys.exit(f"small {number} differs")


def confined(
    mounted: Mounted, group: MemoryGroup, data_bytes: int, options: tuple[str, ...], tell: Callable[[str], None]
) -> list[str]:
    """Mount in *group*, let a client work there, unmount, check; return what came out wrong."""
    problems = []
    done = run(group.command(MOUNT), mounted.image, mounted.path, "-o", ",".join((f"log={mounted.log}", *options)))
    if done.returncode:
        return [f"the mount fails: {done.stderr}"]
    command = [sys.executable, "-m", "tools.confined", "--client", str(mounted.path), "--data", str(data_bytes // MIB)]
    client = run(group.command(command), patience_s=PATIENCE_S, cwd=Path(__file__).parent.parent)
    if client.returncode:
        problems.append(f"the client exits {client.returncode}: {client.stderr[-500:]}")
    try:
        tell(f"the daemon: {figures_of(mounted.path)}")
        mounted.umount()
    except (OSError, AssertionError) as gone:
        problems.append(f"the daemon does not answer: {gone}")
        mounted.take_away()
    tell(f"the group: at most {group.peak_bytes / MIB:.0f} MiB, {group.kill_count} processes killed")
    if group.kill_count:
        problems.append(f"{group.kill_count} processes were killed for lack of memory")
    checked = run(FSCK, "-n", mounted.image, patience_s=PATIENCE_S)
    if checked.returncode:
        problems.append(f"razorfsck -n exits {checked.returncode}: {checked.stdout}{checked.stderr}")
    return problems


def main() -> int:
    """Do what the command line asks for; return 1 if anything came out wrong."""
    parser = argparse.ArgumentParser(description="Use a mount in a control group with little memory.")
    parser.add_argument("--memory", type=int, default=256, metavar="MIB", help="limit of the group (default: 256)")
    parser.add_argument("--data", type=int, default=4096, metavar="MIB", help="data that pass through (default: 4096)")
    parser.add_argument("--mount-options", default="", help="as after mount's -o")
    parser.add_argument("--folder", type=Path, help="where the image lies meanwhile (default: a temporary directory)")
    parser.add_argument("--client", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.client:
        work(chosen.client, chosen.data * MIB)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the mount goes too
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        mounted = Mounted(Path(folder), chosen.data * MIB * 5 // 4 + 64 * MIB)
        try:
            with memory_group(chosen.memory * MIB) as group:
                try:
                    options = tuple(filter(None, chosen.mount_options.split(",")))
                    problems = confined(mounted, group, chosen.data * MIB, options, lambda line: print(line, flush=True))
                finally:
                    mounted.take_away()
        except NoGroup as reason:
            problems = [str(reason)]
        log = mounted.log.read_text() if mounted.log.exists() else ""
    print(log, end="")
    for problem in problems:
        print(problem)
    print(f"{chosen.data:,} MiB through a mount in {chosen.memory} MiB of memory: {'FAILED' if problems else 'all there, clean'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
