"""What razorfsck --compact has to tell: what was gained, what was left and why; and the offer that a look makes."""

from collections.abc import Iterator

from razortools.check.compact.compact import Compacted, in_words
from razortools.check.compact.plan import Plan
from razortools.check.findings import Severity
from razortools.check.report import Report
from razortools.cli import render
from razortools.cli.fsck_screen import Screen
from razortools.units import format_size, plural


def show_compaction(screen: Screen, done: Compacted, report: Report) -> None:
    """Show what came of a compaction."""
    if done.refused and report.worst is not Severity.FATAL:
        changed = f"stopped after {plural(done.step_count, 'step')}" if done.step_count else "nothing was changed"
        render.error(f"razorfsck: {report.image}: {changed}: {done.refused}")
    if not done.refused or done.step_count:
        for line in _gain(done, report.image):
            screen.say(line)
    screen.end(report)


def _gain(done: Compacted, image: str) -> Iterator[str]:
    """Yield the lines about what was gained."""
    before, after = done.layout_before, done.layout_after
    assert before is not None and after is not None
    yield ""
    if not done.step_count:
        yield "There is nothing to compact" if not _left(done) else "There is something to compact, but no room to do it in"
    else:
        yield f"Compacted: {format_size(done.freed_bytes)} freed"
        yield f"      nodes: {before.node_count:,} before, {after.node_count:,} now"
        yield f"      leaves: {before.leaf_fill:.0%} full before, {after.leaf_fill:.0%} now"
        moved = format_size(done.moved_bytes)
        yield f"      fragments: {before.fragment_count:,} before, {after.fragment_count:,} now; {moved} moved"
        yield f"      strings: {before.string_count:,} before, {after.string_count:,} now"
        largest = format_size(before.largest_free_bytes), format_size(after.largest_free_bytes)
        yield f"      largest free run: {largest[0]} before, {largest[1]} now"
    if _left(done):
        yield f"      left, for want of free room: {_left(done)}"
    if done.is_cut_short:
        yield f"      there is more to do: run razorfsck --compact {image} again"
    if done.step_count:
        yield f"razorfsck --undo {image} takes {_what(done)} back, as long as {done.undo_path} is kept"


def _left(done: Compacted) -> str:
    """Return what there was no room for."""
    left = ((done.fragments_left, "fragment", "join"), (done.nodes_left, "node", "save"))
    return ", ".join(f"{plural(count, noun)} to {verb}" for count, noun, verb in left if count)


def _what(done: Compacted) -> str:
    return "it" if done.step_count == 1 else f"the last of {done.step_count} steps"


def show_offer(screen: Screen, plan: Plan, image: str) -> None:
    """Say that a compaction would pay."""
    saved = f"; that frees {format_size(plan.saved_bytes)}" if plan.nodes_saved > 0 else ""
    screen.say(f"razorfsck --compact {image} would {in_words(plan)}{saved}")


def offer_as_json(plan: Plan) -> dict[str, int]:
    """Return what --json tells of an offer."""
    return {
        "would_join_fragments": plan.fragments_joined,
        "would_save_nodes": max(plan.nodes_saved, 0),
        "would_drop_strings": plan.strings.dropped_count,
        "would_free_bytes": max(plan.saved_bytes, 0),
        "would_move_bytes": plan.moved_bytes,
    }
