"""Ctrl-C while a command is still being imported: a sentence and the contract's exit code, as later."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from razortools import doorstep
from razortools.cli import app as cli

CODES = {
    "mkfs.razorfs": cli.MKFS_CODES,
    "mount.razorfs": cli.MOUNT_CODES,
    "umount.razorfs": cli.MOUNT_CODES,
    "razorfsck": cli.FSCK_CODES,
    "razorfs-debug": cli.DEBUG_CODES,
    "razorfs-health": cli.HEALTH_CODES,
}
ALSO = {"fsck.razorfs": "razorfsck", "mount.fuse.razorfs": "mount.razorfs", "umount.fuse.razorfs": "umount.razorfs"}
INTERRUPTED = """
import importlib, signal, sys
from razortools import doorstep
signal.signal(signal.SIGINT, signal.{before})
importlib.import_module = lambda name: signal.raise_signal(signal.SIGINT)
sys.argv = ["command", *{arguments!r}]
doorstep._enter({command!r})
"""


def interrupted(command: str, *arguments: str, before: str = "default_int_handler") -> "subprocess.CompletedProcess[str]":
    """Run a command that is interrupted at its first import."""
    script = INTERRUPTED.format(command=command, arguments=list(arguments), before=before)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", CODES)
def test_an_interrupt_on_the_doorstep_is_one_sentence_and_the_exit_code_of_the_contract(command: str) -> None:
    done = interrupted(command)
    assert (done.returncode, done.stderr, done.stdout) == (CODES[command].interrupted, f"{command}: interrupted\n", "")


def test_with_json_it_is_a_document_where_errors_are() -> None:
    done = interrupted("razorfsck", "--json")
    assert json.loads(done.stdout) == {"image": None, "clean": None, "exit_code": 32, "error": "interrupted"}
    assert interrupted("mount.razorfs", "--json").stdout == ""


def test_regression_an_interrupt_that_cannot_be_told_keeps_its_exit_code() -> None:
    """The traceback of what could not be written ended razorfsck with 1, which means that something was repaired."""
    script = INTERRUPTED.format(command="razorfsck", arguments=["--json"], before="default_int_handler")
    command = ["sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "sh", sys.executable, "-c", script]
    assert subprocess.run(command, check=False).returncode == cli.FSCK_CODES.interrupted


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    assert "'NoneType' object has no attribute 'main'" in interrupted("razorfsck", before="SIG_IGN").stderr


def test_an_interrupt_while_the_process_ends_takes_nothing_from_its_exit_code() -> None:
    script = """
import atexit, importlib, signal, sys, types
from razortools import doorstep
signal.signal(signal.SIGINT, signal.default_int_handler)
importlib.import_module = lambda name: types.SimpleNamespace(main=lambda: sys.exit(5))
atexit.register(signal.raise_signal, signal.SIGINT)
doorstep.fsck()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (5, "")


def test_every_command_enters_by_the_doorstep_and_finds_its_main(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() == {*CODES, *ALSO} and doorstep.COMMANDS.keys() == CODES.keys()
    entered: list[str] = []
    monkeypatch.setattr(doorstep, "_enter", entered.append)
    for name, place in scripts.items():
        module, _, function = place.partition(":")
        assert module == "razortools.doorstep"
        getattr(doorstep, function)()
        assert entered.pop() == ALSO.get(name, name)
    for command, (module, function, code) in doorstep.COMMANDS.items():
        assert callable(getattr(__import__(module, fromlist=[function]), function))
        assert code == CODES[command].interrupted
