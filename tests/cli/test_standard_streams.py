"""Standard streams that were closed before a command came: nothing else gets their numbers, and they simply lead nowhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from razortools.units import MIB
from tests.images import make_image

CLOSINGS = ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]
OPENING = """
import importlib, os, sys, types
from razortools import doorstep
importlib.import_module = lambda name: types.SimpleNamespace(main=lambda: sys.exit(os.open(os.devnull, os.O_RDONLY)))
doorstep.{command}()
"""
PRINTING = """
import sys
from razortools import standard_streams
standard_streams.secure()
print(sys.stdin.read(), end="")
print("lost", file=sys.stderr)
"""
DAEMON = """
import os, sys
from razortools.service import daemon

def body(ready):
    descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    ready()
    os.write(descriptor, b"kept")
    return daemon.Outcome(0)

daemon.start(body)
os.wait()
"""


def run_with(closing: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of Python with *closing* as a shell has it."""
    command = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("closing", CLOSINGS)
def test_what_a_command_opens_never_becomes_a_standard_stream(closing: str) -> None:
    assert run_with(closing, "-c", OPENING.format(command="fsck")).returncode > 2


@pytest.mark.parametrize("closing", CLOSINGS)
def test_a_closed_stream_can_be_read_and_written_all_the_same(closing: str) -> None:
    done = run_with(closing, "-c", PRINTING)
    assert (done.returncode, done.stderr) == (0, "" if "2>&-" in closing else "lost\n")


@pytest.mark.parametrize("closing", CLOSINGS)
@pytest.mark.parametrize(
    ("module", "words"),
    [("fsck", ["{image}"]), ("health", ["{image}"]), ("debugfs", ["{image}"]), ("debugfs", ["-R", "ls /", "{image}"]),
     ("mkfs", ["-f", "{image}", "4M"])],
)  # fmt: skip
def test_regression_a_command_with_closed_streams_does_its_work(
    tmp_path: Path, module: str, words: list[str], closing: str
) -> None:
    """Each was an "internal error" about NoneType."""
    image = make_image(tmp_path / "image", 4 * MIB)
    done = run_with(closing, "-m", f"razortools.{module}", *(word.format(image=image) for word in words))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closing", CLOSINGS)
def test_a_daemon_lets_nothing_lead_nowhere_but_its_streams(tmp_path: Path, closing: str) -> None:
    assert run_with(closing, "-c", DAEMON, str(tmp_path / "image")).returncode == 0
    assert (tmp_path / "image").read_bytes() == b"kept"
