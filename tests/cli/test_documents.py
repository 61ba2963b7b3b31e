"""With --json standard output holds exactly one document, whatever a command meets, and its shape is the same for all of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from razortools import crashtest, debugfs, doorstep, fsck, health, mkfs, mount, umount
from razortools.cli import app as cli
from razortools.cli import documents
from razortools.engine.store.device import open_image
from razortools.units import MIB
from tests.images import make_image
from tests.schemas import schema, valid

NOBODY = 65_534


@dataclass(frozen=True, slots=True)
class Tool:
    """A command that knows --json, and where its documents are described."""

    name: str
    app: Any
    codes: cli.ExitCodes
    schema: str
    part: str  # of the schema: what a failure looks like


@dataclass(frozen=True, slots=True)
class Told:
    """What a run left behind."""

    code: int
    out: str
    err: str


MKFS = Tool("mkfs.razorfs", mkfs.app, cli.MKFS_CODES, "mkfs.razorfs", "failure")
FSCK = Tool("razorfsck", fsck.app, cli.FSCK_CODES, "razorfsck", "failure")
DEBUG = Tool("razorfs-debug", debugfs.app, cli.DEBUG_CODES, "razorfs-debug", "failure")
CRASHTEST = Tool("razorfs-debug crashtest", crashtest.app, cli.CRASHTEST_CODES, "razorfs-debug", "crashtest_failure")
HEALTH = Tool("razorfs-health", health.app, cli.HEALTH_CODES, "razorfs-health", "failure")
TOOLS = (MKFS, FSCK, DEBUG, CRASHTEST, HEALTH)
every_tool = pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)

Place = Callable[[Path], Path]  # of the thing that a command is given, in a folder
Around = Callable[[Path], Any]  # what holds while the command runs


@pytest.fixture(autouse=True)
def no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def told(tool: Tool, capsys: pytest.CaptureFixture[str], *words: object) -> Told:
    """Run *tool* in this process."""
    capsys.readouterr()
    code = cli.invoke(tool.app, tool.name, tool.codes, [str(word) for word in words])
    return Told(code, *capsys.readouterr())


def failure(tool: Tool, seen: Told, code: int) -> dict[str, Any]:
    """Return the document of a run that failed: the only one, as its schema says, and saying what stderr says."""
    found: dict[str, Any] = valid(tool.schema, json.loads(seen.out), tool.part)
    valid(tool.schema, found, "crashtest" if tool is CRASHTEST else "")
    assert (seen.code, found["exit_code"]) == (code, code), seen
    assert seen.err.splitlines()[-1] == f"{tool.name}: {found['error']}"
    return found


# What an image may be


def missing(folder: Path) -> Path:
    return folder / "there" / "is" / "none"


def directory(folder: Path) -> Path:
    return folder


def text(folder: Path) -> Path:
    path = folder / "text"
    path.write_text("no image at all\n" * 100_000)
    return path


def good(folder: Path) -> Path:
    return make_image(folder / "image", 2 * MIB)


def damaged(folder: Path) -> Path:
    """Return an image of which nothing is left but its size."""
    path = good(folder)
    path.write_bytes(b"\xff" * path.stat().st_size)
    return path


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have an image in use, as a mount has it."""
    with open_image(path, writable=True):
        yield


@contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Be somebody whom nothing there belongs to; pytest's folders are closed to others."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def free(path: Path) -> Any:
    return nullcontext()


