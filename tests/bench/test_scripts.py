"""Every benchmark can be started: what one script takes from another is still there."""

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench import growth, requests, scaling, silence, wakefulness
from bench.mounts.peers import Peer
from bench.parts import PARTS
from razortools.service.wakefulness import DEVICE
from razortools.units import MIB

PROJECT = Path(__file__).parents[2]
SCRIPTS = ("bench.compare", "bench.silence", "bench.everything", *dict.fromkeys(part.module for part in PARTS))


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


def test_the_longest_silence_of_the_command_is_told_for_each_phase(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["silence", "--files", "300", "--command"])
    assert silence.main() == 0
    told = capfd.readouterr()
    assert "razorfsck -n: exit code 0" in told.err and "razorfsck --repair: exit code 1" in told.err
    for number in range(1, 9):
        assert told.out.count(f"phase {number}, ") == 2


@pytest.fixture
def little_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of everything."""
    changes = {"IMAGE_BYTES": 64 * MIB, "SAMPLES": 16, "FIRST_FILES": 100, "FILES_PER_DIRECTORY": 10, "NEAR_DIRECTORIES": 1}
    for name, value in changes.items():
        monkeypatch.setattr(growth, name, value)
    monkeypatch.setattr(sys, "argv", ["growth", "--files", "150", "--file-mib", "1"])


def test_the_growth_of_cost_is_told_for_each_operation(capfd: pytest.CaptureFixture[str], little_growth: None) -> None:
    assert growth.main() == 0
    told = capfd.readouterr().out
    rows = [line.split("|") for line in told.splitlines() if "met |" in line]
    assert [row[1].strip() for row in rows].count("rename, anywhere") == 1 and len(rows) == 8 + 4 + 3
    assert all(float(cell) > 0 for row in rows for cell in row[2:-2])
    assert "The tree of 150 files has 0 MiB of nodes, the metadata cache takes 128 MiB. At most" in told


def test_growth_is_judged_from_the_smallest_size_to_the_largest() -> None:
    axis = growth.Axis("files", "files")
    for operation, last in (("flat", 20.0), ("steep", 20.1)):
        for size, took_us in ((1000, 10.0), (10_000, 90.0), (100_000, last)):
            axis.note(operation, size, took_us)
    lines = growth.table(axis).splitlines()
    assert lines[2].endswith("|   2.00 |       met |") and lines[3].endswith("|   2.01 |   not met |")
    assert growth.sizes_to(1000, 1_000_000, 10) == [1000, 10_000, 100_000, 1_000_000]
    assert growth.sizes_to(1000, 2500, 10) == [1000, 2500]


@pytest.mark.parametrize(("axis", "said"), [("files", "file .* reads wrong"), ("file", "record .* reads wrong")])
def test_contents_that_read_wrong_are_no_figure(
    axis: str, said: str, monkeypatch: pytest.MonkeyPatch, little_growth: None
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", axis])
    monkeypatch.setattr(growth.files, "read", lambda *_: b"something else")
    with pytest.raises(ValueError, match=said):
        growth.main()


@pytest.mark.mount
@pytest.mark.slow
def test_the_requests_of_each_operation_are_counted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "adopt_daemons", lambda: None)  # for the whole process, and tests start daemons of their own
    monkeypatch.setattr(sys, "argv", ["requests", "--count", "120"])
    requests.main()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in capfd.readouterr().out.splitlines() if "|" in line}
    assert rows["open + read 4 KiB, warm"][-1] == "none |"
    words = {operation: row[-1].strip(" |").split(", ") for operation, row in rows.items()}
    counts = {name: {word.split()[-1]: float(f"1 {word}".split()[-2]) for word in told} for name, told in words.items()}
    for operation, wanted in {
        "create + 4 KiB": ("LOOKUP", "MKNOD", "GETXATTR", "WRITE"), "unlink": ("UNLINK",), "rmdir": ("RMDIR",),
        "rename": ("LOOKUP", "RENAME"), "mkdir": ("LOOKUP", "MKDIR"),
    }.items():  # fmt: skip
        assert all(1 <= counts[operation][kind] < 1.5 for kind in wanted), counts[operation]
        assert set(counts[operation]) - set(wanted) <= {"GETATTR", "FORGET", "BATCH_FORGET"}, "nothing else is asked"


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.skipif(not os.access(DEVICE, os.W_OK), reason="this kernel takes no wishes for the latency of its processors")
def test_each_operation_is_measured_with_processors_awake_and_without(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakefulness, "adopt_daemons", lambda: None)
    monkeypatch.setattr(sys, "argv", ["wakefulness", "--count", "60", "--rounds", "2"])
    mounts: list[str] = []
    honest = wakefulness.mounted

    def mounted(peer: Peer, folder: Path) -> AbstractContextManager[Path]:
        mounts.append(peer.mount.rpartition(",")[2])
        return honest(peer, folder)

    monkeypatch.setattr(wakefulness, "mounted", mounted)
    wakefulness.main()
    assert mounts == ["nolowlatency", "lowlatency", "lowlatency", "nolowlatency"], "either is first in turns"
    rows = [line.strip("| ").split(" | ") for line in capfd.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 9
    for _, each, processor, awake_each, awake_processor, ratio in (map(str, row) for row in rows):
        assert all(float(figure) >= 0 for figure in (each, processor, ratio))
        assert float(awake_processor) == pytest.approx(float(awake_each) * (os.cpu_count() or 1), rel=0.02, abs=0.2)
