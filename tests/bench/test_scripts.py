"""Every benchmark can be started: what one script takes from another is still there."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NAMES = ("journaling", "engine_share", "waiting", "mounts", "check", "space", "compare", "metering")
SCRIPTS = tuple(f"bench.{name}" for name in NAMES)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_explains_itself(script: str) -> None:
    done = subprocess.run([sys.executable, "-m", script, "--help"], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
