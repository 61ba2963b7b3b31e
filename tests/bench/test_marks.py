"""Marks are judged by what was measured: met, not met, or not measured; none of it is typed."""

import re

import pytest

from bench.mounts.marks import MARKS, Judged, judge
from bench.mounts.peers import PEERS, RAZORFS
from bench.mounts.place import Taken
from bench.mounts.report import document, page
from bench.mounts.results import Results
from bench.mounts.rows import ROWS


def results(rates: dict[tuple[str, str], int], rows: list[str] | None = None) -> Results:
    """One round, in which each (row, peer) did so much in a second."""
    peers = [RAZORFS, "ext4", "btrfs", "fuse2fs"]
    found = Results("a machine", 1.0, 1, peers, [], rows or list(dict.fromkeys(row for row, _ in rates)))
    for (row, peer), rate in rates.items():
        found.add(row, peer, 0, Taken(rate, 1.0))
    return found


def judged(found: Results) -> dict[tuple[str, str], Judged]:
    return {(mark.row, mark.asked): mark for mark in judge(found)}


def test_every_mark_is_about_a_row_and_a_peer_that_are_measured() -> None:
    assert {mark.row for mark in MARKS} <= set(ROWS)
    assert {mark.peer for mark in MARKS} <= {peer.name for peer in PEERS} | {""}


@pytest.mark.parametrize(("ours", "word"), [(90, "met"), (89, "not met")])
def test_a_ratio_is_met_from_its_least_value_on(ours: int, word: str) -> None:
    marks = judged(results({("write text", RAZORFS): ours * 1_000_000, ("write text", "btrfs"): 100_000_000}))
    assert marks["write text", "0.9 of btrfs"].word == word
    assert marks["write text", "0.9 of btrfs"].found == f"0.{ours}"
    assert marks["write text", "300 MB/s"] == Judged("write text", "300 MB/s", f"{ours} MB/s", False)


@pytest.mark.parametrize(("ours", "word"), [(50_000, "met"), (49_999, "not met")])
def test_a_rate_of_things_is_met_from_its_least_value_on(ours: int, word: str) -> None:
    row = "random 4 KiB writes, one fsync"
    assert judged(results({(row, RAZORFS): ours}))[row, "50,000/s"].word == word


def test_what_failed_on_either_side_is_not_measured() -> None:
    row = "4 KiB write + fsync"
    for rates in ({(row, RAZORFS): 5}, {(row, "ext4"): 5}, {}):
        assert judged(results(rates, [row]))[row, "0.8 of ext4"].word == "not measured"
    assert judged(results({}, [row]))["all rows", "ahead of fuse2fs"].word == "not measured"


def test_a_row_that_was_left_out_has_no_mark() -> None:
    assert {mark.row for mark in judge(results({("mkdir", RAZORFS): 1}))} == {"all rows", "most rows"}


def test_ahead_on_every_row_means_on_those_too_that_failed() -> None:
    rates = {(row, peer): rate for row in ("mkdir", "rmdir") for peer, rate in ((RAZORFS, 20), ("fuse2fs", 10))}
    assert judged(results(rates))["all rows", "ahead of fuse2fs"] == Judged("all rows", "ahead of fuse2fs", "2 of 2 rows", True)
    assert judged(results(rates, ["mkdir", "rmdir", "rename"]))["all rows", "ahead of fuse2fs"].word == "not met"
    assert judged(results(rates, ["mkdir", "rmdir", "rename"]))["most rows", "1.5 of fuse2fs"].word == "met"
    assert judged(results({**rates, ("rmdir", RAZORFS): 10}))["all rows", "ahead of fuse2fs"].word == "not met"
    assert judged(results({**rates, ("rmdir", RAZORFS): 14}))["most rows", "1.5 of fuse2fs"].found == "1 of 2 rows"


def test_the_page_shows_the_marks() -> None:
    found = results({("write text", RAZORFS): 400_000_000, ("write text", "btrfs"): 500_000_000})
    assert re.search(r"^\| write text +\| +0.9 of btrfs \| +0.80 \| +not met \|$", page(found), re.MULTILINE)
    assert re.search(r"^\| write text +\| +300 MB/s \| +400 MB/s \| +met \|$", page(found), re.MULTILINE)
    marks = document(found)["marks"]
    assert isinstance(marks, list) and marks[0]["is_met"] is False
