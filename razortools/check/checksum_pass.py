"""Phase 8: checksums. Reports the data whose checksum is wrong, and verifies every second copy that nobody has read yet.

With the phases before it, every byte in use has then been compared with a checksum that is stored apart from it.
"""

from collections.abc import Generator, Iterator

from razortools.check import problems
from razortools.check.checkpoint import judge_checkpoint
from razortools.check.compression_pass import CHECKSUM_FAULTS, damaged_record, record_words
from razortools.check.contents import verify
from razortools.check.facts import ContentFacts, DamagedRecord, InodeFacts, JournalFacts
from razortools.check.findings import Event, Finding, Progress
from razortools.check.paths import Paths
from razortools.check.tree import TreeIndex, second_copies

PROGRESS_STEP = 64  # nodes


def check(
    journal: JournalFacts, facts: InodeFacts, contents: ContentFacts | None, selected: bytearray | None, threads: int
) -> Generator[Event, None, int]:
    """Judge all checksums; return how many. *contents* None: the compression pass did not run, so the data are read here."""
    paths = Paths(facts.tree)
    count = len(facts.tree.addresses)
    if contents is not None:
        count += contents.record_count
        for number, damaged in enumerate(contents.damaged):
            if number % PROGRESS_STEP == 0:
                yield Progress(number, 2 * len(contents.damaged))
            yield _finding(facts, paths, damaged)
        if contents.more_damaged:
            yield problems.further(8, problems.DATA_CHECKSUM.code, contents.more_damaged)
    else:
        for batch in verify(facts, selected, threads, decompress=False):
            yield Progress(batch.leaf, 2 * facts.tree.leaf_count)
            count += len(batch.records)
            for broken in batch.broken:
                if broken.fault in CHECKSUM_FAULTS:
                    yield _finding(facts, paths, damaged_record(broken))
    yield from _judge_copies(facts.tree)
    if journal.is_replayed:
        yield from judge_checkpoint(journal.on_device)
    return count + len(facts.tree.unread_mirrors)


def _finding(facts: InodeFacts, paths: Paths, damaged: DamagedRecord) -> Finding:
    what, where, byte_range = record_words(facts, damaged.key)
    path = paths.of(damaged.inode)
    if damaged.is_cut_out:
        return problems.CUT_OUT_WHOLE.found(
            inode=damaged.inode, what=what, path=path, where=where, byte_range=byte_range, key=damaged.key
        )
    if damaged.reason:
        return problems.DATA_UNREADABLE.found(
            inode=damaged.inode, what=what, reason=damaged.reason, path=path, where=where, byte_range=byte_range, key=damaged.key
        )
    problem = problems.SECOND_CHECKSUM if damaged.is_readable else problems.DATA_CHECKSUM
    return problem.found(
        inode=damaged.inode, what=what, found=damaged.found, expected=damaged.expected, path=path, where=where,
        byte_range=byte_range, key=damaged.key,
    )  # fmt: skip


def _judge_copies(tree: TreeIndex) -> Iterator[Event]:
    """Verify the second copies of the nodes whose first copy was good."""
    total = len(tree.unread_mirrors)
    for number, block, reason in second_copies(tree):
        if number % PROGRESS_STEP == 0:
            yield Progress(total + number, 2 * total)
        if reason:
            yield problems.COPY_CHECKSUM.found(block=block, reason=reason)
