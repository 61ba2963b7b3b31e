"""docs/FSCK-MATRIX.md has a row for every class of damage that the fuzz knows, and FSCK.md is left to who has to repair."""

from pathlib import Path

import pytest

from tools import fsck_matrix

FSCK = Path(__file__).parents[2] / "docs" / "FSCK.md"


def test_the_matrix_knows_every_class_of_damage() -> None:
    assert fsck_matrix.main(["--check"]) == 0


def test_rows_that_are_not_made_anew_stay_and_the_words_are_those_of_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """--only keeps the other rows: it has to read the tables as it writes them."""
    monkeypatch.setattr(fsck_matrix, "_cases", lambda *_: iter(()))
    page = fsck_matrix.PLACE.read_text(encoding="utf-8")
    table = page.partition(fsck_matrix.BEGIN)[2].partition(fsck_matrix.END)[0]
    assert table and fsck_matrix.text(1, frozenset(), table) == table


def test_the_page_for_operators_leads_to_the_matrix_and_holds_none() -> None:
    page = FSCK.read_text(encoding="utf-8")
    assert f"]({fsck_matrix.PLACE.name})" in page and fsck_matrix.BEGIN.strip() not in page
    assert [line for line in page.splitlines() if "checksum wrong |" in line] == []
