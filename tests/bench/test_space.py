"""The benchmark of room: its data are the same each time and what they say they are, and what was not written is noticed."""

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


def test_the_table_has_a_ratio_for_each_peer() -> None:
    takes = {"btrfs": 200, "razorfs": 100}
    rooms = {(name, peer): space.Room(400, taken) for name in DATASETS for peer, taken in takes.items()}
    lines = space.table(rooms, ["btrfs", "razorfs"]).splitlines()
    assert len(lines) == 2 + len(DATASETS)
    assert "2.00" in lines[2] and "4.00" in lines[2]
