"""Phase 2: the journal. Verifies the entries that wait for replay; hands on the image as the next mount will see it.

The replay happens in memory, by the store's own recovery over an overlay; the device is not written. If it fails, the last
checkpoint is handed on instead, so that the other phases still have something to judge.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from razortools.check import problems
from razortools.check.facts import JournalFacts, SuperblockFacts
from razortools.check.findings import Event, Finding, Progress
from razortools.check.image import Image
from razortools.check.journal_rules import (
    RING_END,
    Chain,
    Entry,
    Ring,
    commit_faults,
    entry_faults,
    following,
    read_entries,
    reading,
)
from razortools.engine.store.journal_reader import STEP_ENTRIES
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.powercut import SECTOR_BYTES
from razortools.engine.store.recovery import opening
from razortools.errors import DeviceFailed
from razortools.format.geometry import geometry_of
from razortools.format.journal import COMMIT_BYTES, JournalCommit, Operation
from razortools.format.superblock import State, Superblock
from razortools.steps import finished, mapped
from razortools.units import MIB, BlockNo, round_up

LOOK_BYTES_MAX = 64 * MIB  # of the journal of an image in use that are read at once
LOOK_CHUNK_BYTES = 1 * MIB
REPLAY_CACHE_BYTES = 32 * MIB  # nodes in memory while the journal is replayed

Result = TypeVar("Result")


class _Walk:
    """How far the journal is through. The whole is three times the ring: judged, searched behind its end, replayed."""

    def __init__(self, image: Image) -> None:
        self._tail = image.superblock.journal_tail
        self._ring_bytes = image.geometry.journal_bytes

    def _at(self, done: float) -> Progress:
        return Progress(int(done), 3 * self._ring_bytes)

    def read(self, start: int, position: int) -> Progress:
        """Return the progress of who has read the transaction at *start* up to *position*: one half, to judge it is the other."""
        return self._at(start - self._tail + (position - start) / 2)

    def judged(self, start: int, end: int, position: int) -> Progress:
        """Return the progress of who has judged the transaction from *start* to *end* up to *position*."""
        return self._at(start - self._tail + (end - start + position - start) / 2)

    def searched(self, searched_bytes: int) -> Progress:
        """Return the progress of who has looked for later transactions in so much of the ring."""
        return self._at(self._ring_bytes + min(searched_bytes, self._ring_bytes))

    def replayed(self, share: float) -> Progress:
        """Return the progress of a replay."""
        return self._at((2 + share) * self._ring_bytes)


def check(facts: SuperblockFacts) -> Generator[Event, None, JournalFacts]:
    """Judge the journal and replay it in memory."""
    image = facts.image
    ring = Ring(image)
    transactions = entries = 0
    position, sequence = image.superblock.journal_tail, image.superblock.journal_sequence
    number = image.superblock.transaction
    before: Entry | None = None
    chain = Chain()
    walk = _Walk(image)
    while True:
        found, reason = yield from _read(ring, walk, position, sequence)
        if not _is_complete(found):
            break
        if before is not None:
            yield from _judge_padding(ring, before, flushed=True)
        before = found[-1]
        yield from _judge(ring, chain, walk, position, found, number)
        number = found[-1].head.transaction
        transactions += 1
        entries += _count(found)
        sequence = found[-1].head.sequence + 1
        position = ring.block_after(found[-1])
    if before is not None:
        yield from _judge_padding(ring, before, flushed=False)
    yield from _judge_end(ring, walk, position, sequence, found, reason)
    if _is_blank(ring, image.superblock):
        yield _blank(ring, image.superblock)
    if not transactions and image.superblock.state != State.CLEAN:
        yield from _judge_hidden(ring, image.superblock)
    if transactions:
        problem = problems.CLEAN_WITH_ENTRIES if image.superblock.state == State.CLEAN else problems.REPLAY_PENDING
        yield problem.found(block=ring.block_of(image.superblock.journal_tail), count=transactions)
    view = image
    if transactions:
        try:
            view, dropped = yield from mapped(recovering(image), walk.replayed)
            if dropped:
                yield problems.TORN_TAIL.found(where="journal", reason="the data that it names never arrived", count=dropped)
        except Exception as failed:
            # The store trusts what verifies; on a damaged tree it may stop in any way. The check goes on without it.
            yield problems.REPLAY_FAILED.found(where="journal", reason=str(failed) or type(failed).__name__)
    return JournalFacts(view, image, entries)


def look(facts: SuperblockFacts, has_written: Callable[[], bool]) -> Generator[Event, None, JournalFacts]:
    """Judge the journal of an image that is in use, which grows meanwhile. The view that is handed on is the last checkpoint's.

    It is judged as it was when it was read at once. What verifies then is there to stay. Where that ends the next transaction may
    be on its way, so nothing can be told of it; unless a later one is there already, which is only written when this one is. Once
    the next checkpoint *has_written* anything, the place is used again, and what stands there means nothing any more.
    """
    image = facts.image
    ring = Ring(_with_journal_kept(image))
    chain = Chain()
    transactions = entries = 0
    position, sequence = image.superblock.journal_tail, image.superblock.journal_sequence
    number = image.superblock.transaction
    faults: list[Finding] = []
    walk = _Walk(image)
    while True:
        found, reason = yield from _read(ring, walk, position, sequence)
        if not _is_complete(found):
            break
        for event in _judge(ring, chain, walk, position, found, number):
            if isinstance(event, Progress):
                yield event
            else:
                faults.append(event)
        number = found[-1].head.transaction
        transactions += 1
        entries += _count(found)
        sequence = found[-1].head.sequence + 1
        position = ring.block_after(found[-1])
    proof = yield from mapped(_later_transaction(ring, position, sequence), walk.searched)
    # What the later one says was safe had arrived when that was read, so it is there now.
    is_safe = proof is not None and proof.flushed_sequence >= sequence
    if is_safe and not _is_complete(read_entries(Ring(image), position, sequence)[0]):
        stop, at = (found[-1].head.sequence + 1, found[-1].end) if found else (sequence, position)
        faults.append(problems.JOURNAL_DAMAGED.found(block=ring.block_of(at), sequence=stop, reason=reason))
    if _is_blank(ring, image.superblock):
        faults.append(_blank(ring, image.superblock))
    if faults and not has_written():
        yield from faults
    if transactions:
        yield problems.COMMITTED_SINCE.found(where="journal", count=transactions)
    return JournalFacts(image, image, entries)


def _with_journal_kept(image: Image) -> Image:
    """Return the image with the first part of its journal in memory, as it is now."""
    kept = OverlayDevice(image.device)
    start, ring_bytes = image.geometry.journal_start * image.block_bytes, image.geometry.journal_bytes
    position, end = image.superblock.journal_tail, image.superblock.journal_tail + min(ring_bytes, LOOK_BYTES_MAX)
    while position < end:
        offset = position % ring_bytes
        count = min(LOOK_CHUNK_BYTES, end - position, ring_bytes - offset)
        with suppress(DeviceFailed):  # reading it later will tell
            kept.write(start + offset, kept.read(start + offset, count))
        position += count
    return replace(image, device=kept)


def _read(ring: Ring, walk: _Walk, position: int, sequence: int) -> Generator[Progress, None, tuple[list[Entry], str]]:
    """Return what reading() does."""
    yield walk.read(position, position)
    return (yield from mapped(reading(ring, position, sequence), lambda reached: walk.read(position, reached)))


def _is_complete(found: list[Entry]) -> bool:
    """Return whether the entries are a transaction to its end."""
    return bool(found) and found[-1].head.operation == Operation.COMMIT


def recovered_view(image: Image) -> tuple[Image, int]:
    """Return (the image after the replay, in an overlay; how many transactions it dropped). Raises what recovery raises."""
    return finished(recovering(image))


def recovering(image: Image) -> Generator[float, None, tuple[Image, int]]:
    """Do what recovered_view() does; yield how far it is, from 0 to 1."""
    looking = OverlayDevice(image.device)
    looking.read_only = True
    store, recovered = yield from opening(looking, metadata_cache_bytes=REPLAY_CACHE_BYTES)
    return Image(store.device, store.superblock, geometry_of(store.superblock)), recovered.discarded


def _judge(ring: Ring, chain: Chain, walk: _Walk, start: int, found: list[Entry], number: int) -> Iterator[Event]:
    """Yield what is wrong with a complete transaction although its checksums hold. *found*: as read_entries() returns it."""
    first, last = found[0], found[-1]
    is_one = True
    for entry in _all_of(ring, found):
        if not entry.head.sequence % STEP_ENTRIES:
            yield walk.judged(start, last.end, entry.position)
        is_one = is_one and entry.head.transaction == last.head.transaction
        if entry.head.operation == Operation.COMMIT:
            break
        for fault in (*entry_faults(entry), *chain.faults(entry)):
            yield problems.JOURNAL_FIELD.found(
                block=ring.block_of(entry.position), sequence=entry.head.sequence, reason=fault, key=entry.head.key
            )
    block = ring.block_of(last.position)
    for field, value, expected in commit_faults(ring, first, last, number, is_one=is_one):
        yield problems.COMMIT_WRONG.found(block=block, sequence=last.head.sequence, field=field, value=value, expected=expected)


def _all_of(ring: Ring, found: list[Entry]) -> Iterable[Entry]:
    """Return all entries of a complete transaction, of which reading has kept *found*: they are read again if that is not all."""
    first = found[0]
    return found if _count(found) == len(found) else following(ring, first.position, first.head.sequence)


def _count(found: list[Entry]) -> int:
    """Return how many entries a complete transaction has, of which reading has kept *found*."""
    return found[-1].head.sequence - found[0].head.sequence + 1


def _judge_padding(ring: Ring, last: Entry, *, flushed: bool) -> Iterator[Finding]:
    """Yield what stands where the transaction that ends with *last* has only zeros.

    A power cut may have kept whole sectors from arriving, over what stood there before, if no flush followed. The sector that the
    commit entry ends in is known to be new if the whole entry lies in it; its last bytes alone may be what was there.
    """
    behind = last.position + COMMIT_BYTES
    end = ring.block_after(last) if flushed else round_up(behind, SECTOR_BYTES)
    if not flushed and last.position < end - SECTOR_BYTES:
        return
    stray = ring.read(behind, end - behind)
    if any(stray):
        yield problems.JOURNAL_PADDING.found(block=ring.block_of(behind), count=len(stray) - stray.count(0))


def _judge_end(
    ring: Ring, walk: _Walk, position: int, sequence: int, found: list[Entry], reason: str
) -> Generator[Event, None, None]:
    """Yield what the place where the journal ends means: its end, a torn commit, or damage."""
    stop = found[-1].head.sequence + 1 if found else sequence
    at = found[-1].end if found else position
    proof = yield from mapped(_later_transaction(ring, position, sequence), walk.searched)
    block = BlockNo(ring.block_of(at))
    if (proof is not None and proof.flushed_sequence >= sequence) or ring.is_rotten(at, stop, found[-1] if found else None):
        reason = "it is missing, but later ones are there" if reason == RING_END else reason
        yield problems.JOURNAL_DAMAGED.found(block=block, sequence=stop, reason=reason)
    elif reason == RING_END:
        return
    elif found or ring.looks_like(position, sequence):
        yield problems.TORN_TAIL.found(block=block, reason=reason)


def _is_blank(ring: Ring, superblock: Superblock) -> bool:
    """Return whether the journal of an image in use holds no entry of whatever age, although it has been written to.

    Old entries stay until the ring comes round. Where the ring begins anew the tail is 0, see Journal.begin_anew(). The first
    block mkfs takes, and does not write.
    """
    if superblock.state == State.CLEAN or superblock.journal_tail <= superblock.block_bytes:
        return False
    return all(isinstance(ring.entry(position), str) for position in ring.entry_starts(superblock.journal_tail))


def _blank(ring: Ring, superblock: Superblock) -> Finding:
    """Return the finding that nothing is left of the journal."""
    tail = superblock.journal_tail
    reason = f"nothing is left in the journal, where {tail} bytes have been written; nobody can tell what was committed last"
    return problems.JOURNAL_DAMAGED.found(block=ring.block_of(tail), sequence=superblock.journal_sequence, reason=reason)


def _judge_hidden(ring: Ring, superblock: Superblock) -> Iterator[Finding]:
    """Yield that what waits at the journal's tail is not what the superblock expects there.

    Only an older entry can: a newer one there tells that the checkpoint that names it is lost, and is missing what that one had.
    What was given up there before the checkpoint has no later number than it, see recovery.skip_unfinished(). What the ring's
    round before has left there leads once around the ring, or is older than what stands elsewhere in it.
    """
    tail = superblock.journal_tail
    first = ring.entry(tail)
    if isinstance(first, str) or first.head.sequence >= superblock.journal_sequence:
        return
    if first.head.transaction <= superblock.transaction:
        return
    end, sequence = tail, first.head.sequence
    while end - tail < ring.bytes and _is_complete(waiting := read_entries(ring, end, sequence)[0]):
        end, sequence = ring.block_after(waiting[-1]), waiting[-1].head.sequence + 1
    others = (ring.entry(position) for position in ring.entry_starts(end))
    if 0 < end - tail < ring.bytes and all(isinstance(entry, str) or entry.head.sequence <= sequence for entry in others):
        yield problems.JOURNAL_HIDDEN.found(
            block=ring.block_of(tail),
            expected=superblock.journal_sequence,
            sequence=first.head.sequence,
            number=first.head.transaction,
        )


def _later_transaction(ring: Ring, stop: int, sequence: int) -> Generator[int, None, JournalCommit | None]:
    """Return the commit entry of a complete transaction behind *stop* that is newer than *sequence*, or None.

    Its flushed sequence tells whether the entry *sequence* had been safe when it was written. Yields how far it is, in bytes.
    """
    newest: JournalCommit | None = None
    behind = stop  # what was read already: an entry in the middle of it leads to the same commit entry
    for position in ring.entry_starts(stop):
        yield max(position, behind) - stop
        entry = ring.entry(position) if position >= behind else ""
        if isinstance(entry, str) or entry.head.sequence <= sequence:
            continue
        found, _ = yield from mapped(reading(ring, position, entry.head.sequence), lambda reached: reached - stop)
        behind = found[-1].end if found else position
        if found and found[-1].head.operation == Operation.COMMIT and len(found[-1].redo) == JournalCommit.FIXED_BYTES:
            commit = JournalCommit.decode(found[-1].redo)
            if newest is None or commit.flushed_sequence > newest.flushed_sequence:
                newest = commit
    return newest
