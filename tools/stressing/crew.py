"""All clients of a stress together: started, watched, and judged when they have ended.

The watchdog looks at the board and the daemon from outside of the mount, so it never hangs with those that it watches.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from razortools.units import MIB
from tests.mount.mounts import Mounted, run
from tools.daemon_figures import Figures, figures_of
from tools.stressing import hanging, shared
from tools.stressing.client import Board
from tools.stressing.own import Wrong

Client = subprocess.Popen[str]

PROJECT = Path(__file__).parents[2]
HANG_S = 60.0  # without a sign of life of a client
LOOK_S = 1.0
TELL_EVERY_S = 30.0
FORGET_S = 30.0  # for the kernel's messages about what it has dropped
SAMPLES_MIN = 20  # in a quarter
GROWTH_MAX = 0.10
GROWTH_BYTES_MAX = 16 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How long, how many."""

    clients: int
    seconds: float  # 0: see operations
    operations: int  # of each client; 0: see seconds
    seed: int
    may_be_full: bool = False  # the image is smaller than what the clients would like to keep


class Crew:
    """The clients of one stress on one mount."""

    def __init__(self, mounted: Mounted, rules: Rules, options: tuple[str, ...]) -> None:
        """Stress an image that is not mounted yet."""
        self._mounted = mounted
        self._rules = rules
        self._options = options
        self.samples: list[Figures] = []
        self._problems: list[str] = []
        self._seconds = 0.0
        self._done: list[dict[str, object]] = []
        self._folder = mounted.path.parent

    def run(self, tell: Callable[[str], None]) -> list[str]:
        """Do it; return what came out wrong."""
        mounted = self._mounted.mount(*self._options)
        first = figures_of(mounted.path)
        tell(f"at first: {first}")
        shared.prepare(str(mounted.path / "shared"), self._rules.clients)
        started = time.monotonic()
        is_over = self._work(tell)
        self._seconds = time.monotonic() - started
        if not is_over or self._problems:
            return self._problems
        self._done = [json.loads(self._done_path(client).read_text()) for client in range(self._rules.clients)]
        self._judge_shared("before the unmount")
        self.judge_memory()
        self.judge_rest(first, tell)
        mounted.remount(*self._options)
        self._judge_shared("after a remount")
        self._compare_own()
        mounted.umount()
        checked = run([sys.executable, "-m", "razortools.fsck", "-n"], mounted.image)
        self._expect(checked.returncode == 0, f"razorfsck -n: exit {checked.returncode}\n{checked.stdout}{checked.stderr}")
        self._expect(not mounted.complaints, "in the log:\n" + "\n".join(mounted.complaints[:20]))
        return self._problems

    def summary(self) -> str:
        """Return the figures in a sentence."""
        steps = sum(int(str(one["count"])) for one in self._done)
        refused = sum(int(str(one["refused"])) for one in self._done)
        full = f", {refused:,} refused for lack of space" if self._rules.may_be_full else ""
        peak = max((figures.peak_bytes for figures in self.samples), default=0)
        third, last = self._quarters()
        flat = f"; median memory {third / MIB:.0f} MiB in the third quarter, {last / MIB:.0f} MiB in the last" if third else ""
        return (
            f"{self._rules.clients} clients, {steps:,} steps{full} in {self._seconds:.0f} s; the daemon's peak memory "
            f"{peak / MIB:.0f} MiB{flat}"
        )

    def _expect(self, holds: bool, story: str) -> None:
        if not holds:
            self._problems.append(story)

    def _done_path(self, client: int) -> Path:
        return self._folder / f"done-{client}"

    # Working

    def _work(self, tell: Callable[[str], None]) -> bool:
        """Let the clients work; whether all have ended by themselves."""
        rules = self._rules
        board_path = self._folder / "board"
        board = Board(str(board_path), rules.clients)
        words = ["--folder", str(self._mounted.path), "--board", str(board_path), "--seed", str(rules.seed)]
        words += ["--operations", str(rules.operations or -1), *["--may-be-full"] * rules.may_be_full]
        with self._processes(*words) as crew:
            return self._watch(board, crew, tell)

    def _watch(self, board: Board, crew: list[Client], tell: Callable[[str], None]) -> bool:
        """Look at clients and daemon until all have ended; False if one hangs."""
        started = told = time.monotonic()
        moved = [started] * len(crew)
        seen = [(-1, 0, "")] * len(crew)
        while any(process.poll() is None for process in crew):
            now = time.monotonic()
            if any(process.returncode for process in crew) or now - started > (self._rules.seconds or now):
                board.stop()
            for client, process in enumerate(crew):
                if seen[client] != board.read(client):
                    seen[client], moved[client] = board.read(client), now
                elif process.poll() is None and now - moved[client] > HANG_S:
                    _, count, doing = seen[client]
                    stacks = hanging.report(self._mounted, crew)
                    self._expect(False, f"client {client} hangs in '{doing}' after {count} steps\n{stacks}")
                    hanging.end(self._mounted)
                    return False
            is_time = now - told > TELL_EVERY_S
            self._sample(tell if is_time else lambda _: None)
            told = now if is_time else told
            _wait_for_any(crew)
        for client, process in enumerate(crew):
            _, said = process.communicate()
            self._expect(process.returncode == 0, f"client {client} failed, exit {process.returncode}:\n{said}")
        return True

    def _sample(self, tell: Callable[[str], None]) -> None:
        try:
            figures = figures_of(self._mounted.path)
        except OSError as failed:
            self._expect(False, f"the daemon does not answer: {failed}")
            return
        self.samples.append(figures)
        tell(f"{figures}")

    @contextmanager
    def _processes(self, *words: str) -> Iterator[list[Client]]:
        """Start a process for each client; yield them. Ends only these."""
        with ExitStack() as stack:
            crew = []
            for client in range(self._rules.clients):
                command = [sys.executable, "-S", "-m", "tools.stressing.client", str(self._done_path(client))]
                command += ["--client", str(client), *words]
                crew.append(subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True))
                stack.callback(crew[-1].wait, HANG_S)
                stack.callback(crew[-1].kill)
            yield crew

    # Judging

    def _judge_shared(self, when: str) -> None:
        try:
            shared.judge(str(self._mounted.path / "shared"), self._done)
        except (Wrong, OSError) as wrong:
            self._expect(False, f"{when}: {wrong}")

    def _compare_own(self) -> None:
        """Have each client's directory compared with what the client had made of it."""
        with self._processes("--compare") as crew:
            for client, process in enumerate(crew):
                _, said = process.communicate()
                self._expect(process.returncode == 0, f"after a remount, client {client}:\n{said}")

    def _quarters(self) -> tuple[float, float]:
        """Return the median memory of the third and of the last quarter; zeros if there are too few samples."""
        size = len(self.samples) // 4
        if size < SAMPLES_MIN:
            return 0.0, 0.0
        memory = [figures.resident_bytes for figures in self.samples]
        return statistics.median(memory[2 * size : 3 * size]), statistics.median(memory[3 * size :])

    def judge_memory(self) -> list[str]:
        """Whether memory was flat after warm-up; return what came out wrong so far."""
        third, last = self._quarters()
        limit = third * (1 + GROWTH_MAX) + GROWTH_BYTES_MAX
        self._expect(last <= limit, f"memory grows: {third / MIB:.0f} MiB in the third quarter, {last / MIB:.0f} MiB in the last")
        return self._problems

    def judge_rest(self, first: Figures, tell: Callable[[str], None]) -> list[str]:
        """Whether the daemon is as at *first* when nobody uses the mount and the kernel has dropped what it can.

        Return what came out wrong so far.
        """
        end = time.monotonic() + FORGET_S
        while True:
            Path("/proc/sys/vm/drop_caches").write_text("2")
            figures = figures_of(self._mounted.path)
            is_at_rest = not figures.held_inodes and figures.descriptor_count <= first.descriptor_count
            if is_at_rest or time.monotonic() > end:
                break
            time.sleep(LOOK_S)
        tell(f"at rest:  {figures}")
        self._expect(not figures.held_inodes, f"{figures.held_inodes} inodes are held although nobody uses any")
        self._expect(
            figures.descriptor_count <= first.descriptor_count,
            f"{figures.descriptor_count} descriptors are open, {first.descriptor_count} at first",
        )
        return self._problems


def _wait_for_any(crew: list[Client]) -> None:
    """Return when a client has ended, or after a moment."""
    running = next((process for process in crew if process.poll() is None), None)
    if running is not None:
        try:
            running.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            pass


