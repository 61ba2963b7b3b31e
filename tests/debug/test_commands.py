"""Every command runs as a process, on a healthy image and on damaged ones, and what it says is judged."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterable
from pathlib import Path

import pytest

from razortools.check.runner import check_quietly
from razortools.debug.commands import COMMANDS
from razortools.engine import namespace
from razortools.engine.store.device import open_image
from tests.debug.cases import CHANGING, LOOKING, Case
from tests.debug.tool import crashed, furnished, hurt
from tests.images import open_for_writing
from tests.schemas import schema, valid

DEBUG = [sys.executable, "-m", "razortools.debugfs"]
PATIENCE_S = 60
ROWS, COLUMNS = 50, 400


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("commands")
    return crashed(here / "dirty.img", furnished(here / "a.img"), commits=3)


@pytest.fixture
def here(dirty: Path, tmp_path: Path) -> Path:
    """A folder with an image to work on, another one, and a file of the host."""
    for name in ("image", "other.img"):
        (tmp_path / name).write_bytes(dirty.read_bytes())
    with open_for_writing(tmp_path / "other.img") as volume:
        namespace.unlink(volume, namespace.resolve(volume, b"/home"), b"small")
    (tmp_path / "host").write_bytes(b"one\n" * 1000)
    return tmp_path


def test_each_command_has_a_case_and_a_schema() -> None:
    tried = {case.command for case in (*LOOKING, *CHANGING)}
    assert tried == COMMANDS.keys()
    assert COMMANDS.keys() <= schema("razorfs-debug")["$defs"].keys()
    assert {case.command for case in CHANGING} >= {name for name, command in COMMANDS.items() if command.writes}


def answered(here: Path, cases: Iterable[Case], *words: str) -> list[object]:
    """Return what a process answers that is given these cases as a script."""
    lines = [case.line.format(here=here) for case in cases]
    (here / "script").write_text("\n".join(lines))
    done = subprocess.run(
        [*DEBUG, *words, "--json", "-f", here / "script", here / "image"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    document = valid("razorfs-debug", json.loads(done.stdout))
    assert [one["command"] for one in document] == lines
    return [one["result"] for one in document]


def misjudged(cases: Iterable[Case], answers: Iterable[object]) -> list[str]:
    """Return the cases whose answers are not what they should be."""
    return [
        f"{case.line}: {answer}"
        for case, answer in zip(cases, answers, strict=True)
        if not case.judge(valid("razorfs-debug", answer, case.command))
    ]


@pytest.mark.slow
def test_every_command_that_looks_answers_as_a_process_and_changes_nothing(here: Path) -> None:
    before = (here / "image").read_bytes()
    assert misjudged(LOOKING, answered(here, LOOKING)) == []
    assert (here / "image").read_bytes() == before


@pytest.mark.slow
def test_every_command_that_changes_does_as_a_process_and_leaves_a_good_image(here: Path) -> None:
    assert misjudged(CHANGING, answered(here, CHANGING, "-w")) == []
    with open_image(here / "image", writable=False) as device:
        assert check_quietly(device).exit_code == 0


def said_on_a_terminal(here: Path, cases: Iterable[Case]) -> list[str]:
    """Return what a session on a terminal says to each case; what fails there does not end it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "dumb", "PAGER": "", "XDG_STATE_HOME": str(here)}
    said = []
    with subprocess.Popen([*DEBUG, "-w", here / "image"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        for number, case in enumerate(cases):
            mark = f"mark-{number}"  # is no command, and the sentence that says so ends what the one before it said
            os.write(ours, f"{case.line.format(here=here)}\n{mark}\n".encode())
            seen = b""
            while f"{mark}: there is no such command".encode() not in seen:
                more = _read(ours)
                assert more, seen
                seen += more
            said.append(seen.decode("utf-8", "replace").replace("\r", ""))
        os.write(ours, b"quit\n")
        while _read(ours):
            pass
        assert process.wait(PATIENCE_S) == 0
    os.close(ours)
    return said


def _read(descriptor: int) -> bytes:
    """Return what the other side wrote; nothing once it has hung up."""
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        return b""


def unsaid(said: Iterable[tuple[Case, str, str]]) -> list[str]:
    """Return the cases, with what was said, that lack the sentence they should have."""
    return [f"{case.line}: {text}" for case, text, wanted in said if not re.search(wanted, text, re.MULTILINE)]


@pytest.mark.slow
def test_every_command_says_what_it_can_of_an_image_whose_tree_is_lost(here: Path) -> None:
    cases = (*LOOKING, *CHANGING)
    for block in (72, 2053):
        hurt(here / "image", block * 4096 + 100)
    before = (here / "image").read_bytes()
    said = said_on_a_terminal(here, cases)
    assert unsaid(zip(cases, said, (case.lost for case in cases), strict=True)) == []
    assert "internal error" not in "".join(said)
    assert (here / "image").read_bytes() == before
    assert not {"got", "noise", "drill.img"} & {path.name for path in here.iterdir()}


@pytest.mark.slow
def test_every_command_that_reads_damaged_data_says_so(here: Path) -> None:
    cases = (LOOKING[0], *(case for case in (*LOOKING, *CHANGING) if case.hurt))
    hurt(here / "image", 260 * 4096 + 100)
    said = said_on_a_terminal(here, cases)
    assert unsaid(zip(cases, said, (case.hurt for case in cases), strict=True)) == []
    assert not (here / "noise").read_bytes().strip(b"\0")  # nothing wrong was copied
