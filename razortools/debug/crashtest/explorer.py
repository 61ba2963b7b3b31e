"""The explorer: for each workload, every state that a power cut may leave, judged.

Between two flushes a disk can be in many states; see store/powercut.py. Few are taken all, of many the most telling and a sample
by seed. From some of the states a second history starts: the mount after the crash, new work, the unmount, and a power cut in
that. Everything follows from the seed and the text of the workload, whatever else was explored before.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from razortools.debug.crashtest import oracle
from razortools.debug.crashtest.disks import Base, CrashedDisk, State
from razortools.debug.crashtest.memory import Memory
from razortools.debug.crashtest.operations import text_of
from razortools.debug.crashtest.oracle import Outcome
from razortools.debug.crashtest.pictures import Picture, difference
from razortools.debug.crashtest.playing import Ground, NotTheReference, Played, play, play_recovery
from razortools.debug.crashtest.workloads import Workload
from razortools.engine.store.powercut import Choice, Unflushed, Write

VERDICTS_MAX = 6_000  # remembered of one image; they take about 10 KiB each
CONTENTS_MAX = 60_000  # of sectors, with a number; they take about 800 bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much is tried."""

    states_per_flush: int = 256  # power cuts between two flushes
    second_crashes: int = 4  # states of each workload from which a second power cut is tried
    states_per_second_flush: int = 32
    crashes_max: int = 3  # power cuts in a row


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Where the power failed in a log, and what of the unflushed sectors arrived."""

    position: int  # entries of the log that had been made
    choice: tuple[tuple[int, int], ...]  # sector, version


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: how to get there, and what is wrong."""

    ground: str
    workload: str
    cuts: tuple[PowerCut, ...]
    reasons: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """How much there is to understand: smaller is better."""
        return len(self.cuts), self.workload.count(";"), sum(len(cut.choice) for cut in self.cuts)


