"""The exerciser of file contents, in short: a mount agrees with a model, and what compares them sees a difference.

The long run is tools/fsx.py.
"""

import os
from pathlib import Path

import pytest

from tests.mount.mounts import Mounted
from tools.exercise.exerciser import Exerciser, Plan
from tools.exercise.hands import Hands, Mismatch
from tools.exercise.steps import WEIGHTS, Chooser, Step, step_of

SMALL = ("cache=1M", "dirty=1M", "metadata_cache=1M", "commit=0.02", "checkpoint=0.1")
RECORD_BYTES = 1 << 17


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (1, ()),
        (2, SMALL),
        (3, ("writeback",)),
        (4, ("writeback", "compression=zstd:1", *SMALL)),
        (5, ("readahead=0", "strictatime", "compression=none", *SMALL)),
    ],
    ids=["as usual", "small caches", "writeback", "writeback and small caches", "no read-ahead, all stored as it is"],
)
def test_a_mount_agrees_with_a_model_of_files(unmounted: Mounted, seed: int, options: tuple[str, ...]) -> None:
    plan = Plan(operations=2000, seed=seed, mount_options=options, verify_every=500, remount_every=700, drop_every=900)
    outcome = Exerciser(unmounted, plan).run(print)
    assert outcome.failure == ""
    assert (outcome.operations, outcome.remounts, set(outcome.kinds)) == (2000, 3, set(WEIGHTS))


def test_the_same_seed_chooses_the_same_steps() -> None:
    def chosen(seed: int) -> list[Step]:
        chooser = Chooser(seed, 3, 1 << 20)
        return [chooser.next([1000, 200_000, 0]) for _ in range(1000)]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
    assert [step_of(step.line()) for step in chosen(1)] == chosen(1)


@pytest.fixture
def hands(tmp_path: Path) -> Hands:
    """Hands on two files of the host, in one of which are 10,000 bytes."""
    made = Hands(tmp_path, 2, RECORD_BYTES)
    made.do(Step("write", 0, 0, 10_000, 1))
    return made


def change_behind_the_back(hands: Hands, offset: int, data: bytes = b"\0") -> None:
    with open(hands.slots[0].path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("kind", ["read", "mapped-read", "private-write", "verify", "unlink"])
def test_one_wrong_byte_is_seen_whichever_way_it_is_read(hands: Hands, kind: str) -> None:
    change_behind_the_back(hands, 7000, b"\xff")
    with pytest.raises(Mismatch, match="1 bytes differ, the first at 7000") as seen:
        hands.do(Step(kind, 0, 0, 10_000, 4))
    assert (seen.value.file, seen.value.offset) == (0, 7000)


@pytest.mark.parametrize("kind", ["read", "fsync", "write", "reopen"])
def test_a_wrong_size_is_seen_at_the_next_step(hands: Hands, kind: str) -> None:
    os.truncate(hands.slots[0].path, 20_000)
    with pytest.raises(Mismatch, match="st_size 20000, expected 10000"):
        hands.do(Step(kind, 0, 0, 100))


def test_what_lies_behind_the_end_in_a_mapping_must_be_zeros(hands: Hands) -> None:
    hands.do(Step("mapped-read", 0, 0, 10_000))
    hands.slots[0].mapping(1).write(10_001, b"\7")
    with pytest.raises(Mismatch, match="the first at 10001"):
        hands.do(Step("mapped-read", 0, 0, 10_000))


def test_a_file_that_nobody_made_is_seen(hands: Hands, tmp_path: Path) -> None:
    (tmp_path / "another").touch()
    with pytest.raises(Mismatch, match="another"):
        hands.verify_all()


@pytest.mark.mount
def test_a_failure_is_a_story_with_a_mark_at_the_steps_that_touched_the_byte(
    unmounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [Step("write", 0, 0, 5000, 1), Step("write", 1, 0, 10, 1), Step("read", 0, 4000, 500)]
    exerciser = Exerciser(unmounted, Plan(operations=9, seed=1), iter(steps), is_kept=True)
    monkeypatch.setattr(Hands, "_read", lambda hands, slot, step: hands._same(slot, 4000, b"a", b"b"))
    story = exerciser.run().failure.splitlines()
    assert "1 bytes differ, the first at 4000" in story[0]
    assert [line[:4] for line in story[1:4]] == ["* 1:", "  2:", "* 3:"]
    assert exerciser.kept == steps
