"""What opening an image after a crash takes of memory does not grow with its journal, whatever lies in that.

It kept every entry, four times their bytes, and of a transaction without its end for good measure twice: a mount of an image of
64 GiB could take more than 2 GiB before it served anything.
"""

from pathlib import Path

import pytest

from bench.recovering import made, run
from razortools.units import MIB

JOURNAL_BYTES = 8 * MIB
MORE_BYTES = 16 * MIB  # than for an image that was closed


MOUNTS = ("read-only", "mount")
CHECK = "razorfsck -n"


@pytest.fixture(scope="module")
def usual_bytes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What each program takes where nothing is to be replayed."""
    with made(tmp_path_factory.mktemp("clean"), JOURNAL_BYTES, "clean") as image:
        return {program: run(program, image).memory_bytes for program in (CHECK, *MOUNTS)}


@pytest.mark.parametrize("journal", ["large commits", "one transaction", "stored files", "torn", "heads only, torn"])
def test_a_mount_does_not_keep_what_it_replays(journal: str, usual_bytes: dict[str, int], tmp_path: Path) -> None:
    with made(tmp_path, JOURNAL_BYTES, journal) as image:
        for program in MOUNTS:
            ran = run(program, image)
            assert ran.code == 0
            assert ran.memory_bytes <= usual_bytes[program] + MORE_BYTES, program


@pytest.mark.parametrize("journal", ["one transaction", "torn"])
def test_a_check_does_not_keep_what_it_judges(journal: str, usual_bytes: dict[str, int], tmp_path: Path) -> None:
    with made(tmp_path, JOURNAL_BYTES, journal) as image:
        ran = run(CHECK, image)
    assert ran.code == 0  # what waits for replay, or was torn, is no damage
    assert ran.memory_bytes <= usual_bytes[CHECK] + MORE_BYTES
