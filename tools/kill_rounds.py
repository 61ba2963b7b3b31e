"""Kill a mounted image's daemon in the middle of its work, again and again, and see whether it kept its promise.

    python -m tools.kill_rounds --rounds 200 --seed 1

A round: six workers (tools/killed/plans.py) change and sync files at once; after a number of acknowledged steps that the seed
chooses the daemon gets SIGKILL; razorfsck looks at the image as it lies; the image is mounted again and compared with what may
be there (tools/killed/verdict.py). The image lives on from round to round. The seed decides steps, mount options and moments;
how the workers' steps fall between each other is up to the machine, as it is in life. Needs root and /dev/fuse.
"""

import argparse
import errno
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from razortools.units import MIB
from tests.mount.mounts import ANSWER_S, Mounted, run
from tools.killed import load
from tools.killed.load import Step
from tools.killed.plans import Planner, Tree
from tools.killed.verdict import History, judge

WORKERS = ("writer", "writer", "renamer", "renamer", "syncer", "unlinker")
HOMES = [f"{number}-{role}" for number, role in enumerate(WORKERS)]
IMAGE_BYTES = 96 * MIB
CLEAN_EVERY = 5  # rounds after which the image is unmounted in peace and checked as well
GONE = frozenset((errno.ENOTCONN, errno.ECONNABORTED))  # what a call gets when the daemon is dead


@dataclass(frozen=True, slots=True)
class Moment:
    """What the seed chose for one round."""

    kill_after: int  # acknowledged steps; 0: as soon as the mount answers
    at_sync: bool  # and then not before the next sync is acknowledged
    sync_share: float
    options: tuple[str, ...]


@dataclass(slots=True)
class Totals:
    """Figures of all rounds so far, and why they ended early."""

    rounds: int = 0
    begun: int = 0
    acknowledged: int = 0
    syncs: int = 0  # acknowledged
    lost: int = 0  # acknowledged, never synced, gone: what a crash may take
    violation: str = ""


def choose(seed: int, number: int) -> Moment:
    """Return what round *number* is to be."""
    source = random.Random(f"moment {seed} {number}")
    low, high = source.choice(((0, 0), (1, 20), (20, 200), (20, 200), (200, 1500), (200, 1500), (500, 3000), (500, 3000)))
    sync_share = source.choice((0, 0.003, 0.02, 0.1, 0.5))
    return Moment(
        source.randint(low, high),
        sync_share >= 0.02 and high > 0 and source.random() < 0.7,
        sync_share,
        (
            f"commit={source.choice((0.02, 0.1, 0.5, 5))}",
            f"checkpoint={source.choice((0.05, 0.3, 30))}",
            f"dirty={source.choice((2, 4, 64))}M",
            f"compression={source.choice(('auto', 'none', 'zstd:1'))}",
        ),
    )


class Rounds:
    """One image and all that is done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Make the image in *folder*."""
        self.seed = seed
        self.totals = Totals()
        self._mounted = Mounted(folder, IMAGE_BYTES)
        self._trees: list[Tree] = [{} for _ in WORKERS]

    def run(self, rounds: int, tell: Callable[[str], None]) -> Totals:
        """Do *rounds* rounds, or as many as it takes to a violation; *tell* gets a line for each."""
        try:
            self._mounted.mount(*choose(self.seed, 0).options)
            for home in HOMES:
                (self._mounted.path / home).mkdir()
            self._mounted.remount(*choose(self.seed, 0).options)
            for number in range(rounds):
                tell(f"round {number}: {self._round(number)}")
                if self.totals.violation:
                    break
        finally:
            self._mounted.take_away()
        return self.totals

    def _round(self, number: int) -> str:
        """Do one round; return what happened in it."""
        moment, totals = choose(self.seed, number), self.totals
        histories, failures = self._load_and_kill(number, moment)
        self._expect(not failures, "; ".join(failures))
        self._check("the image as the kill left it")
        self._mounted.mount(*choose(self.seed, number + 1).options)
        found = self._read()
        verdict = judge(histories, found)
        self._expect(not verdict.violations, "\n".join(verdict.violations))
        self._trees = found
        if number % CLEAN_EVERY == CLEAN_EVERY - 1:
            self._unmount_in_peace(number)
        self._expect(not self._mounted.complaints, "\n".join(self._mounted.complaints[:20]))
        begun = sum(len(history.begun) for history in histories)
        done = sum(len(history.done) for history in histories)
        syncs = sum(step.promises for history in histories for step in history.steps[: len(history.done)])
        totals.rounds += 1
        totals.begun += begun
        totals.acknowledged += done
        totals.syncs += syncs
        totals.lost += verdict.lost
        if totals.violation:
            return f"VIOLATION\n{totals.violation}"
        return (
            f"{begun} steps begun, {done} acknowledged, {syncs} of them syncs; {sum(verdict.promised)} steps promised, "
            f"{sum(verdict.kept):g} there, {verdict.lost} lost"
        )

    def _expect(self, holds: bool, story: str) -> None:
        """Keep the first violation."""
        if not holds and not self.totals.violation:
            self.totals.violation = story

    def _check(self, what: str) -> None:
        """See what razorfsck says of the image."""
        checked = run([sys.executable, "-m", "razortools.fsck", "-n"], self._mounted.image)
        said = f"{checked.stdout}{checked.stderr}"
        self._expect(checked.returncode == 0, f"razorfsck -n, {what}: exit {checked.returncode}\n{said}")

    def _unmount_in_peace(self, number: int) -> None:
        """Unmount, check, mount: nothing may differ."""
        self._mounted.umount()
        self._check("the image after unmounting it")
        self._mounted.mount(*choose(self.seed, number + 1).options)
        self._expect(self._read() == self._trees, "an unmounted image is not what it was before it was unmounted")

    def _read(self) -> list[Tree]:
        """Return what is in each worker's directory."""
        names = sorted(path.name for path in self._mounted.path.iterdir())
        self._expect(names == HOMES, f"in the root directory: {names}")
        return [dict(_read_below(self._mounted.path, home)) for home in HOMES]

    def _load_and_kill(self, number: int, moment: Moment) -> tuple[list[History], list[str]]:
        """Let the workers work, kill the daemon; return their histories, and calls that failed for another reason."""
        count = max(moment.kill_after, 1)
        histories = []
        for worker, role in enumerate(WORKERS):
            source = random.Random(f"steps {self.seed} {number} {worker}")
            planner = Planner(HOMES[worker], HOMES, self._trees[worker], source, moment.sync_share)
            histories.append(History(HOMES[worker], self._trees[worker], planner.steps(role, count)))
        daemon = os.pidfd_open(self._mounted.pid)
        try:
            with _crew(self._mounted.path, [history.steps for history in histories]) as lines:
                failures = _listen(lines, histories, moment, lambda: self._kill(daemon))
        finally:
            os.close(daemon)
        return histories, failures

    def _kill(self, daemon: int) -> None:
        """Kill the daemon and wait until it has ended."""
        ended, _, _ = select.select([daemon], [], [], 0)
        self._expect(not ended, "the daemon had ended by itself")
        if not ended:
            signal.pidfd_send_signal(daemon, signal.SIGKILL)
            ended, _, _ = select.select([daemon], [], [], ANSWER_S)
            assert ended, "the daemon did not end by SIGKILL"