@every_tool
@pytest.mark.parametrize("words", [["--no-such-option", "x"], ["x", "y", "z", "what else"], ["--json", "--json", "--size="]])
def test_words_that_make_no_sense_are_one_document(
    tool: Tool, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = failure(tool, told(tool, capsys, "--json", *words), tool.codes.usage)
    assert f"{tool.name} --help" in found["error"]


REFUSED: list[tuple[Tool, list[str], Place, Around, int]] = [
    (MKFS, ["--journal-size", "2M"], good, free, 1),
    (MKFS, [], good, free, 1),
    (MKFS, [], missing, free, 2),
    (MKFS, ["-d", "/no/such/tree", "-f"], good, free, 1),
    (MKFS, [], directory, free, 1),
    (MKFS, ["-f"], good, held, 1),
    (MKFS, ["-f"], good, without_rights, 1),
    (FSCK, ["--only", "99"], good, free, 16),
    (FSCK, [], missing, free, 8),
    (FSCK, ["--undo"], good, free, 8),
    (FSCK, ["-y"], good, held, 8),
    (FSCK, [], good, without_rights, 8),
    (DEBUG, ["-R", "no-such-command"], good, free, 2),
    (DEBUG, ["-R", "cat"], good, free, 2),
    (DEBUG, ["-R", "cat /none"], good, free, 1),
    (DEBUG, ["-R", "ls / | wc"], good, free, 2),
    (DEBUG, ["-R", "mkdir /new"], good, free, 1),
    (DEBUG, ["-f", "/no/such/script"], good, free, 1),
    (DEBUG, ["-R", "ls /"], missing, free, 1),
    (DEBUG, ["-R", "ls /"], directory, free, 1),
    (DEBUG, ["-R", "ls /"], text, free, 1),
    (DEBUG, ["-R", "ls /"], damaged, free, 1),
    (DEBUG, ["-w", "-R", "ls /"], good, held, 1),
    (DEBUG, ["-R", "ls /"], good, without_rights, 1),
    (DEBUG, [], good, free, 2),
    (HEALTH, ["--nagios"], good, free, 3),
    (HEALTH, ["--watch"], good, free, 3),
    (HEALTH, ["--space-warning", "120"], good, free, 3),
    (HEALTH, ["--interval", "1"], good, free, 3),
]


@pytest.mark.parametrize(("tool", "words", "place", "around", "code"), REFUSED)
def test_what_is_refused_or_fails_is_one_document(
    tool: Tool, words: list[str], place: Place, around: Around, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place(tmp_path)
    with around(path):
        found = failure(tool, told(tool, capsys, "--json", *words, path), code)
    if tool is not HEALTH and code != tool.codes.usage:
        assert found["image"] == str(path)


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--crash", "x"], ["--ground", "none"], ["--workload", "no-such-call"]])
def test_a_crashtest_that_is_refused_is_one_document(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(CRASHTEST, told(CRASHTEST, capsys, "--json", *words), 2)["verdict"] is None


@pytest.mark.parametrize(("tool", "place"), [(tool, place) for tool in (FSCK, HEALTH) for place in (text, damaged, directory)])
def test_what_is_judged_is_one_document_whatever_it_is(
    tool: Tool, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For these two a bad image is a result, not a failure, unless it cannot be looked at at all."""
    seen = told(tool, capsys, "--json", place(tmp_path))
    assert valid(tool.schema, json.loads(seen.out))["exit_code"] == seen.code != 0


@pytest.mark.parametrize(("place", "around"), [(missing, free), (good, held), (good, without_rights)])
def test_what_health_cannot_look_at_is_one_document_that_names_it(
    place: Place, around: Around, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place(tmp_path)
    with around(path):
        seen = told(HEALTH, capsys, "--json", path)
    found = valid(HEALTH.schema, json.loads(seen.out))
    assert found["exit_code"] == seen.code and [one["image"] for one in found["images"]] == [str(path)]


@pytest.mark.parametrize("form", ["--nagios", "--prometheus"])
def test_regression_a_monitor_hears_of_an_image_that_it_may_not_look_at(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who could not enter the image's folder got an empty answer, and the sentence on stderr, which monitors do not read."""
    path = good(tmp_path)
    with without_rights(path):
        seen = told(HEALTH, capsys, form, path)
    assert seen.code == 3 and str(path) in seen.out and seen.err == ""


@pytest.mark.parametrize("option", ["--json", "--prometheus", "--nagios", "--watch"])
def test_regression_a_profile_has_no_form_for_programs(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What requests had waited for came as text where a document was asked for."""
    seen = told(HEALTH, capsys, option, "profile", tmp_path)
    assert seen.code == 3 and f"{option} means nothing to profile" in seen.err
    if option == "--json":
        failure(HEALTH, seen, 3)


# What a failed command of several leaves


@pytest.mark.parametrize("in_script", [False, True])
def test_what_was_done_before_a_command_failed_is_told_with_the_failure(
    in_script: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were made durable one by one: who reads only of the failure would not know."""
    image, script = good(tmp_path), tmp_path / "script"
    lines = ["mkdir /made", "# a comment", "ls /", "cat /none", "mkdir /never"]
    script.write_text("\n".join(lines))
    words = ["-f", script] if in_script else [word for line in lines for word in ("-R", line)]
    found = failure(DEBUG, told(DEBUG, capsys, "--json", "-w", *words, image), 1)
    assert found["command"] == "cat /none"
    assert [one["command"] for one in found["results"]] == ["mkdir /made", "ls /"]
    assert found["results"][0]["result"] == {"made": 1}
    assert [entry["name"] for entry in found["results"][1]["result"]] == ["made"]
    for one in found["results"]:
        valid("razorfs-debug", one["result"], one["command"].split()[0])
    listed = told(DEBUG, capsys, "--json", "-R", "ls /", image)
    assert [entry["name"] for entry in json.loads(listed.out)] == ["made"]


def test_an_image_that_cannot_be_opened_fails_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = failure(DEBUG, told(DEBUG, capsys, "--json", "-R", "ls /", missing(tmp_path)), 1)
    assert (found["command"], found["results"]) == (None, [])


def test_no_answer_of_a_command_passes_for_a_failure() -> None:
    """A program tells them apart by the key `error`, so no answer of a command alone may have one."""
    parts = schema("razorfs-debug")["$defs"]
    shapes = [shape for name in debugfs.COMMANDS for shape in (parts[name], *parts[name].get("anyOf", []))]
    assert [shape for shape in shapes if "error" in shape.get("properties", {})] == []


# What ends the work


@every_tool
@pytest.mark.parametrize("ending", [KeyboardInterrupt(), KeyError("surprise"), MemoryError(), OSError(5, "Bad disk", "x")])
def test_what_nobody_expects_is_one_document(
    tool: Tool, ending: BaseException, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object, **__: object) -> None:
        raise ending

    work = {MKFS: (mkfs, "make"), FSCK: (fsck, "check"), DEBUG: (debugfs, "run_line"), CRASHTEST: (crashtest, "run")}
    monkeypatch.setattr(*work.get(tool, (health.examination, "examined")), end)
    words: dict[Tool, list[object]] = {CRASHTEST: [], MKFS: [tmp_path / "new", "2M"], DEBUG: ["-R", "ls /", good(tmp_path)]}
    seen = told(tool, capsys, "--json", *words.get(tool, [tmp_path / "image"]))
    expected = tool.codes.interrupted if isinstance(ending, KeyboardInterrupt) else tool.codes.failed
    failure(tool, seen, tool.codes.bug if isinstance(ending, KeyError) else expected)


@pytest.mark.parametrize("tool", [MKFS, DEBUG, CRASHTEST, HEALTH], ids=lambda tool: tool.name)
def test_an_interrupt_behind_the_document_makes_no_second_one(
    tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = cli.render.document

    def interrupted(value: object) -> None:
        plain(value)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.render, "document", interrupted)
    words: dict[Tool, list[object]] = {
        MKFS: [tmp_path / "new", "2M"],
        DEBUG: ["-R", "ls /", good(tmp_path)],
        CRASHTEST: ["--workload", "create /n; fsync /n", "--depth", "1", "--compound", "0"],
        HEALTH: [tmp_path / "image"],
    }
    seen = told(tool, capsys, "--json", *words[tool])
    assert seen.code == tool.codes.interrupted and f"{tool.name}: interrupted" in seen.err
    found = valid(tool.schema, json.loads(seen.out), {DEBUG: "ls", CRASHTEST: "crashtest"}.get(tool, ""))
    assert "error" not in found


@every_tool
def test_an_interrupt_on_the_doorstep_is_the_same_document(tool: Tool) -> None:
    command, *behind = tool.name.split()
    script = f"""
import importlib, signal, sys
from razortools import doorstep
signal.signal(signal.SIGINT, signal.default_int_handler)
importlib.import_module = lambda name: signal.raise_signal(signal.SIGINT)
sys.argv = ["command", *{behind!r}, "--json"]
doorstep._enter({command!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    found = valid(tool.schema, json.loads(done.stdout), tool.part)
    assert found == documents.failure(tool.name, done.returncode, "interrupted")
    assert done.returncode == tool.codes.interrupted and done.stderr == f"{command}: interrupted\n"


# When there is none


@every_tool
@pytest.mark.parametrize("words", [["--no-such-option"], ["--", "--json", "y", "z", "what else"]])
def test_who_does_not_ask_for_a_document_gets_none(tool: Tool, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    seen = told(tool, capsys, *words)
    assert (seen.code, seen.out) == (tool.codes.usage, "")


def test_every_command_that_knows_json_has_its_shape_of_a_failure() -> None:
    assert documents.FAILURES.keys() == {tool.name for tool in TOOLS}
    without = [command for command in doorstep.COMMANDS if command not in documents.FAILURES]
    assert without == ["mount.razorfs", "umount.razorfs"]
    for app in (mount.app, umount.app):
        assert all("--json" not in parameter.opts for parameter in typer.main.get_command(app).params)
