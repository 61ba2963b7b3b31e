"""The benchmark of room: its data are the same each time and what they say they are, and what was not written is noticed."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from bench import datasets, space
from bench.datasets import DATASETS
from bench.mounts.place import WrongResult


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of everything."""
    for name in ("FILE_BYTES", "DUMP_BYTES", "PROGRAM_BYTES", "PICTURE_BYTES"):
        monkeypatch.setattr(datasets, name, 64 * 1024)
    library = datasets.sources()[:40]
    monkeypatch.setattr(datasets, "sources", lambda: library)


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_is_the_same_each_time_and_has_no_path_twice(name: str, small: None) -> None:
    files = list(DATASETS[name]())
    assert files == list(DATASETS[name]())
    assert len({path for path, _ in files}) == len(files) > 0


@pytest.mark.parametrize(("name", "least", "most"), [("logs", 3, 8), ("a database dump", 2.5, 6), ("source code", 2.5, 6)])
def test_text_shrinks_as_text_does(name: str, least: float, most: float, small: None) -> None:
    data = b"".join(data for _, data in DATASETS[name]())
    assert least < len(data) / len(zstandard.compress(data, 1)) < most


def test_pictures_do_not_shrink(small: None) -> None:
    pictures = [data for path, data in datasets.mixture() if path.endswith(".jpg")]
    assert pictures and all(len(zstandard.compress(data, 1)) > len(data) * 0.99 for data in pictures)


def test_a_file_that_reads_back_differently_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert space.fill(tmp_path, (("a/b", b"abc"), ("c", b"de"))) == 5
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"abd")
    with pytest.raises(WrongResult, match="a/b"):
        space.fill(tmp_path, (("a/b", b"abc"),))


def test_what_takes_no_room_has_not_been_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere:
        def __enter__(self) -> Path:
            return tmp_path

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(space, "mounted", lambda peer, folder: Nowhere())
    monkeypatch.setattr(space, "dataset", lambda name: (("a", b"abc"),))
    monkeypatch.setattr(space, "used_bytes", lambda point: 4096)
    with pytest.raises(WrongResult, match="not been written"):
        space.measure(SimpleNamespace(name="peer"), "logs", tmp_path)


def rooms_of(**taken: int) -> space.Rooms:
    """On each peer every data set of 400 bytes takes so many."""
    return {(name, peer): space.Room(400, bytes_) for name in DATASETS for peer, bytes_ in taken.items()}


def test_the_table_has_a_ratio_for_each_peer_and_says_where_one_failed() -> None:
    rooms = rooms_of(btrfs=200, razorfs=100)
    del rooms["logs", "btrfs"]
    text = space.page("a machine", rooms, ["logs on btrfs: no"], ["btrfs", "razorfs"], list(DATASETS))
    lines = [line for line in text.splitlines() if line.startswith("|")][2 : 2 + len(DATASETS)]
    assert all("2.00" in line and "4.00" in line for line in lines if "logs" not in line)
    assert "failed" in lines[1] and text.endswith("Failed:\n\n- logs on btrfs: no\n")


def test_marks_come_from_what_was_measured() -> None:
    text = space.marks(rooms_of(btrfs=100, razorfs=101), list(DATASETS))
    assert text.count("not met") == len(DATASETS) and text.count(" met |") == len(DATASETS) + len(space.TEXTS)
    assert "not met" not in space.marks(rooms_of(btrfs=100, razorfs=100), list(DATASETS))
    assert space.marks(rooms_of(razorfs=200), list(DATASETS)).count("not met") == len(space.TEXTS)


def test_a_peer_that_fails_keeps_no_other_from_being_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(peer: SimpleNamespace, name: str, folder: Path) -> space.Room:
        if peer.name == "btrfs":
            raise space.PeerFailed("unknown filesystem type")
        return space.Room(400, 100)

    monkeypatch.setattr(space, "measure", measure)
    peers = [SimpleNamespace(name="btrfs"), SimpleNamespace(name="razorfs")]
    rooms, failures = space.measure_all(peers, ["logs"], tmp_path)  # type: ignore[arg-type]
    assert list(rooms) == [("logs", "razorfs")] and failures == ["logs on btrfs: unknown filesystem type"]


class Resting:
    """A daemon that tells fewer and fewer files that rest, and then what waits to be stored."""

    def __init__(self, told: list[tuple[int, int]]) -> None:
        self.told = told

    def figures(self) -> SimpleNamespace:
        files, dirty_bytes = self.told[0]
        self.told = self.told[1:] or self.told
        return SimpleNamespace(resting_files=files, volume=SimpleNamespace(dirty_bytes=dirty_bytes))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("told", "rests"), [([(2, 0), (1, 9), (0, 9), (0, 0)], True), ([(1, 0)], False)])
def test_what_rests_is_waited_for_until_it_is_stored(
    told: list[tuple[int, int]], rests: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, seconds = Resting(told), itertools.count()
    monkeypatch.setattr(space, "settle", lambda point: None)
    monkeypatch.setattr(space, "mount_at", lambda point: SimpleNamespace(device=0))
    monkeypatch.setattr(space, "Asker", lambda device, patience_s: daemon)
    monkeypatch.setattr(space.time, "sleep", lambda _: None)
    monkeypatch.setattr(space.time, "monotonic", lambda: next(seconds))
    if rests:
        space.let_rest(tmp_path)
        assert daemon.told == [(0, 0)]
    else:
        with pytest.raises(WrongResult, match="1 files have not rested"):
            space.let_rest(tmp_path)
