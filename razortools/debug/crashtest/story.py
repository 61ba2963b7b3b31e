"""Stories: a violation made small and told so that a person can follow it and repeat it."""

from collections.abc import Iterator
from itertools import count

from razortools.debug.crashtest.disks import State
from razortools.debug.crashtest.explorer import Explorer, PowerCut, Violation, apply, epochs, reasons_against
from razortools.debug.crashtest.operations import parse, text_of
from razortools.debug.crashtest.playing import Ground, Played, play, play_recovery
from razortools.debug.crashtest.workloads import numbered
from razortools.engine.store.device import MemoryDevice
from razortools.engine.store.powercut import SECTOR_BYTES, Unflushed
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
    state: State = {}
    played = play(ground, numbered(violation.workload)) if violation.cuts else None
    for number, cut in enumerate(violation.cuts):
        assert played is not None
        if number:
            played = play_recovery(ground.base, state)
        state = _arrive(ground, played, state, cut)
        lines += _tell_cut(ground, played, cut, number, len(violation.cuts), _start_of(ground, violation, number))
    lines += ["found:", *(f"  {reason}" for reason in violation.reasons)]
    command = f"razorfs-debug crashtest --seed {seed} --ground {violation.ground} --workload '{violation.workload}'"
    if violation.cuts:
        command += f" --crash '{format_cuts(violation.cuts)}'"
    return [*lines, f"repeat: {command}"]


def _start_of(ground: Ground, violation: Violation, number: int) -> State:
    """Return the state of the disk before the history that cut *number* ended."""
    state: State = {}
    for before in range(number):
        played = play_recovery(ground.base, state) if before else play(ground, numbered(violation.workload))
        state = _arrive(ground, played, state, violation.cuts[before])
    return state


def _arrive(ground: Ground, played: Played, start: State, cut: PowerCut) -> State:
    """Return the state that *cut* leaves of a disk that was in state *start*."""
    for epoch in epochs(ground.base, start, played.log):
        if epoch.position == cut.position:
            state = dict(epoch.stable)
            apply(ground.base, state, epoch.unflushed, dict(cut.choice))
            return state
    raise UsageError(f"there is no flush at position {cut.position} of this history")


def _tell_cut(ground: Ground, played: Played, cut: PowerCut, number: int, cuts: int, start: State) -> Iterator[str]:
    which = f"power cut {number + 1} of {cuts}" if cuts > 1 else "power cut"
    yield f"{which} during: {played.under_way(max(cut.position - 1, 0))} (entry {cut.position} of the device's log)"
    synced = played.last_synced(cut.position)
    label = f"the first {synced} of {len(played.moments) - 1} operations" if synced else "nothing but what there was at the start"
    yield f"  promised by then: {label}"
    for epoch in epochs(ground.base, start, played.log):
        if epoch.position == cut.position:
            yield from _tell_writes(ground, epoch.unflushed, dict(cut.choice))


def _tell_writes(ground: Ground, unflushed: Unflushed, choice: dict[int, int]) -> Iterator[str]:
    geometry = geometry_of(newest(_whole(ground)))
    for at, did in enumerate(unflushed.writes):
        arrived = [sector for sector, version in did.items() if choice.get(sector) == version]
        what = "arrived" if len(arrived) == len(did) else "was lost" if not arrived else "was torn"
        first = min(did) * SECTOR_BYTES // geometry.block_bytes
        yield f"  write {at + 1}, {place_of(geometry, first)}: {len(did)} changed sectors, {what}" + (
            f" (sectors {', '.join(map(str, arrived))} arrived)" if what == "was torn" else ""
        )


def _whole(ground: Ground) -> MemoryDevice:
    device = MemoryDevice(len(ground.base.image))
    device.write(0, ground.base.image)
    return device


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
    state: State = {}
    played = play(ground, numbered(text))
    for number, cut in enumerate(cuts):
        if number:
            played = play_recovery(ground.base, state)
        state = _arrive(ground, played, state, cut)
    reasons = reasons_against(explorer.judge(state), played.allowed(cuts[-1].position))
    return Violation(ground.name, text_of(parse(text)), cuts, reasons) if reasons else None