@dataclass(slots=True)
class Tally:
    """What was explored. *states* holds a mark of 64 bits for each distinct state."""

    states: set[int] = field(default_factory=set)
    compound: set[int] = field(default_factory=set)  # those of them after more than one power cut
    workload_count: int = 0
    tried_count: int = 0  # states, the same one of several workloads each time
    judged_count: int = 0  # recovered in full; the others read the same as one of these
    violations: list[Violation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The time between two flushes."""

    stable: State  # before it
    unflushed: Unflushed
    position: int  # of its end


class Explorer:
    """Explores workloads on one ground."""

    def __init__(self, ground: Ground, seed: int, depth: Depth) -> None:
        """Start on *ground*."""
        self.ground = ground
        self.seed = seed
        self.depth = depth
        self.tally = Tally()
        self._met: set[int] = set()  # kinds of states that the present workload has led to
        self._forget()

    def explore(self, workload: Workload) -> None:
        """Try every power cut that *workload* may meet."""
        text = text_of(workload)
        chance = random.Random(f"{self.seed} {self.ground.name} {text}")
        self.tally.workload_count += 1
        self._met.clear()
        try:
            played = play(self.ground, workload)
        except NotTheReference as wrong:
            self.tally.violations.append(Violation(self.ground.name, text, (), (f"without any crash: {wrong}",)))
            return
        self._explore_log(played, {}, (), text, chance)
        memories = (self._checks, self._recoveries, self._endings)
        if sum(memory.verdict_count for memory in memories) > VERDICTS_MAX or len(self.ground.base.contents) > CONTENTS_MAX:
            self._forget()

    def _explore_log(self, played: Played, start: State, cuts: tuple[PowerCut, ...], text: str, chance: random.Random) -> None:
        second: list[tuple[State, PowerCut]] = []
        limit = self.depth.states_per_second_flush if cuts else self.depth.states_per_flush
        for epoch in epochs(self.ground.base, start, played.log):
            allowed = played.allowed(epoch.position)
            for state, choice in states(self.ground.base, epoch, limit, chance):
                cut = PowerCut(epoch.position, tuple(choice.items()))
                fresh = self._try(state, allowed, (*cuts, cut), text)
                # What reads like nothing before it is worth a second look; of the rest some, at random.
                if fresh or chance.random() < 0.01:
                    second.append((state, cut))
        wanted = self.depth.second_crashes if not cuts else 1
        if len(cuts) + 1 < self.depth.crashes_max and second and not self.tally.violations:
            for state, cut in chance.sample(second, min(wanted, len(second))):
                self._explore_log(play_recovery(self.ground.base, state), state, (*cuts, cut), text, chance)

    def _try(self, state: State, allowed: list[Picture], cuts: tuple[PowerCut, ...], text: str) -> bool:
        """Judge one state; return whether it reads like none before it in this workload, whatever was explored before that."""
        tally = self.tally
        mark = self.ground.base.mark(state)
        tally.states.add(mark)
        if len(cuts) > 1:
            tally.compound.add(mark)
        tally.tried_count += 1
        # razorfsck before recovery costs as much as the rest: of the many states after a second power cut every fourth gets it.
        outcome = self.judge(state, check=len(cuts) == 1 or mark % 4 == 0)
        reasons = reasons_against(outcome, allowed)
        if reasons:
            tally.violations.append(Violation(self.ground.name, text, cuts, reasons))
        kind = id(outcome.picture)  # states that read the same share one picture, which memory keeps
        is_new = kind not in self._met
        self._met.add(kind)
        return is_new

    def judge(self, state: State, *, check: bool = True) -> Outcome:
        """Return the outcome of a state: found out in full, or remembered of others that read the same.

        With *check*, razorfsck -n on the state as it is belongs to it.
        """
        base = self.ground.base
        complaints = [self._checks.verdict_on(base, state, oracle.check)] if check else []
        recovery = self._recoveries.verdict_on(base, state, self._recovery)
        if not recovery.outcome.failure:
            later = self._endings.verdict_on(base, recovery.applied_to(state), oracle.go_on)
            complaints.append(later.failure)
            if later.picture is not None and later.picture != recovery.outcome.picture:
                told = difference(later.picture, recovery.outcome.picture or ())
                complaints.append("a second recovery finds something else: " + "; ".join(told))
        complaints.append(recovery.outcome.failure)
        return Outcome(recovery.outcome.picture, "; ".join(filter(None, complaints)))

    def _recovery(self, disk: CrashedDisk) -> "_Recovery":
        self.tally.judged_count += 1
        outcome = oracle.recover(disk)
        after = disk.after()
        return _Recovery(outcome, tuple((sector, after.get(sector, -1)) for sector in disk.written()))

    def _forget(self) -> None:
        self._checks: Memory[str] = Memory()
        self._recoveries: Memory[_Recovery] = Memory()
        self._endings: Memory[Outcome] = Memory()
        self.ground.base.forget()


@dataclass(frozen=True, slots=True)
class _Recovery:
    """What a recovery found, and the sectors that it wrote: -1 stands for the base's contents."""

    outcome: Outcome
    wrote: tuple[tuple[int, int], ...]

    def applied_to(self, state: State) -> State:
        """Return what it makes of *state*."""
        after = dict(state)
        for sector, number in self.wrote:
            if number < 0:
                after.pop(sector, None)
            else:
                after[sector] = number
        return after


def reasons_against(outcome: Outcome, allowed: list[Picture]) -> tuple[str, ...]:
    """Return what is wrong with *outcome*, if one of *allowed* should have been found; nothing if all is well."""
    wrong = [outcome.failure] if outcome.failure else []
    if outcome.picture is not None and outcome.picture not in allowed:
        nearest = min((difference(outcome.picture, picture) for picture in allowed), key=len)
        wrong += ["the state is none that it may be; against the nearest one:", *nearest]
    return tuple(wrong)


def epochs(base: Base, start: State, log: list[Write | None]) -> Iterator[Epoch]:
    """Yield the times between two flushes of *log*, and the one after the last. The disk was in state *start*."""
    stable = dict(start)
    pending: list[Write] = []
    for position, entry in enumerate(log):
        if entry is not None:
            pending.append(entry)
            continue
        unflushed = Unflushed(pending)
        yield Epoch(dict(stable), unflushed, position)
        apply(base, stable, unflushed, unflushed.everything())
        pending = []
    yield Epoch(stable, Unflushed(pending), len(log))


def states(base: Base, epoch: Epoch, limit: int, chance: random.Random) -> Iterator[tuple[State, Choice]]:
    """Yield the states that a power cut in *epoch* may leave, at most *limit*."""
    for choice in epoch.unflushed.choices(limit, chance):
        state = dict(epoch.stable)
        apply(base, state, epoch.unflushed, choice)
        yield state, choice


def apply(base: Base, state: State, unflushed: Unflushed, choice: Choice) -> None:
    """Let what *choice* names arrive in *state*."""
    for sector, number in choice.items():
        base.put(state, sector, unflushed.versions[sector][number])
