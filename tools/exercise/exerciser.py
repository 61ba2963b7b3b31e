"""The exerciser's run: steps by a seed, remounts and full comparisons at intervals, a check of the image at the end.

A failure is told as a story: what differs, the last steps with a mark at those that touched the byte, and how to repeat it.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from razortools.units import KIB, MIB
from tests.mount.mounts import Mounted, run
from tools.exercise.hands import Hands, Mismatch
from tools.exercise.steps import Chooser, Step

IMAGE_BYTES = 256 * MIB
RECORD_BYTES = 128 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done. The same plan gives the same steps."""

    operations: int
    seed: int
    mount_options: tuple[str, ...] = ()
    file_count: int = 3
    file_bytes_max: int = 1 * MIB
    verify_every: int = 1000  # steps; 0: only at the end
    remount_every: int = 20_000
    drop_every: int = 20_000  # steps after which the kernel drops names and inodes, those of the whole machine
    told_steps: int = 60  # at a failure


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    operations: int = 0
    remounts: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    failure: str = ""  # empty: the mount and the model agreed to the end, and the image is clean


class Exerciser:
    """One image, mounted, and the steps on it."""

    def __init__(self, mounted: Mounted, plan: Plan, steps: Iterator[Step] | None = None, *, is_kept: bool = False) -> None:
        """Do *plan* on an image that is not mounted yet; *steps* replace those that the seed chooses."""
        self._mounted = mounted
        self._plan = plan
        self._given = steps
        self._last: deque[tuple[int, Step]] = deque(maxlen=plan.told_steps)
        self.kept: list[Step] | None = [] if is_kept else None  # all steps
        self.outcome = Outcome()

    def run(self, tell: Callable[[str], None] = lambda _: None) -> Outcome:
        """Do it; *tell* gets a line now and then."""
        outcome = self.outcome
        self._mounted.mount(*self._plan.mount_options)
        hands = Hands(self._mounted.path, self._plan.file_count, RECORD_BYTES)
        try:
            self._steps(hands, tell)
            hands.verify_all()
            self._remount(hands)
            hands.close()
            self._mounted.umount()
            checked = run([sys.executable, "-m", "razortools.fsck", "-n"], self._mounted.image)
            if checked.returncode:
                outcome.failure = f"razorfsck -n: exit {checked.returncode}\n{checked.stdout}{checked.stderr}"
        except (Mismatch, OSError) as failed:
            outcome.failure = self._story(failed)
        finally:
            hands.close()
        if self._mounted.complaints and not outcome.failure:
            outcome.failure = "in the log:\n" + "\n".join(self._mounted.complaints[:20])
        return outcome

    def _steps(self, hands: Hands, tell: Callable[[str], None]) -> None:
        plan, outcome = self._plan, self.outcome
        chooser = Chooser(plan.seed, plan.file_count, plan.file_bytes_max)
        for number in range(1, plan.operations + 1):
            step = chooser.next(hands.sizes) if self._given is None else next(self._given, None)
            if step is None:
                break
            self._last.append((number, step))
            if self.kept is not None:
                self.kept.append(step)
            hands.do(step)
            outcome.operations = number
            outcome.kinds[step.kind] = outcome.kinds.get(step.kind, 0) + 1
            if plan.drop_every and number % plan.drop_every == 0:
                hands.close()  # what is open is not dropped
                Path("/proc/sys/vm/drop_caches").write_text("2")
            if plan.verify_every and number % plan.verify_every == 0:
                hands.verify_all()
            if plan.remount_every and number % plan.remount_every == 0:
                self._remount(hands)
                tell(f"{number} operations, {outcome.remounts} remounts")

    def _remount(self, hands: Hands) -> None:
        """Unmount, mount, and compare everything: nothing comes from a cache after this."""
        hands.close()
        self._mounted.remount(*self._plan.mount_options)
        self.outcome.remounts += 1
        hands.verify_all()

    def _story(self, failed: Exception) -> str:
        lines = [f"after {self.outcome.operations} operations: {failed}"]
        for number, step in self._last:
            mark = "*" if isinstance(failed, Mismatch) and step.touches(failed.file, failed.offset) else " "
            lines.append(f"{mark} {number}: {step}")
        if isinstance(failed, Mismatch):
            lines.append(f"* may have touched byte {failed.offset} of file {failed.file}")
        return "\n".join((*lines, *self._mounted.complaints[:20]))
