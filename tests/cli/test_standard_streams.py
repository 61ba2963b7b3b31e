"""Standard streams that cannot be used: closed before the command came, full, or with nobody at the other end.

What was closed leads nowhere, and nothing else gets its number. A result that cannot be written is a failure, with the code that
the contract has for it; what is said on stderr is only company.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from razortools.cli import app as cli
from razortools.cli.app import ExitCodes
from razortools.units import MIB
from tests.acceptance.damage import flip
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


COMMANDS = [
    ("fsck", cli.FSCK_CODES, ["{image}"]),
    ("fsck", cli.FSCK_CODES, ["--json", "{image}"]),
    ("fsck", cli.FSCK_CODES, ["--help"]),
    ("health", cli.HEALTH_CODES, ["{image}"]),
    ("health", cli.HEALTH_CODES, ["--json", "{image}"]),
    ("health", cli.HEALTH_CODES, ["--nagios", "{image}"]),
    ("debugfs", cli.DEBUG_CODES, ["-R", "help", "{image}"]),
    ("mkfs", cli.MKFS_CODES, ["-f", "{image}", "4M"]),
]


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


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty filesystem."""
    return make_image(tmp_path / "image", 4 * MIB)


@pytest.fixture
def damaged(image: Path) -> Path:
    """One with a superblock that a repair writes anew."""
    flip(image, 200)
    return image


every_command = pytest.mark.parametrize(("module", "codes", "words"), COMMANDS)


@every_command
def test_regression_results_that_cannot_be_written_are_a_failure(
    image: Path, module: str, codes: ExitCodes, words: list[str]
) -> None:
    """`razorfsck --json IMAGE >/dev/full` ended with a traceback and 1: "repaired"."""
    done = run_with(">/dev/full", "-m", f"razortools.{module}", *(word.format(image=image) for word in words))
    assert (done.returncode, done.stderr.count("\n")) == (codes.failed, 1)
    assert "No space left on device" in done.stderr


@every_command
def test_regression_results_that_nobody_reads_are_a_failure(
    image: Path, module: str, codes: ExitCodes, words: list[str]
) -> None:
    """An exit code 1 was made of it: a warning of razorfs-health, and a repair of razorfsck."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", f"razortools.{module}", *(word.format(image=image) for word in words)]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (codes.failed, b"")


@pytest.mark.parametrize("words", [["/no/such/image"], ["--json", "/no/such/image"]])
@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_regression_an_error_that_cannot_be_told_keeps_its_exit_code(closing: str, words: list[str]) -> None:
    """It was 1: "repaired"."""
    assert run_with(closing, "-m", "razortools.fsck", *words).returncode == cli.FSCK_CODES.failed


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full", ">&-"])
def test_regression_a_repair_that_cannot_be_told_is_made(damaged: Path, closing: str) -> None:
    """`razorfsck -y IMAGE 2>&-` repaired nothing, and ended with 1."""
    assert run_with(closing, "-m", "razortools.fsck", "-y", str(damaged)).returncode == 1
    assert run_with("", "-m", "razortools.fsck", str(damaged)).returncode == 0


def test_a_repair_whose_results_cannot_be_written_is_not_begun(damaged: Path) -> None:
    before = damaged.read_bytes()
    assert run_with(">/dev/full", "-m", "razortools.fsck", "-y", str(damaged)).returncode == cli.FSCK_CODES.failed
    assert damaged.read_bytes() == before
