"""A newer state than any superblock tells of: its root is found when every newest superblock is lost.

A tree is written before the superblock that names it, and nothing is written for the next generation before that. So a whole tree
that is younger than every superblock is a state that the filesystem was in, later than all that they name, and it holds whatever
was safe. If it is younger by two generations, a superblock must have been lost; if by one, a crash may have kept it from being
named, and the data as well from arriving. Then it is believed only if all its data verify, or if the journal, which would tell as
much, is damaged. Always the volume's counters must say what can be counted.

Where its journal begins, the superblock told as well. Replaying from anywhere before is right only if the tree is not newer than
what is replayed; so the values before and after of the last transactions are compared with the tree.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from razortools.check.findings import Progress
from razortools.check.image import Image
from razortools.check.journal_rules import Ring
from razortools.check.repair.forged import without_forged
from razortools.check.repair.survey import item_runs, item_verifies
from razortools.check.repair.surveying import Survey, owned, survey
from razortools.check.scan import FoundNode, scan_nodes
from razortools.check.steps import finished
from razortools.check.tree import kinds_mask
from razortools.engine.store.device import Device
from razortools.engine.store.journal_reader import JournalReader, JournalScan, LoggedTransaction, journal_seed
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import CUT_OUT
from razortools.format.geometry import geometry_of
from razortools.format.journal import ENTRY_HEAD_BYTES
from razortools.format.keys import HIGHEST_KEY, KIND_AT, LOWEST_KEY, Kind
from razortools.format.superblock import Superblock

GENERATION_MAX = 1 << 62
ROOTS_MAX = 3  # that are looked at closely; each costs a check of all data
BAD_MIN = 8  # records that do not verify; with more than that, and more than do, a tree was given up long ago
NODES_MAX = 200_000  # that are remembered, some 100 MB


@dataclass(frozen=True, slots=True)
class Younger:
    """What is younger than every superblock. *generation*: of the youngest node; 0: there is none."""

    generation: int = 0
    superblock: Superblock | None = None  # for the newest state that is there as a whole


def find_younger(device: Device, truth: Superblock, *, journal_is_damaged: bool) -> Younger:
    """Return what is there that *truth*, the newest superblock there is, does not know of."""
    return finished(finding_younger(device, truth, journal_is_damaged=journal_is_damaged))


def finding_younger(device: Device, truth: Superblock, *, journal_is_damaged: bool) -> Generator[Progress, None, Younger]:
    """Do what find_younger() does; yield how far the scan for it is."""
    image = Image(device, truth, geometry_of(truth))
    nodes = yield from _younger_nodes(image)
    youngest = max((node.pointer.generation for node in nodes), default=0)
    for root in [node for node in nodes if (node.low, node.high) == (LOWEST_KEY, HIGHEST_KEY)][:ROOTS_MAX]:
        named = replace(truth, generation=root.pointer.generation, root=root.pointer, root_level=root.level)
        is_proven = named.generation > truth.generation + 1 or journal_is_damaged
        seen = _whole(Image(device, named, image.geometry), with_all_data=not is_proven)
        if seen is not None:
            return Younger(youngest, _with_journal(device, named, seen))
    return Younger(youngest)


def _younger_nodes(image: Image) -> Generator[Progress, None, list[FoundNode]]:
    """Return the nodes that are younger than the superblock and no contents of a file, the youngest first."""
    seen = 0

    def wanted(node: FoundNode) -> bool:
        nonlocal seen
        seen += node.is_at_home
        return node.is_at_home and seen <= NODES_MAX and not node.mended

    found = yield from scan_nodes(image, wanted, lambda block: False)
    after = image.superblock.generation
    if not any(after < node.pointer.generation < GENERATION_MAX for node in found):
        return []
    genuine = finished(without_forged(image, found, _runs, item_verifies))
    younger = [node for node in genuine if after < node.pointer.generation < GENERATION_MAX]
    return sorted(younger, key=lambda node: -node.pointer.generation)


def _runs(image: Image, key: bytes, value: bytes) -> list[tuple[int, int]]:
    """Return the blocks that an item owns, whenever it was born."""
    return item_runs(_of_any_age(image), key, value)


def _of_any_age(image: Image) -> Image:
    return Image(image.device, replace(image.superblock, generation=GENERATION_MAX), image.geometry)


def _whole(image: Image, *, with_all_data: bool) -> Survey | None:
    """Return what is in the tree of *image*, if it is whole, and the data that it names are, or most of them at least."""
    try:
        seen = survey(image)
    except (CorruptImage, DeviceFailed):
        return None
    if not seen.tree.is_whole or seen.told != seen.counted:
        return None
    good = bad = 0
    for _, (keys, values) in seen.tree.leaves(kinds_mask(Kind.DATA_RECORD, Kind.XATTR)):
        for key, value in zip(keys, values, strict=True):
            record = owned(key, value) if key[KIND_AT] in (Kind.DATA_RECORD, Kind.XATTR) else None
            if record is None or record.flags & CUT_OUT:
                continue
            if item_verifies(image, key, value):
                good += 1
            else:
                bad += 1
    return None if bad > (0 if with_all_data else max(BAD_MIN, good)) else seen


def _with_journal(device: Device, named: Superblock, seen: Survey) -> Superblock:
    """Return *named* with the place in the journal from which it has to be replayed on the tree that was *seen*."""
    scan = _last_chain(Image(device, named, geometry_of(named)))
    if scan is None:
        return named
    waiting = _not_in_the_tree(scan.transactions, seen)
    if waiting:
        first = waiting[0]
        return replace(
            named,
            journal_tail=first.position,
            journal_sequence=first.commit.first_sequence,
            transaction=first.number - 1,
        )
    skipped = geometry_of(named).journal_bytes // ENTRY_HEAD_BYTES + 1
    return replace(
        named,
        journal_tail=scan.head,
        journal_sequence=scan.next_sequence + skipped,
        transaction=scan.transactions[-1].number + 1,  # a torn one may stand behind it
    )


def _last_chain(image: Image) -> JournalScan | None:
    """Return the longest walk through the ring that ends with the newest transaction, or None if there is none at all."""
    ring = Ring(image)
    reader = JournalReader(image.device, image.geometry, journal_seed(image.superblock.uuid))
    best: JournalScan | None = None
    walked: set[int] = set()  # what follows on another transaction starts no chain of its own
    for position in ring.entry_starts(0):
        entry = ring.entry(position)
        if isinstance(entry, str) or position in walked:
            continue
        scan = reader.scan(position, entry.head.sequence)
        walked.update(transaction.position % ring.bytes for transaction in scan.transactions[1:])
        if scan.transactions and (best is None or _age(scan) > _age(best)):
            best = scan
    return best


def _age(scan: JournalScan) -> tuple[int, int]:
    return scan.next_sequence, len(scan.transactions)


def _not_in_the_tree(transactions: Sequence[LoggedTransaction], seen: Survey) -> list[LoggedTransaction]:
    """Return those of *transactions*, the last ones, that the tree does not know yet; none if it knows of later ones."""
    expected: dict[bytes, bytes | None] = {}
    for key, _, after in _changes(transactions):
        expected[key] = after
    there = {key: seen.tree.get(key) for key in expected}
    wrong = {key for key, value in expected.items() if value != there[key]}
    for number in range(len(transactions), 0, -1):
        if not wrong:
            return list(transactions[number:])
        for key, before, _ in reversed(list(_changes(transactions[number - 1 : number]))):
            expected[key] = before
            (wrong.discard if before == there[key] else wrong.add)(key)
    return list(transactions) if not wrong else []


def _changes(transactions: Sequence[LoggedTransaction]) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    for transaction in transactions:
        for entry in transaction.entries:
            yield entry.head.key, entry.undo, entry.redo
