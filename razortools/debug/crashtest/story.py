"""Stories: a violation made small and told so that a person can follow it and repeat it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from razortools.debug.crashtest.disks import Base, State
from razortools.debug.crashtest.explorer import Epoch, Explorer, PowerCut, Violation, apply, epochs, reasons_against
from razortools.debug.crashtest.operations import parse, text_of
from razortools.debug.crashtest.playing import Ground, Played, play, play_recovery
from razortools.debug.crashtest.workloads import numbered
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.powercut import SECTOR_BYTES, Choice, Unflushed
from razortools.engine.store.superblocks import newest
from razortools.errors import UsageError
from razortools.format.geometry import Geometry, geometry_of


def smallest(violations: list[Violation], explorer: Explorer) -> Violation:
    """Return the smallest violation that can be reached from *violations* by leaving out operations and sectors."""
    best = min(violations, key=lambda violation: violation.size)
    words = best.workload.split("; ")
    for at in count(len(words) - 1, -1):
        if at < 0:
            break
        fewer = "; ".join(words[:at] + words[at + 1 :])
        found = violations_of(explorer, fewer) if fewer else []
        if found:
            best = min(found, key=lambda violation: violation.size)
            words = best.workload.split("; ")
    return best


def violations_of(explorer: Explorer, text: str) -> list[Violation]:
    """Return what exploring one workload finds."""
    explorer.tally.violations.clear()
    explorer.explore(numbered(text))
    return list(explorer.tally.violations)


def tell(violation: Violation, ground: Ground, seed: int) -> list[str]:
    """Return the story of *violation*, a line each."""
    lines = [f"workload on the {violation.ground} image: {violation.workload}"]
    total = len(violation.cuts)
    for number, reached in enumerate(reach(ground, violation.workload, violation.cuts), 1):
        lines += _tell_cut(ground.base, reached, f"power cut {number} of {total}" if total > 1 else "power cut")
    lines += ["found:", *(f"  {reason}" for reason in violation.reasons)]
    command = f"razorfs-debug crashtest --seed {seed} --ground {violation.ground} --workload '{violation.workload}'"
    if violation.cuts:
        command += f" --crash '{format_cuts(violation.cuts)}'"
    return [*lines, f"repeat: {command}"]


@dataclass(frozen=True, slots=True)
class Reached:
    """A power cut on the way to a violation: the history that it ended, the time between two flushes, what it left."""

    played: Played
    epoch: Epoch
    choice: Choice
    state: State


def reach(ground: Ground, workload: str, cuts: tuple[PowerCut, ...]) -> Iterator[Reached]:
    """Yield *cuts* in *workload* one after the other. Raises UsageError if one lies where no time between two flushes ends."""
    state: State = {}
    for number, cut in enumerate(cuts):
        played = play_recovery(ground.base, state) if number else play(ground, numbered(workload))
        epoch = next((found for found in epochs(ground.base, state, played.log) if found.position == cut.position), None)
        if epoch is None:
            raise UsageError(f"there is no flush at position {cut.position} of this history")
        choice = dict(cut.choice)
        state = dict(epoch.stable)
        apply(ground.base, state, epoch.unflushed, choice)
        yield Reached(played, epoch, choice, state)


def _tell_cut(base: Base, reached: Reached, which: str) -> Iterator[str]:
    played, position = reached.played, reached.epoch.position
    yield f"{which} during: {played.under_way(max(position - 1, 0))} (entry {position} of the device's log)"
    synced = played.last_synced(position)
    label = f"the first {synced} of {len(played.moments) - 1} operations" if synced else "nothing but what there was at the start"
    yield f"  promised by then: {label}"
    yield from tell_writes(base, reached.epoch.unflushed, reached.choice)


def tell_writes(base: Base, unflushed: Unflushed, choice: Choice) -> Iterator[str]:
    """Yield what became of each write that no flush had covered, a line each."""
    device = MemoryDevice(len(base.image))
    device.write(0, base.image)
    geometry = geometry_of(newest(device))
    for number, did in enumerate(unflushed.writes, 1):
        arrived = [sector for sector, version in did.items() if choice.get(sector, 0) == version]
        what = "arrived" if len(arrived) == len(did) else "was lost" if not arrived else "was torn"
        first = min(did) * SECTOR_BYTES // geometry.block_bytes
        yield f"  write {number}, {place_of(geometry, first)}: {len(did)} changed sectors, {what}" + (
            f" (sectors {', '.join(map(str, arrived))} arrived)" if what == "was torn" else ""
        )


def place_of(geometry: Geometry, block: int) -> str:
    """Return in words what lies at *block*."""
    if block < 2:
        return f"superblock slot {'AB'[block]}"
    if block in geometry.backups:
        return f"superblock backup at block {block}"
    if geometry.journal_start <= block < geometry.journal_start + geometry.journal_bytes // geometry.block_bytes:
        return f"journal at block {block}"
    return f"space map at block {block}" if block < geometry.journal_start else f"tree or data at block {block}"


def format_cuts(cuts: tuple[PowerCut, ...]) -> str:
    """Return power cuts as they are typed: ``6:48=1,49=1/3:``, position and the sectors that arrived, with their versions."""
    return "/".join(f"{cut.position}:" + ",".join(f"{sector}={version}" for sector, version in cut.choice) for cut in cuts)


def parse_cuts(text: str) -> tuple[PowerCut, ...]:
    """Return the power cuts that *text* describes. Raises UsageError."""
    cuts = []
    try:
        for part in text.split("/"):
            position, _, sectors = part.partition(":")
            pairs = [pair.split("=") for pair in sectors.split(",") if pair]
            cuts.append(PowerCut(int(position), tuple((int(sector), int(version)) for sector, version in pairs)))
    except ValueError:
        raise UsageError(f"{text}: power cuts are written as a violation shows them, for example 6:48=1,49=1") from None
    return tuple(cuts)


def repeat(explorer: Explorer, text: str, cuts: tuple[PowerCut, ...]) -> Violation | None:
    """Return the violation that *cuts* in the workload *text* lead to, None if all is well there."""
    ground = explorer.ground
    *_, last = reach(ground, text, cuts)
    reasons = reasons_against(explorer.judge(last.state), last.played.allowed(last.epoch.position))
    return Violation(ground.name, text_of(parse(text)), cuts, reasons) if reasons else None
