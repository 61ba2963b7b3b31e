"""The tour in README.md is what tools/tour.py walks, and shows what the commands print, unaltered."""

from pathlib import Path

import pytest

from tools import tour


def shown() -> dict[str, list[str]]:
    """Return the commands of the tour in README.md, each with the lines below it."""
    text = tour.README.read_text(encoding="utf-8").partition(tour.BEGIN)[2].partition(tour.END)[0]
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("    $ "):
            found[line.removeprefix("    $ ")] = []
        elif line.startswith("    "):
            found[list(found)[-1]].append(line.removeprefix("    "))
    return found


def right_edges(line: str) -> list[int]:
    return [at for at in range(1, len(line) + 1) if line[at - 1] != " " and (at == len(line) or line[at] == " ")]


def test_the_readme_shows_the_walk_of_the_tool() -> None:
    assert list(shown()) == list(tour.WALK)


def test_regression_the_columns_of_df_stand_below_their_heads() -> None:
    """The folder was cut out of what df had printed, and its row moved to the left of the heads."""
    (lines,) = (lines for command, lines in shown().items() if command.startswith("df "))
    head, row = lines
    assert right_edges(row) == right_edges(head)


def test_what_a_command_says_is_not_altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "WALK", ("printf 'a  b\\n   c\\n'; echo d >&2",))
    assert tour.walk(tmp_path) == [(tour.WALK[0], "a  b\n   c\nd\n")]


def test_a_command_that_says_where_the_tour_runs_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is as wide as that folder's name, which no reader has."""
    monkeypatch.setattr(tour, "WALK", ("true", "pwd"))
    with pytest.raises(SystemExit, match="pwd: tells of"):
        tour.walk(tmp_path)
