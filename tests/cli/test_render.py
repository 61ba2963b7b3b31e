"""Words for people: plain on a pipe, one document for scripts, names as they are."""

import io
import json
import sys
from dataclasses import dataclass
from enum import IntEnum

import pytest

from razortools.cli import render


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    name: bytes


class Colour(IntEnum):
    RED = 1


def test_a_document_is_json_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    render.document(
        {"point": Point(3, b"caf\xc3\xa9"), "odd": b"\xff", "set": {1}, "colour": Colour.RED, 5: None, "t": (1.5, True)}
    )
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "point": {"x": 3, "name": "café"},
        "odd": "\udcff",
        "set": [1],
        "colour": 1,
        "5": None,
        "t": [1.5, True],
    }


def test_a_table_on_a_pipe_has_no_frames_no_wraps_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(["name", "size"], [["[bold]x[/bold]" * 50, 1], ["y", 200]], right=[1])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["name", "size"]
    assert lines[1].split() == ["[bold]x[/bold]" * 50, "1"]
    assert lines[2].endswith("200")
    assert all(line == line.rstrip() for line in lines)


def test_pairs_stand_in_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    render.pairs([("a", 1), ("longer", "[x]")], title="Facts")
    assert capsys.readouterr().out.splitlines() == ["Facts", "a       1", "longer  [x]"]


def test_messages_and_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    render.message("[m]")
    render.error("[e]")
    render.styled("[s]", "bold red")
    out, err = capsys.readouterr()
    assert (out, err) == ("[s]\n", "[m]\n[e]\n")


def test_progress_is_silent_when_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with render.progress("Copying", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_are_colours_frames_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    render.error("wrong")
    render.styled("[fine]", "green")
    render.table(["a"], [["b"]])
    with render.progress("Copying", 2) as advance:
        advance(2)
    assert "\x1b[" in err.getvalue()
    assert "Copying" in err.getvalue()
    assert "[fine]" in out.getvalue()
    assert "─" in out.getvalue()


def test_a_name_that_is_no_text_goes_out_as_the_bytes_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    render.out("a\udcffb")
    render.out_bytes(b"\x00\xfe")
    assert raw.getvalue() == b"a\xffb\n\x00\xfe"
