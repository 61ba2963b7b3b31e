"""The reference: what a user has before a repair, with which the result is compared.

Usually that is the image as the next mount shows it. Where the newest superblock has a wrong bit, or the journal cannot be
replayed for damage elsewhere, a check can look at an older state only. Files that have changed since then are no loss of the
repair, so the reference is the newest state that can be reached without touching a single item. It is never older than what is
believed on the untouched device: whoever believes an old superblock instead has to answer for what that forgets.
"""

from collections.abc import Sequence
from itertools import takewhile

from razortools.check.problems import REPLAY_FAILED
from razortools.check.repair.bench import Bench
from razortools.check.repair.edits import IN_PLACE, Edit, Round, Verb
from razortools.check.repair.superblock_copies import rolls_back
from razortools.check.repair.surveying import believed
from razortools.check.report import Report
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice

_CHANGES_THE_STATE = frozenset((Verb.MEND, Verb.SUPERBLOCK, Verb.FLIP))


def reference(device: Device, before: Report, rounds: Sequence[Round], backup_block: int | None) -> Device:
    """Return a device that shows the state to compare with; *device* itself is only read."""
    first = list(takewhile(lambda edits: all(edit.verb in IN_PLACE for edit in edits), rounds))
    stuck = any(finding.code == REPLAY_FAILED.code for finding in before.findings)
    if not stuck and not any(edit.verb in _CHANGES_THE_STATE for edits in first for edit in edits):
        return device
    shown = OverlayDevice(device)
    bench = Bench(shown, backup_block)
    try:
        for edits in first:
            bench.apply(edits)
        if stuck:
            bench.apply((Edit(verb=Verb.FRAME, code=REPLAY_FAILED.code, why="replay the journal with a right space map"),))
    except Exception:  # as in a round of the repair: then nothing newer can be reached without changing items
        return device
    return device if _is_older(device, first, backup_block) else shown


def _is_older(device: Device, rounds: Sequence[Round], backup_block: int | None) -> bool:
    """Return whether *rounds* lead to an older superblock than the one that is believed without them."""
    named = {edit.field: edit.value for edits in rounds for edit in edits if edit.verb is Verb.SUPERBLOCK}
    generation = named.get("generation")
    facts = believed(device, backup_block) if "root" in named and isinstance(generation, int) else None
    return facts is not None and rolls_back(device, facts.image.superblock, int(str(generation)))
