"""Exercise the contents of files on a mounted image: random operations, compared with a model in memory.

    python -m tools.fsx --ops 1000000 --seed 1
    python -m tools.fsx --ops 100000 --seed 1 --mount-options cache=1M,dirty=1M,commit=0.05,writeback

Reads, writes, appends, truncates up and down, mapped reads and writes, direct reads and writes, copies within the kernel, holes,
syncs, files opened anew, renamed, exchanged, unlinked while open; remounts and drops of the kernel's caches. After each read the
bytes are compared, after each step size and blocks, at intervals and after each remount everything. A failure prints the last
steps and how to repeat them; with --keep the steps are written to a file that --replay does again. Needs root and /dev/fuse.
"""

import argparse
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from razortools.units import parse_size
from tests.mount.mounts import Mounted
from tools.exercise.exerciser import IMAGE_BYTES, Exerciser, Outcome, Plan
from tools.exercise.steps import step_of

DEFAULT = Plan(operations=100_000, seed=0)


def parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    made = argparse.ArgumentParser(description="Exercise the contents of files on a mounted image.")
    made.add_argument("--ops", type=int, default=DEFAULT.operations, help="operations")
    made.add_argument("--seed", type=int, help="which operations (default: the time)")
    made.add_argument("--image", type=Path, help="the image to make, beside which it is mounted (default: a temporary one)")
    made.add_argument("--mount-options", default="", help="as after mount's -o")
    made.add_argument("--remount-every", type=int, default=DEFAULT.remount_every, help="operations; 0: never")
    made.add_argument("--drop-every", type=int, default=DEFAULT.drop_every, help="operations between drops of caches; 0: never")
    made.add_argument("--verify-every", type=int, default=DEFAULT.verify_every, help="operations between two full comparisons")
    made.add_argument("--files", type=int, default=DEFAULT.file_count)
    made.add_argument("--file-bytes", type=parse_size, default=DEFAULT.file_bytes_max, help="how large a file may become")
    made.add_argument("--log-steps", type=int, default=DEFAULT.told_steps, help="how many of the last operations a failure tells")
    made.add_argument("--keep", type=Path, help="write all operations of a failed run to this file")
    made.add_argument("--replay", type=Path, help="do the operations of this file")
    return made


def main() -> int:
    """Do what the command line asks for; return 1 if mount and model differed."""
    chosen = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the mount goes too
    seed = int(time.time()) if chosen.seed is None else chosen.seed
    plan = Plan(
        operations=chosen.ops,
        seed=seed,
        mount_options=tuple(filter(None, chosen.mount_options.split(","))),
        file_count=chosen.files,
        file_bytes_max=chosen.file_bytes,
        verify_every=chosen.verify_every,
        remount_every=chosen.remount_every,
        drop_every=chosen.drop_every,
        told_steps=chosen.log_steps,
    )
    print(f"seed {seed}, {plan.operations} operations, mount options: {chosen.mount_options or 'none'}", flush=True)
    steps = iter([step_of(line) for line in chosen.replay.read_text().splitlines()]) if chosen.replay else None
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.image.parent if chosen.image else Path(temporary)
        mounted = Mounted(folder, IMAGE_BYTES, chosen.image.name if chosen.image else "image")
        exerciser = Exerciser(mounted, plan, steps, is_kept=chosen.keep is not None)
        mounted.patience_s = 60.0
        try:
            outcome = exerciser.run(lambda line: print(line, flush=True))
        finally:
            mounted.take_away()
    seconds = time.monotonic() - started
    if outcome.failure and chosen.keep:
        chosen.keep.write_text("".join(step.line() + "\n" for step in exerciser.kept or ()))
    _print(outcome, seconds, seed)
    return 1 if outcome.failure else 0


def _print(outcome: Outcome, seconds: float, seed: int) -> None:
    """Print the figures, or the story of the failure and how to repeat it."""
    for kind, count in sorted(outcome.kinds.items(), key=lambda one: -one[1]):
        print(f"{kind:<16} {count:>10,}")
    print(f"{outcome.operations:,} operations, {outcome.remounts} remounts in {seconds:.0f} s, seed {seed}: ", end="")
    if not outcome.failure:
        print("contents, sizes and blocks agreed; razorfsck -n: clean")
        return
    print(f"FAILED\n{outcome.failure}\nrepeat: python -m tools.fsx {shlex.join(sys.argv[1:])} --seed {seed}")


if __name__ == "__main__":
    sys.exit(main())
