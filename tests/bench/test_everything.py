"""bench/run: each part writes its place in the page, and one that fails is said there and keeps no other from being measured."""

import os
import sys
from pathlib import Path

import pytest

from bench import everything, page
from bench.everything import chosen, neutral, parse
from bench.mounts.results import Results
from bench.parts import PARTS, Part

PROJECT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from bench import page
page.PAGE = Path({page!r})
what = sys.argv[1]
if what == "dies":
    sys.exit("no room in /some/where/image")
if what in ("good", "partly"):
    page.publish(what, "figures\\n", page.PAGE)
sys.exit(what == "partly")
"""


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with room for the parts of these tests."""
    path = tmp_path / "page.md"
    names = ("machine", "good", "dies", "partly")
    path.write_text("".join(f"<!-- {name}: made by bench/run -->\nold\n<!-- end of {name} -->\n" for name in names))
    monkeypatch.setattr(page, "PAGE", path)
    return path


@pytest.fixture
def parts(tmp_path: Path, paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that end well, die, and measure not all they were to."""
    (tmp_path / "part_program.py").write_text(PROGRAM.format(page=str(paper)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{PROJECT}")
    found = tuple(Part(name, "part_program", lambda scale, rounds, name=name: [name]) for name in ("dies", "good", "partly"))
    monkeypatch.setattr(everything, "PARTS", found)


def test_every_part_has_its_place_in_the_page_and_every_place_its_part() -> None:
    text = (PROJECT / "docs" / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert sorted(page.sections()) == sorted(["machine", *(part.name for part in PARTS)])
    for name in page.sections():
        assert text.count(f"<!-- {name}: ") == text.count(f"<!-- end of {name} -->") == 1
        page.published(name)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_arguments_of_a_part_are_words(part: Part) -> None:
    for scale, rounds in ((1.0, 3), (0.001, 1)):
        assert all(isinstance(word, str) and word for word in part.arguments(scale, rounds))
    assert (PROJECT / "bench" / f"{part.module.split('.')[1]}.py").exists() or (PROJECT / part.module.replace(".", "/")).is_dir()


def test_a_part_that_dies_is_said_in_the_page_and_the_others_go_on(
    parts: None, paper: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench/run", "--write", "--scale=0.5"])
    assert everything.main() == 1
    assert page.published("good") == page.published("partly") == "figures\n"
    assert page.published("dies") == "Not measured in the last run: it exits 1: no room in ...\n"
    machine = page.published("machine")
    assert "- dies: it exits 1: no room in ...\n" in machine and "- partly: it exits 1\n" in machine
    assert "with --scale 0.5 and --rounds 3" in machine and "GiB" in machine
    assert "good:" not in machine


def test_a_single_part_leaves_the_rest_of_the_page_alone(parts: None, paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = paper.read_text()
    monkeypatch.setattr(sys, "argv", ["bench/run", "--write", "--only=good"])
    assert everything.main() == 0
    place = "<!-- good: made by bench/run -->\n"
    assert paper.read_text() == before.replace(f"{place}old", f"{place}figures")


def test_parts_that_need_root_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    outcome = everything.run(Part("mounts", "no.such", lambda scale, rounds: [], needs_root=True), parse([]))
    assert "needs root" in outcome.failure


def test_micro_benchmarks_are_made_only_when_asked_for() -> None:
    usual = [part.name for part in chosen(parse([]))]
    assert "micro" not in usual and "mounts" in usual
    assert [part.name for part in chosen(parse(["--micro"]))] == [*usual, "micro"]
    assert [part.name for part in chosen(parse(["--only=micro", "--only=space"]))] == ["space", "micro"]


def test_no_path_of_this_machine_gets_into_the_page() -> None:
    assert neutral("'mkfs /tmp/x1/image' exits 1:\n/tmp/x1/image: 3.5 of 1/2") == "'mkfs ...' exits 1: ...: 3.5 of 1/2"


def test_a_version_is_told_or_that_there_is_none() -> None:
    assert everything.version_of("no-such-tool", "-V") == "not here"
    assert everything.version_of(sys.executable, "--version") == ".".join(map(str, sys.version_info[:3]))


def test_a_plot_shows_what_was_measured_and_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra: pip install -r requirements-bench.lock")
    from bench import plots
    from bench.mounts.place import Taken

    found = Results("a machine", 1.0, 1, ["razorfs", "ext4"], [], ["mkdir", "rmdir"])
    found.add("mkdir", "razorfs", 0, Taken(200, 1.0))
    found.add("mkdir", "ext4", 0, Taken(100, 1.0))
    drawn = []
    for _ in range(2):
        assert plots.shown("mounts", lambda draw: draw.ratios(found), tmp_path) == "\n![mounts](benchmarks-mounts.svg)\n"
        drawn.append((tmp_path / "benchmarks-mounts.svg").read_text())
    assert drawn[0] == drawn[1] and "mkdir" in drawn[0] and "ext4" in drawn[0]
    points = {"lookup": [(1000.0, 5.0), (1e6, 9.0)]}
    plots.shown("growth", lambda draw: draw.panels([("files", "us", points), ("bytes", "us", points)]), tmp_path)
    assert "lookup" in (tmp_path / "benchmarks-growth.svg").read_text()


def test_without_matplotlib_the_page_says_that_there_is_no_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import plots

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / "benchmarks-mounts.svg").write_text("of an earlier run")
    assert "No plot" in plots.shown("mounts", lambda draw: None, tmp_path)
    assert list(tmp_path.iterdir()) == []
