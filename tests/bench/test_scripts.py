"""Every benchmark can be started: what one script takes from another is still there."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench import scaling, silence

PROJECT = Path(__file__).parents[2]
NAMES = ("journaling", "engine_share", "waiting", "mounts", "check", "space", "compare", "metering", "scaling", "silence")
SCRIPTS = tuple(f"bench.{name}" for name in NAMES)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_explains_itself(script: str) -> None:
    done = subprocess.run([sys.executable, "-m", script, "--help"], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_the_cost_of_a_repair_is_told_for_each_class_of_damage(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling", "--sizes", "5", "10"])
    assert scaling.main() == 0
    rows = [line for line in capfd.readouterr().out.splitlines()[1:] if line]
    assert len(rows) == 2 * len(scaling.CLASSES)
    assert all(" 0 left, " in row for row in rows)


def test_the_longest_silence_is_told_for_each_phase(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["silence", "--files", "300"])
    assert silence.main() == 0
    told = capfd.readouterr()
    assert "refused: no; clean: True" in told.err
    for number in range(1, 9):
        assert f"round 1, {number} " in told.out
