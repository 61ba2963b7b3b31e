"""The record size of a file: one that could be but is not its own is found, and set right if all records agree with another."""


import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.check.record_lengths import RecordLengths
from razortools.check.repair.repair import Wishes, repair
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine.store.device import Device
from razortools.format.data import RECORD_LOG2, DataRecord
from razortools.format.inode import Inode
from razortools.format.keys import Kind, inode_key
from tests.check.editing import all_items, edit_inode, edit_item, editing, find_inode
from tests.check.samples import ambiguous, healthy
from tests.check.test_misfiled import items, repaired

WRONG = (12, 14, 15, 17, 20)  # those of the sample are of 2^13 bytes


def codes(device: Device) -> list[str]:
    return [finding.code for finding in check_quietly(device).findings]


@pytest.mark.parametrize("record_log2", WRONG)
@pytest.mark.parametrize("path", ["/docs/many", "/docs/deep/by zstd:3", "/docs/deep/by none", "/docs/deep/holes"])
def test_regression_a_wrong_record_size_is_set_right_and_scrambles_no_file(path: str, record_log2: int) -> None:
    """The size of the file was set by the wrong one, and each record cut out or read at the wrong place, without a word."""
    device = healthy()
    expected = items(device)
    edit_inode(device, find_inode(device, path), record_log2=record_log2)
    assert codes(device) == ["E0517"]
    done = repaired(device)
    assert items(done.overlay) == expected
    assert done.loss.unchanged and not (done.loss.lost or done.loss.truncated or done.loss.harmed)


def test_a_careful_repair_leaves_it_alone() -> None:
    """Where data belong is decided by somebody who looks on."""
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/many"), record_log2=14)
    before = items(device)
    done = finished(repair(device, Wishes(check=Options(threads=1), careful=True)))
    assert done is None or items(done.overlay) == before


@pytest.mark.parametrize("path", ["/docs/many", "/docs/one", "/docs/deep/by zstd:3", "/docs/deep/holes"])
def test_a_wrong_size_of_the_file_is_no_wrong_record_size(path: str) -> None:
    for bit in range(48):
        device = healthy()
        number = find_inode(device, path)
        with editing(device) as store:
            size = Inode.decode(store.tree.get(inode_key(number)) or b"").size
        edit_inode(device, number, size=size ^ 1 << bit)
        assert "E0517" not in codes(device), bit


@pytest.mark.parametrize("path", ["/docs/many", "/docs/one", "/docs/deep/by zstd:3", "/docs/deep/holes"])
def test_a_wrong_length_of_one_record_is_no_wrong_record_size(path: str) -> None:
    for key, value in all_items(healthy(), find_inode(healthy(), path), Kind.DATA_RECORD):
        for bit in range(24):
            device = healthy()
            edit_item(device, key, raw_bytes=DataRecord.decode(value).raw_bytes ^ 1 << bit)
            assert "E0517" not in codes(device), (key, bit)


def test_where_several_sizes_are_possible_none_is_chosen() -> None:
    device, sparse = ambiguous()
    edit_inode(device, sparse, record_log2=13)
    assert codes(device) == ["E0504", "E0501"]


# Laws of the judgement alone

log2s = st.sampled_from(RECORD_LOG2)


@given(log2s, log2s, st.integers(1, 6), st.data())
def test_what_records_agree_with_is_never_something_else_than_what_they_were_written_with(
    written: int, usual: int, count: int, data: st.DataObject
) -> None:
    """Whole files: full records but for the last one."""
    tail = data.draw(st.integers(1, 1 << written))
    lengths = RecordLengths(usual)
    for number in range(count):
        lengths.add(number, tail if number == count - 1 else 1 << written)
    size = (count - 1 << written) + tail
    agreed = lengths.agreed_log2(size)
    assert not lengths.contradict(written, size)
    if count > 1:
        assert agreed == written
        assert all(lengths.contradict(log2, size) for log2 in RECORD_LOG2 if log2 != written)
    else:
        assert agreed is not None and 1 << agreed >= tail


@given(log2s, st.dictionaries(st.integers(0, 40), st.integers(1, 1 << 20), min_size=1), st.integers(0, 1 << 20))
def test_with_holes_another_size_is_agreed_with_only_if_the_file_ends_in_its_last_record_or_behind_it(
    written: int, holey: dict[int, int], more: int
) -> None:
    lengths = RecordLengths(written)
    for number in sorted(holey):
        lengths.add(number, min(holey[number], 1 << written))
    last, tail = lengths.last
    size = (last << written) + tail + more
    agreed = lengths.agreed_log2(size)
    if agreed is not None and last:
        assert not lengths.contradict(agreed, size)
        start = last << agreed
        assert start + tail == size or lengths.largest == 1 << agreed
