"""What docs/OPERATIONS.md says of looking into an image is what the commands say."""

import sys
from pathlib import Path
from subprocess import run

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_document_shows_what_the_commands_say() -> None:
    finished = run([sys.executable, "-m", "tools.looking", "--check"], cwd=PROJECT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
