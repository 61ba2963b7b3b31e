"""Many processes and many files at once, in short; and what judges them knows what is wrong.

The long runs are tools/stress.py and tools/million.py.
"""

import os
import random
import signal
from pathlib import Path

import pytest

from razortools.units import MIB
from tests.mount.mounts import Mounted
from tools import million
from tools.daemon_figures import Figures, figures_of
from tools.million import Million
from tools.stressing import crew as crews
from tools.stressing import hanging, shared
from tools.stressing.client import Board, compare
from tools.stressing.crew import Crew, Rules
from tools.stressing.own import Own, Wrong, found_in

SMALL = ("cache=1M", "dirty=2M", "metadata_cache=1M", "commit=0.05", "checkpoint=0.2")


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("options", [(), SMALL, ("writeback", *SMALL)], ids=["as usual", "small caches", "writeback"])
def test_six_processes_do_everything_at_once_and_nothing_is_wrong_or_left(
    fuse: None, tmp_path: Path, options: tuple[str, ...]
) -> None:
    mounted = Mounted(tmp_path, 512 * MIB)
    try:
        assert Crew(mounted, Rules(clients=6, seconds=0, operations=150, seed=1), options).run(print) == []
    finally:
        mounted.take_away()


@pytest.mark.mount
@pytest.mark.slow
def test_who_finds_the_image_full_deletes_and_goes_on(fuse: None, tmp_path: Path) -> None:
    mounted = Mounted(tmp_path, 3 * MIB)
    try:
        crew = Crew(mounted, Rules(clients=3, seconds=0, operations=150, seed=1, may_be_full=True), SMALL)
        assert crew.run(print) == []
        assert ", 0 refused" not in crew.summary()
    finally:
        mounted.take_away()


@pytest.mark.mount
@pytest.mark.slow
def test_thousands_of_files_come_and_go_within_the_memory_that_was_allowed(unmounted: Mounted) -> None:
    assert Million(unmounted, 2000, SMALL, print).run() == []


@pytest.mark.mount
def test_a_daemon_that_takes_more_memory_than_allowed_is_told_of(unmounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(million, "SLACK_BYTES", -30 * MIB)
    problems = Million(unmounted, 100, SMALL, print).run()
    assert len(problems) == 1 and "are allowed" in problems[0]


@pytest.mark.mount
def test_the_kernels_inodes_are_counted(mounted: Mounted) -> None:
    before = figures_of(mounted.path)
    for number in range(10):
        (mounted.path / str(number)).touch()
    assert figures_of(mounted.path).held_inodes == before.held_inodes + 10
    for number in range(10):
        (mounted.path / str(number)).unlink()
    with open(mounted.path / "last", "w") as file:  # by then the kernel has told of those that went
        os.fsync(file.fileno())
    assert figures_of(mounted.path).held_inodes <= before.held_inodes + 11


@pytest.mark.mount
def test_what_is_still_held_at_the_end_is_told_of(mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "FORGET_S", 0.0)
    crew = Crew(mounted, Rules(clients=1, seconds=0, operations=1, seed=1), ())
    (mounted.path / "file").touch()
    with open(mounted.path / "file"):
        assert crew.judge_rest(figures_of(mounted.path), print) == ["1 inodes are held although nobody uses any"]


@pytest.mark.parametrize(("grown_bytes", "is_told"), [(20 * MIB, False), (40 * MIB, True)])
def test_memory_that_grows_is_told_of(tmp_path: Path, grown_bytes: int, is_told: bool) -> None:
    crew = Crew(Mounted(tmp_path), Rules(clients=1, seconds=0, operations=1, seed=1), ())
    for number in range(80):
        memory = 100 * MIB + (grown_bytes if number >= 60 else 0)
        crew.samples.append(
            Figures(resident_bytes=memory, peak_bytes=0, descriptor_count=0, thread_count=0, held_inodes=0, processor_s=0)
        )
    assert [problem.startswith("memory grows") for problem in crew.judge_memory()] == [True] * is_told


def test_a_client_sees_one_wrong_byte_in_its_own_directory(tmp_path: Path) -> None:
    own = Own(str(tmp_path), random.Random(1))
    while not any(path.is_file() and path.stat().st_size for path in tmp_path.iterdir()):
        own.create()
    compare(str(tmp_path), own.summary())
    file = next(path for path in tmp_path.iterdir() if path.is_file() and path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(Wrong, match=file.name):
        compare(str(tmp_path), own.summary())
    with pytest.raises(Wrong, match="the first that differs"):
        for _ in range(100):
            own.read()


def test_a_client_sees_what_is_missing_and_what_nobody_made(tmp_path: Path) -> None:
    own = Own(str(tmp_path), random.Random(1))
    own.create()
    wanted = own.summary()
    (tmp_path / "nobody").mkdir()
    with pytest.raises(Wrong, match="nobody"):
        compare(str(tmp_path), wanted)
    (tmp_path / "nobody").rmdir()
    next(tmp_path.iterdir()).unlink()
    with pytest.raises(Wrong, match="is None"):
        compare(str(tmp_path), wanted)
    assert found_in(str(tmp_path)) == {str(tmp_path): "directory"}


@pytest.fixture
def two_clients(tmp_path: Path) -> tuple[str, list[dict[str, object]]]:
    """A shared directory that two clients have used, one after the other."""
    root = str(tmp_path / "shared")
    shared.prepare(root, 2)
    done = []
    for client in range(2):
        one = shared.Shared(root, client, random.Random(client))
        for step in (one.append, one.append, one.count, one.stripe, one.publish):
            step()
        done.append(one.summary())
    shared.judge(root, done)
    return root, done


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("journal", "records, expected 4"),
        ("counter", "counter says"),
        ("stripes", "stripe of client 0"),
        ("published", "is not what was published"),
    ],
)
def test_a_change_in_the_shared_directory_is_seen(
    two_clients: tuple[str, list[dict[str, object]]], name: str, what: str
) -> None:
    root, done = two_clients
    if name == "published":
        name = next(name for name in sorted(os.listdir(root)) if name.startswith("p"))
    with open(f"{root}/{name}", "r+b") as file:
        file.seek(0 if name == "counter" else 60)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(Wrong, match=what):
        shared.judge(root, done)


