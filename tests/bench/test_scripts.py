"""Every benchmark can be started: what one script takes from another is still there."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPTS = (
    "bench.journaling",
    "bench.engine_share",
    "bench.waiting",
    "bench.mounts",
    "bench.check",
    "bench.space",
    "bench.compare",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_explains_itself(script: str) -> None:
    done = subprocess.run([sys.executable, "-m", script, "--help"], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
