"""Tools that write documents and fixtures: a word that they do not know, or a question for help, changes no file."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
WRITTEN = ("contrib", "docs", "fixtures", "man", "tools", "README.md")  # where tools write, and the tools themselves


def programs() -> list[str]:
    """Return the modules in tools/ that may be run."""
    found = [path for path in (PROJECT / "tools").rglob("*.py") if "\nif __name__ == " in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in found)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what tools write: a tool that does not ask what it is told must not do so here."""
    copy = tmp_path_factory.mktemp("tools")
    for name in WRITTEN:
        path = PROJECT / name
        shutil.copytree(path, copy / name) if path.is_dir() else shutil.copy(path, copy / name)
    return copy


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_every_way_to_run_a_tool_is_found() -> None:
    assert {"tools.dashboard", "tools.incidents.__main__", "tools.monitoring_doc", "tools.tour"} <= set(programs())


@pytest.mark.slow
@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--no-such-option", 2)])
@pytest.mark.parametrize("program", programs())
def test_a_tool_that_is_asked_for_help_or_told_a_word_that_it_does_not_know_changes_nothing(
    program: str, word: str, code: int, copied: Path
) -> None:
    before = contents(copied)
    environment = {**os.environ, "PYTHONPATH": f"{copied}:{PROJECT}"}
    finished = subprocess.run(
        [sys.executable, "-m", program, word], cwd=copied, env=environment, capture_output=True, text=True, timeout=30
    )
    assert finished.returncode == code, finished.stderr
    assert (finished.stdout if code == 0 else finished.stderr).startswith("usage: ")
    assert contents(copied) == before
