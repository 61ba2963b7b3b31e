"""A look at an image that changes meanwhile tells of damage, and never of what has only moved."""

import random
from collections.abc import Callable
from itertools import count

import pytest

from razortools.check import in_use, journal_pass
from razortools.check.findings import Severity
from razortools.check.in_use import LOOKS, LookBegins, look
from razortools.check.problems import (
    COMMITTED_SINCE,
    COPIES_NOT_JUDGED,
    DATA_CHECKSUM,
    JOURNAL_DAMAGED,
    MAP_NOT_KEPT,
    MOVED_ON,
    NODE_LOST,
    SUPERBLOCK_DAMAGED,
)
from razortools.check.report import Report
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.check.witness import Slots, Witness
from razortools.engine import namespace
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind
from tests.check.editing import facts_of, find_inode, first_item, indexed
from tests.check.restless import Pinned, Restless
from tests.check.samples import healthy

CALMLY = Options(threads=1)
SEEDS = range(6)


def problems_in(report: Report) -> set[str]:
    return {finding.code for finding in report.findings if finding.severity > Severity.NOTE}


def looked(device: Restless, witnesses: Callable[[], Witness] | None = None, options: Options = CALMLY) -> Report:
    return finished(look(device, witnesses or (lambda: Pinned(device)), options))


def held_still(device: Restless) -> Report:
    """Check what is on the disk once the volume is closed."""
    device.volume.close()
    device.catch_up()
    device.is_running = False
    return check_quietly(device)


def test_a_checkpoint_that_is_pinned_is_found_clean_whatever_is_written_meanwhile() -> None:
    overtaken = 0  # looks that went on while two checkpoints were written after the one that they were made through
    for seed in SEEDS:
        device = Restless(seed, calm=2)
        report = looked(device)
        assert problems_in(report) == set(), f"seed {seed}"
        assert len(report.phases) == 8 and {phase.status for phase in report.phases} <= {"ok", "note"}
        assert report.in_use is not None and report.in_use["held"] is True and report.in_use["looks"] == 1
        overtaken += device.volume.store.begun_generation > int(str(report.in_use["generation"])) + 1
        assert held_still(device).clean
    assert overtaken >= len(SEEDS) // 2


def test_without_a_pin_nothing_is_told_that_was_not_confirmed() -> None:
    """The superblocks alone tell that a checkpoint has been overtaken. Then it is said that nothing could be judged."""
    given_up = 0
    for seed in SEEDS:
        device = Restless(seed, calm=2)
        report = looked(device, lambda device=device: Slots(device, "nobody there"))  # type: ignore[misc]
        assert problems_in(report) <= {MOVED_ON.code}, f"seed {seed}"
        assert report.in_use is not None and not report.in_use["held"]
        if problems_in(report):
            given_up += 1
            assert report.exit_code == 8 and report.in_use["looks"] == LOOKS
    assert given_up >= len(SEEDS) // 2


def test_without_a_pin_an_image_that_rests_between_checkpoints_is_judged() -> None:
    """Commits go on; only a checkpoint ends a look. The copies of the superblock may be under way, and are left alone."""
    device = Restless(1, checkpoints=0.0)
    report = looked(device, lambda: Slots(device, "nobody there"))
    assert problems_in(report) == set() and device.step_count > 5
    assert COPIES_NOT_JUDGED.code in {finding.code for finding in report.findings}


def test_the_looks_are_announced_with_their_reason() -> None:
    device = Restless(1, calm=2)  # which has a quiet moment at the beginning of each look: without one it is not begun
    begun = [step for step in look(device, lambda: Slots(device, "nobody there"), CALMLY) if isinstance(step, LookBegins)]
    assert [one.number for one in begun] == [1, 2, 3] and {one.refusal for one in begun} == {"nobody there"}


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_found_while_the_mount_goes_on(seed: int) -> None:
    device = Restless(seed)
    _, value = first_item(healthy(), find_inode(healthy(), "/docs/many"), Kind.DATA_RECORD)
    device.hurt(DataRecord.decode(value).runs(4096)[0][0])
    report = looked(device)
    assert problems_in(report) == {DATA_CHECKSUM.code}
    assert [finding.path for finding in report.findings if finding.severity > Severity.NOTE] == ["/docs/many"]
    assert report.exit_code == 4


def test_a_lost_node_is_found_while_the_mount_goes_on() -> None:
    """Both copies of a leaf that nobody changes: the one that holds the contents of a file."""
    device = Restless(5)
    witness = Pinned(device)
    witness.settle()
    ref = device.volume.store.tree.root
    while ref.node is not None and ref.node.level:
        ref = ref.node.children[1]
    device.hurt(ref.address)
    device.hurt(ref.mirror)
    device._checkpoints = 0.0
    report = looked(device, lambda: Slots(device, "nobody there"))
    assert NODE_LOST.code in problems_in(report) and MOVED_ON.code not in problems_in(report)