def _listen(
    lines: Iterator[tuple[str, int, int, int]], histories: Sequence[History], moment: Moment, kill: Callable[[], None]
) -> list[str]:
    """Write down what the workers say; *kill* at the chosen moment. Return failures that the kill does not explain."""
    failures: list[str] = []
    acknowledged = 0
    is_killed = False
    for position, (what, worker, number, error) in enumerate(lines):
        history = histories[worker]
        if what == "begun":
            assert number == len(history.begun), "a worker does its steps in order"
            history.begun.append(position)
        elif what == "done":
            history.done.append(position)
            acknowledged += 1
        elif what == "failed" and error not in GONE and not (is_killed and error == errno.EIO):
            # A daemon that dies while it takes a request over from the kernel fails it with EIO (Linux: fuse_dev_do_read).
            # What it answers with EIO itself stands in its log, which is looked at as well.
            failures.append(f"{history.name}: step {number} {history.steps[number]} failed: {os.strerror(error)}")
        is_time = not moment.at_sync or (what == "done" and history.steps[number].promises)
        if not is_killed and ((acknowledged >= moment.kill_after and is_time) or what == "failed"):
            is_killed = True
            kill()
    if not is_killed:
        kill()
    return failures


@contextmanager
def _crew(folder: Path, plans: Sequence[Sequence[Step]]) -> Iterator[Iterator[tuple[str, int, int, int]]]:
    """Start a worker for each plan; yield what they say: (what, worker, number of the step, errno). Ends only these processes."""
    said, saying = os.pipe()
    waiting, go = os.pipe()
    crew: list[subprocess.Popen[bytes]] = []
    try:
        for worker, steps in enumerate(plans):
            words = [sys.executable, "-S", load.__file__, str(folder), str(worker), str(waiting)]
            crew.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=saying, pass_fds=[waiting]))
            with crew[-1].stdin as sink:  # type: ignore[union-attr]
                sink.write(b"".join(json.dumps(step).encode() + b"\n" for step in steps))
        os.close(saying)
        saying = -1
        lines = _lines(said)
        for _ in crew:
            assert next(lines)[0] == "ready"
        os.close(go)
        go = -1
        yield lines
    finally:
        for descriptor in (said, saying, waiting, go):
            if descriptor >= 0:
                os.close(descriptor)
        for worker_process in crew:
            try:
                worker_process.wait(ANSWER_S)
            finally:
                worker_process.kill()


def _lines(descriptor: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield what comes through the workers' pipe, to its end."""
    rest = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], ANSWER_S)
        assert ready, "the workers are silent"
        got = os.read(descriptor, 1 << 16)
        if not got:
            return
        *whole, rest = (rest + got).split(b"\n")
        for line in whole:
            what, worker, number, error = line.split()
            yield what.decode(), int(worker), int(number), int(error)


def _read_below(root: Path, home: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield everything below *home* with its contents; nothing if it is not there."""
    for folder, folders, files in os.walk(root / home):
        for name in folders:
            yield str((Path(folder) / name).relative_to(root)), None
        for name in files:
            path = Path(folder) / name
            yield str(path.relative_to(root)), path.read_bytes()


def main() -> int:
    """Do what the command line asks for; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Kill a mounted image's daemon again and again; see what it kept.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the image lies and stays (default: a temporary directory)")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the mount goes too
    print(f"seed {chosen.seed}, {chosen.rounds} rounds, {len(WORKERS)} workers", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        totals = Rounds(folder, chosen.seed).run(chosen.rounds, lambda line: print(line, flush=True))
    print(
        f"{totals.rounds} rounds in {time.monotonic() - started:.0f} s: {totals.begun} operations begun, {totals.acknowledged} "
        f"acknowledged, {totals.syncs} of them syncs; {totals.lost} acknowledged without a sync and lost; "
        + (f"VIOLATION with seed {chosen.seed}" if totals.violation else "every promise kept")
    )
    return 1 if totals.violation else 0


if __name__ == "__main__":
    sys.exit(main())
