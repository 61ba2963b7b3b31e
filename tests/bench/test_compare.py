"""Comparing two versions: what is slower beyond noise is told, what is noise is not."""

from pathlib import Path

import pytest

from bench.compare import OLDER, judged, older_peer, table
from bench.mounts.peers import RAZORFS
from bench.mounts.place import Taken
from bench.mounts.results import Results

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("ratios", "slower"),
    [
        ([1.0, 1.0, 1.0], False),
        ([0.85, 0.86, 0.84, 0.85, 0.87], True),
        ([0.85, 0.86, 0.84, 1.2, 1.1], False),  # two of five rounds say the opposite: nobody knows
        ([0.91, 0.92, 0.93], False),  # within the limit
        ([0.5], True),
        ([2.0, 3.0], False),
    ],
)
def test_slower_means_beyond_the_limit_and_beyond_noise(ratios: list[float], slower: bool) -> None:
    assert judged(ratios).is_slower(0.1) is slower


def results(rates: dict[str, list[float]]) -> Results:
    """One row, for each peer a rate a round."""
    found = Results("a machine", 1.0, 3, [OLDER, RAZORFS], [], ["mkdir"])
    for peer, values in rates.items():
        for number, rate in enumerate(values):
            found.add("mkdir", peer, number, Taken(round(rate), 1.0))
    return found


def test_rounds_are_compared_within_themselves() -> None:
    text, slower = table(results({OLDER: [100, 1000, 10], RAZORFS: [80, 800, 8]}), 0.1)
    assert slower == ["mkdir"]
    assert "0.80 to 0.80" in text and text.rstrip().endswith("slower |")
    assert table(results({OLDER: [100, 1000, 10], RAZORFS: [100, 1000, 10]}), 0.1)[1] == []


def test_a_row_without_a_figure_says_so() -> None:
    text, slower = table(results({OLDER: [100, 100, 100]}), 0.1)
    assert "failed" in text and slower == []


def test_the_older_version_runs_from_its_own_folder(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no razortools"):
        older_peer(tmp_path)
    peer = older_peer(PROJECT)
    for command in (peer.make, peer.mount, peer.unmount):
        assert command.startswith(f"export PYTHONPATH={PROJECT}; cd {PROJECT}; ")