def test_a_lost_turn_and_a_lost_append_are_seen(two_clients: tuple[str, list[dict[str, object]]]) -> None:
    root, done = two_clients
    done[1]["turns"] = 2
    with pytest.raises(Wrong, match="counter says 2, expected 3"):
        shared.judge(root, done)
    os.truncate(f"{root}/journal", 3 * shared.RECORD.size)
    with pytest.raises(Wrong, match="3 records, expected 4"):
        shared.judge(root, done)


def test_the_board_shows_what_each_client_does(tmp_path: Path) -> None:
    path = str(tmp_path / "board")
    board, other = Board(path, 3), Board(path)
    other.tell(1, 17, "rename")
    assert [board.read(client) for client in range(3)] == [(0, 0, ""), (1, 17, "rename"), (0, 0, "")]
    other.pulse(1)
    assert board.read(1) == (2, 17, "rename")
    assert not other.is_stopped
    board.stop()
    assert other.is_stopped
    assert other.read(0) == (0, 0, "")


@pytest.mark.mount
def test_a_client_that_hangs_is_told_of_with_the_stacks_and_everybody_gets_away(
    fuse: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "HANG_S", 1.0)
    monkeypatch.setattr(crews, "LOOK_S", 0.1)
    monkeypatch.setattr(hanging, "ANSWER_S", 0.1)
    mounted = Mounted(tmp_path)
    stopped: list[int] = []

    def stop_the_daemon(_: object) -> None:
        if not stopped:
            stopped.append(mounted.pid)
            os.kill(stopped[0], signal.SIGSTOP)

    try:
        crew = Crew(mounted, Rules(clients=2, seconds=0, operations=-1, seed=1), ())
        monkeypatch.setattr(crew, "_sample", stop_the_daemon)
        problems = crew.run(print)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
        mounted.take_away()
    wanted = ("hangs in '", "requests waiting: ", "does not answer on its control socket", "daemon, thread", "client 1, thread")
    for words in wanted:
        assert words in problems[0]