def test_a_superblock_that_was_hurt_is_told_from_one_that_is_being_written() -> None:
    for seed in SEEDS:
        device = Restless(seed, checkpoints=1.0)
        assert SUPERBLOCK_DAMAGED.code not in problems_in(looked(device))
        older = 1 - device.volume.store.superblock.generation % 2
        once = count()

        def settled(device: Restless = device, older: int = older, once: "count[int]" = once) -> Witness:
            class Hurting(Pinned):
                def settle(self) -> bool:
                    done = super().settle()
                    if next(once) == 0:
                        device.hurt(1 - self._store.superblock.generation % 2)
                        device.is_running = False
                    return done

            return Hurting(device)

        assert SUPERBLOCK_DAMAGED.code in problems_in(looked(device, settled))


def test_a_pin_that_is_lost_makes_what_was_found_worthless() -> None:
    """The volume needed the space. What does not verify afterwards may have been written over."""

    class Losing(Pinned):
        def has_written(self) -> bool:
            written = super().has_written()
            self._store.maps.unpin()
            return written

    given_up = 0
    for seed in SEEDS:
        device = Restless(seed, calm=2)
        report = looked(device, lambda device=device: Losing(device))  # type: ignore[misc]
        assert problems_in(report) <= {MOVED_ON.code}
        given_up += report.exit_code == 8
    assert given_up


def test_the_journal_behind_a_checkpoint_is_judged_as_far_as_that_can_be() -> None:
    """A transaction that does not verify is damage if a later one says that it had been safe; else it is on its way."""
    for seed in range(4):
        device = Restless(seed, calm=60, checkpoints=0.0)
        for _ in range(4):
            device.step()
        device.catch_up()
        report = looked(device, lambda device=device: Slots(device, "nobody there"))  # type: ignore[misc]
        told = {finding.code: finding.count for finding in report.findings}
        assert problems_in(report) == set() and told[COMMITTED_SINCE.code] >= 4
        facts = facts_of(device)
        geometry, tail = facts.image.geometry, facts.image.superblock.journal_tail
        device.hurt(geometry.journal_start + tail % geometry.journal_bytes // 4096)
        report = looked(device, lambda device=device: Slots(device, "nobody there"))  # type: ignore[misc]
        assert problems_in(report) == {JOURNAL_DAMAGED.code}


class Stormy(Restless):
    """Rests until the first piece of the journal has been read, and then does much at once."""

    def __init__(self, *, checkpoints: float, journal_share: float) -> None:
        self._share = 0.0
        super().__init__(1, calm=1 << 30, checkpoints=checkpoints)
        self._share = journal_share

    def read(self, offset: int, length: int) -> bytes:
        data = super().read(offset, length)
        store = self.volume.store if self._share else None
        if store is not None and offset == (store.geometry.journal_start * 4096 + store.journal.tail % store.journal.ring_bytes):
            until = store.journal.head + store.journal.ring_bytes * self._share
            self._share = 0.0
            while store.journal.head < until:
                self.step()
            self.catch_up()
        return data

    def _change(self, volume: Volume, chance: random.Random) -> None:
        """Change names alone: a pin is not to be lost for want of space."""
        self._files.append(b"name %d" % chance.randrange(1 << 40))
        namespace.create(volume, ROOT_INODE, self._files[-1], 0o644, 0, 0)
        if len(self._files) > 5:
            self._remove(volume, chance)


def test_a_transaction_that_arrives_while_the_journal_is_read_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one behind it may be read first. It says that the other one is safe, so that has arrived, too, and is read again."""
    monkeypatch.setattr(journal_pass, "LOOK_CHUNK_BYTES", 4096)
    device = Stormy(checkpoints=0.0, journal_share=0.1)
    report = looked(device)
    assert problems_in(report) == set() and device.step_count > 2
    assert device.volume.store.begun_generation == report.in_use["generation"]  # type: ignore[index]


def test_a_journal_that_is_written_over_while_it_is_read_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pin holds what the tree names; the journal of a checkpoint is used again once the next one is there."""
    monkeypatch.setattr(journal_pass, "LOOK_CHUNK_BYTES", 4096)
    device = Stormy(checkpoints=0.1, journal_share=2.5)
    report = looked(device)
    assert problems_in(report) == set() and report.in_use is not None and report.in_use["looks"] == 1
    assert device.volume.store.begun_generation > report.in_use["generation"]  # type: ignore[operator]


def test_a_space_map_that_is_too_large_to_keep_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_use, "MAP_PAGES_MAX", 1)
    device = Restless(4)
    report = looked(device)
    assert problems_in(report) == set() and MAP_NOT_KEPT.code in {finding.code for finding in report.findings}


def test_a_frame_that_never_stands_still_is_not_judged() -> None:
    device = Restless(6)

    class Never(Pinned):
        def has_written(self) -> bool:
            return True

    report = looked(device, lambda: Never(device))
    assert problems_in(report) == {MOVED_ON.code} and report.phases == ()


def test_the_document_tells_of_the_look() -> None:
    device = Restless(7)
    told = looked(device).as_json()["in_use"]
    assert isinstance(told, dict) and told["held"] is True and told["looks"] == 1
    assert "in_use" not in check_quietly(healthy()).as_json()


def test_a_leaf_that_has_become_another_one_since_the_walk_is_refused() -> None:
    """It is sound by itself; what it holds belongs elsewhere."""
    device = healthy()
    tree = indexed(device)
    device.write(tree.leaf_addresses[0] * 4096, device.read(tree.leaf_addresses[1] * 4096, 4096))
    with pytest.raises(CorruptImage, match="has changed since"):
        tree.items_of(0)
