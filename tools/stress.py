"""A mixed stress: many processes on one mount, for minutes, and nothing may hang, leak or come out wrong.

    python -m tools.stress --minutes 30 --seed 1
    python -m tools.stress --operations 300 --clients 4 --seed 1       (so many steps for each client, however long that takes)

Each client (tools/stressing/client.py) creates, writes, maps, renames, links, lists, syncs and removes in a directory of its own,
where every answer is known, and in one that all share, where contents describe themselves. It ends well if

- no client fails, and none is without progress for 60 s. One that is: the stacks of all involved are printed, and the
  connection is ended so that everybody gets away;
- what the clients wrote is there when they have ended, and again after a remount;
- memory is flat after warm-up: the median of the daemon's resident memory in the last quarter of the time is at most 10 % and
  16 MiB above that in the third quarter (judged if there are at least 20 samples in each);
- when all have ended and the kernel has dropped its caches, no inode is held and as many descriptors are open as at first;
- `razorfsck -n` finds nothing, and the log has no complaint.

With --full the image is too small for what the clients make: calls are refused with ENOSPC, and who is refused deletes all that
is its own, which must work, and goes on.

Needs root and /dev/fuse. Dropping caches concerns the whole machine (dentries and inodes, not file contents).
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from razortools.units import MIB
from tests.mount.mounts import Mounted
from tools.stressing.crew import Crew, Rules

IMAGE_BYTES = 4096 * MIB
FULL_BYTES_PER_CLIENT = 1 * MIB


def main() -> int:
    """Do what the command line asks for; return 1 if anything came out wrong."""
    parser = argparse.ArgumentParser(description="Stress a mounted image with many processes.")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--operations", type=int, default=0, help="end after so many of each client instead of after minutes")
    parser.add_argument("--seed", type=int, help="what the clients do (default: the time)")
    parser.add_argument("--mount-options", default="", help="as after mount's -o")
    parser.add_argument("--full", action="store_true", help="on an image that runs full again and again")
    parser.add_argument("--folder", type=Path, help="where the image lies and stays (default: a temporary directory)")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the mount goes too
    seed = int(time.time()) if chosen.seed is None else chosen.seed
    rules = Rules(
        clients=chosen.clients,
        seconds=0 if chosen.operations else chosen.minutes * 60,
        operations=chosen.operations,
        seed=seed,
        may_be_full=chosen.full,
    )
    print(f"seed {seed}, {rules.clients} clients, mount options: {chosen.mount_options or 'none'}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        mounted = Mounted(folder, chosen.clients * FULL_BYTES_PER_CLIENT if chosen.full else IMAGE_BYTES)
        mounted.patience_s = 60.0
        try:
            crew = Crew(mounted, rules, tuple(filter(None, chosen.mount_options.split(","))))
            problems = crew.run(lambda line: print(line, flush=True))
        finally:
            mounted.take_away()
    for problem in problems:
        print(problem)
    print(f"{crew.summary()}, seed {seed}: " + ("FAILED" if problems else "nothing wrong, nothing left; razorfsck -n: clean"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
