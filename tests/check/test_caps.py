"""Where there are more problems than are kept in memory, that is told with their number: nothing is left out without a word."""

import pytest

from razortools.check import (
    comparison,
    compression_pass,
    directory_pass,
    inode_pass,
    inventory,
    journal_pass,
    journal_rules,
    superblock_pass,
)
from razortools.check.findings import Event, Finding, Severity
from razortools.check.inventory import take_inventory
from razortools.check.journal_rules import Ring, following, read_entries
from razortools.check.repair.repair import repair
from razortools.check.report import Report
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished, followed
from razortools.engine.store.device import Device
from razortools.format.data import DataRecord
from razortools.format.keys import Kind, Table, kind_range, object_range
from tests.check.editing import editing, find_inode, flip, image_of, indexed, journal_entries, rewrite_entry, write_journal
from tests.check.samples import Copy, healthy, unclean


def more(report: Report, phase: int) -> int:
    return sum(finding.count for finding in report.findings if finding.code == f"E{phase:02}98")


def test_damaged_nodes_beyond_what_is_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inode_pass, "FINDINGS_KEPT", 2)
    device = healthy()
    addresses = list(indexed(device).addresses)[1:6]
    for address in addresses:
        flip(device, address * 4096 + 100)
    report = check_quietly(device)
    assert more(report, 3) == len(addresses) - 2 and report.exit_code == 4


def test_unconfirmed_names_beyond_what_is_looked_at_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_pass, "SUSPECTS_MAX", 3)
    device = healthy()
    links = [
        key for _, (keys, _) in indexed(device).leaves() for key in keys if key[9] == Kind.BACK_LINK and key[0] == Table.FILES
    ][-10:]
    with editing(device) as store:
        for key in links:
            store.tree.delete(key)
    assert more(check_quietly(device), 4) == len(links) - 3


def test_damaged_records_beyond_what_is_handed_on_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression_pass, "DAMAGED_MAX", 2)
    device = healthy()
    records = [
        DataRecord.decode(value)
        for _, (keys, values) in indexed(device).leaves()
        for key, value in zip(keys, values, strict=True)
        if key[9] == Kind.DATA_RECORD
    ]
    for record in records[:7]:
        flip(device, record.runs(4096)[0][0] * 4096 + 9)
    assert more(check_quietly(device), 8) == 5


def test_what_is_not_listed_is_as_severe_as_what_is() -> None:
    """After a repair that had cut out more than 1,000 records, the notes that were not listed counted as errors for ever."""
    device = healthy()
    for _, value in indexed(device).range_items(*kind_range(find_inode(device, "/docs/many"), Kind.DATA_RECORD)):
        device.write(DataRecord.decode(value).runs(4096)[0][0] * 4096, bytes(4096))
    report = check_quietly(finished(repair(device)).overlay, Options(findings_per_code=2))
    assert [finding.severity for finding in report.findings if finding.code == "E0598"] == [Severity.NOTE]
    assert more(report, 5) == 6 and report.clean and report.exit_code == 0 and report.problem_count == 0


@pytest.mark.parametrize(("copies", "severity"), [(1, Severity.WARNING), (2, Severity.ERROR)])
def test_nodes_that_are_not_judged_one_by_one_are_as_severe_as_the_worst_of_them(
    monkeypatch: pytest.MonkeyPatch, copies: int, severity: Severity
) -> None:
    monkeypatch.setattr(inode_pass, "FINDINGS_KEPT", 2)
    device = healthy()
    for address, mirror in list(zip(indexed(device).addresses, indexed(device).mirrors, strict=True))[1:6]:
        for place in (address, mirror)[:copies]:
            flip(device, place * 4096 + 100)
            flip(device, place * 4096 + 1000)
    severities = [finding.severity for finding in check_quietly(device).findings if finding.code == "E0398"]
    assert severities == [severity]


def test_names_that_are_lost_beyond_what_is_remembered_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "DANGLING_MAX", 1)
    before, after = healthy(), healthy()
    one, many = find_inode(before, "/docs/one"), find_inode(before, "/docs/many")
    for device in (before, after):
        with editing(device) as store:
            for number in (one, many):
                for key, _ in list(store.tree.items(*_all_of(number))):
                    store.tree.delete(key)
    found = comparison.loss(take_inventory(before, 1), take_inventory(after, 1))
    assert len(found.lost) == 1 and found.unlisted == 1 and not found.is_none
    assert "and 1 more of all these that are not listed" in found.sentences


def _all_of(number: int) -> tuple[bytes, bytes]:
    return object_range(Table.FILES, number)


def test_of_a_long_transaction_not_all_entries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    device = unclean(2)
    image, entries = image_of(device), journal_entries(image_of(device))
    start, sequence = image.superblock.journal_tail, entries[0].head.sequence
    whole, _ = read_entries(Ring(image), start, sequence)
    assert len(whole) > 5
    monkeypatch.setattr(journal_rules, "ENTRIES_KEPT", 3)
    assert read_entries(Ring(image), start, sequence) == ([*whole[:3], whole[-1]], "")
    assert list(following(Ring(image), start, sequence)) == whole
    write_journal(image, whole[-1].position, bytes(64))
    found, reason = read_entries(Ring(image), start, sequence)
    assert found == [*whole[:3], whole[-2]] and reason
    assert list(following(Ring(image), start, sequence)) == whole[:-1]


def _faults(device: Device) -> tuple[list[Finding], int]:
    """Return what the second phase finds, but for signs, and how many entries it says that there are."""
    found: list[Event] = []
    facts = followed(journal_pass.check(finished(superblock_pass.check(device))), found.append)
    return [event for event in found if isinstance(event, Finding)], facts.entry_count


@pytest.mark.parametrize(
    "changes", [{}, {"flags": 9}, {"reserved": 1}, {"operation": 77}, {"transaction": 4711}], ids="".join
)
@pytest.mark.parametrize("number", [0, 4, -1])
def test_entries_that_are_not_kept_are_judged_all_the_same(
    number: int, changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = unclean(2)
    rewrite_entry(device, number, **changes)
    expected = _faults(Copy(device))
    monkeypatch.setattr(journal_rules, "ENTRIES_KEPT", 2)
    assert _faults(Copy(device)) == expected
    assert bool(changes) == any(finding.severity > Severity.NOTE for finding in expected[0])

