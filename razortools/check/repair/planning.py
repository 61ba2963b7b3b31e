"""Planning: which planner answers which finding. One table by code, and one by Repair kind for the codes that are not in it.

Planners run in the order of ORDER: what others need comes first, what is only needed when nothing else helped comes last.
"""

from collections.abc import Callable, Iterable

from razortools.check.findings import Finding, Repair, Severity
from razortools.check.problems import ERRORS_RECORDED, PROBLEMS
from razortools.check.repair import (
    plan_attributes,
    plan_contents,
    plan_counts,
    plan_data,
    plan_frame,
    plan_inodes,
    plan_items,
    plan_journal,
    plan_links,
    plan_names,
    plan_nodes,
    plan_superblock,
)
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import IN_PLACE, Round, Verb
from razortools.check.repair.evidence import orphaned_blocks, unfound_blocks

Planner = Callable[[Draft, Finding], None]

BY_KIND: dict[Repair, Planner] = {
    Repair.REPLAY: plan_journal.replay,
    Repair.CUT_JOURNAL: plan_journal.replay,
    Repair.REWRITE_COPY: plan_frame.frame,
    Repair.RESET_STATE: plan_frame.frame,
    Repair.FREE_BLOCKS: plan_frame.frame,
    Repair.MARK_USED: plan_frame.frame,
    Repair.REBUILD_MAP: plan_frame.frame,
    Repair.RECOUNT: plan_frame.frame,
    Repair.REBUILD_TREE: plan_nodes.rebuild,
    Repair.DROP_ITEM: plan_items.drop,
    Repair.CUT_OUT: plan_data.broken,
    Repair.REWRITE_CHECKSUM: plan_data.checked_anew,
    Repair.GIVE_BACK: plan_data.given_back,
    Repair.DROP_NAME: plan_names.unused,
}
BY_CODE: dict[str, Planner] = {
    "E0102": plan_superblock.wrong_field,
    "E0204": plan_journal.senseless,
    "E0210": plan_journal.hidden,
    "E0301": plan_nodes.copy,
    "E0302": plan_nodes.lost,
    "E0306": plan_items.unknown,
    "E0307": plan_items.malformed,
    "E0308": plan_inodes.missing,
    "E0309": plan_inodes.field,
    "E0311": plan_attributes.attribute,
    "E0312": plan_attributes.attribute_flag,
    "E0313": plan_inodes.root,
    "E0314": plan_items.orphan,
    "E0318": plan_links.unreachable,
    "E0319": plan_items.patch,
    "E0401": plan_counts.link_count,
    "E0402": plan_links.dangling,
    "E0403": plan_links.entry_unconfirmed,
    "E0404": plan_links.back_link_unconfirmed,
    "E0405": plan_links.entry_type,
    "E0406": plan_links.name_missing,
    "E0407": plan_links.misfiled,
    "E0408": plan_links.duplicate,
    "E0409": plan_counts.directory_size,
    "E0410": plan_links.unreachable,
    "E0411": plan_links.cycle,
    "E0412": plan_links.two_parents,
    "E0413": plan_links.not_a_directory,
    "E0414": plan_counts.link_number,
    "E0502": plan_data.shared,
    "E0504": plan_data.wrong_field,
    "E0505": plan_contents.beyond_end,
    "E0506": plan_contents.stored_blocks,
    "E0516": plan_contents.late_flag,
    "E0517": plan_inodes.record_size,
    "E0507": plan_contents.wrong_content,
    "E0601": plan_names.reference_count,
    "E0603": plan_names.impossible,
    "E0703": plan_contents.inline_broken,
    "E0704": plan_superblock.unannounced,
    "E0803": plan_nodes.copy,
    "E0804": plan_nodes.copy,
}
ORDER = {
    "E0204": -1,  # what the journal was meant to bring is there for all others
    "E0313": 0,  # the root: lost+found lies in it
    "E0306": 0,  # what is put where it belongs is missing to nobody
    "E0517": 1,  # by this it is known where data belong
    "E0308": 1,  # missing inodes: names may lead to them again
    "E0307": 1,
    "E0413": 2,  # what is a directory after all
    "E0502": 3,  # shared blocks: those who do not own them must not keep them
    "E0603": 4,
    "E0406": 4,
    "E0414": 4,
    "E0407": 4,
    "E0403": 5,  # lost names, before names that lead nowhere are removed and files go to lost+found
    "E0404": 6,
    "E0402": 8,
    "E0411": 9,
    "E0410": 10,
    "E0318": 10,
    "E0601": 11,  # by then it is known who uses a name
    "E0602": 11,
}
USUAL_ORDER = 7
_OF_THE_JOURNAL = (Repair.CUT_JOURNAL, Repair.REPLAY_AS_MEANT)
_MARK = ERRORS_RECORDED.code
_BELOW_THE_TREE = frozenset((Verb.FRAME, Verb.MEND, Verb.SUPERBLOCK, Verb.REPLAY, Verb.COPY, Verb.FLIP, Verb.ADOPT, Verb.REBUILD))


def planner_of(finding: Finding) -> Planner | None:
    """Return who plans what to do about *finding*, or None if nothing can be done."""
    return BY_CODE.get(finding.code) or BY_KIND.get(PROBLEMS[finding.code].repair)


def plan(draft: Draft, findings: Iterable[Finding], choose: Callable[[Finding], bool]) -> Round:
    """Return the edits for those *findings* that *choose* takes; for a careful draft, of answers that destroy nothing only."""
    findings = list(findings)
    if any(PROBLEMS[one.code].repair in _OF_THE_JOURNAL and not choose(one) for one in findings):
        return ()  # whatever is written, the journal is replayed before: with what is wrong in it, that is not wanted
    draft.lost_blocks = unfound_blocks(findings)
    draft.orphaned = orphaned_blocks(findings)
    draft.lost_names |= {one.path: int(one.inode or 0) for one in findings if one.code == "E0404" and one.path is not None}
    for finding in sorted(findings, key=lambda one: ORDER.get(one.code, USUAL_ORDER)):
        planner = planner_of(finding)
        if finding.severity > Severity.NOTE and planner is not None and choose(finding):
            draft.answer(finding)
            planner(draft, finding)
            if draft.is_careful and not draft.is_harmless:
                draft.take_back()
    edits = [edit for edit in draft.edits if edit.verb in IN_PLACE] if draft.in_place_first else draft.edits
    if {edit.code for edit in edits} == {_MARK} and any(one.severity > Severity.NOTE and one.code != _MARK for one in findings):
        return ()  # the mark that a check is due goes when nothing else is left
    if not draft.tree.is_whole or any(edit.verb is Verb.REBUILD for edit in edits):
        # Items can be changed when the tree is whole; what was found in a part of it may look otherwise then.
        edits = [edit for edit in edits if edit.verb in _BELOW_THE_TREE]
    return tuple(edits)
