"""damage: each class does to a copy what its label says, the same for the same seed, and razorfsck finds it."""

from pathlib import Path

import pytest

from razortools.check.runner import check_quietly
from razortools.debug.rehearsal import CLASSES
from razortools.engine.store.device import open_image
from tests.debug.tool import answer, crashed, debug, furnished

EXPECTED = {  # by class, what razorfsck must find
    "bit-in-data": "E0801", "bit-in-node": "E0804", "lost-node": "E0302", "misdirected-write": "E0801", "lost-slot": "E0101",
    "lost-superblocks": "E0110", "space-map": "E0508", "journal": "E0203", "truncated": "E0111", "link-count": "E0401",
    "entry-type": "E0405", "name-count": "E0601", "dangling-entry": "E0402",
}  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("rehearsal")
    return crashed(here / "dirty.img", furnished(here / "a.img"), commits=3)


def codes(image: Path) -> set[str]:
    with open_image(image, writable=False) as device:
        return {finding.code for finding in check_quietly(device).findings}


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_of_damage_is_found_and_the_image_itself_stays(
    kind: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = image.read_bytes()
    copies = []
    for name in ("one", "two"):
        told = answer(capsys, image, f"damage --class {kind} --seed 5 {tmp_path / name}")
        copies.append((tmp_path / name).read_bytes())
        assert told["label"] == CLASSES[kind][1]
        assert told["done"]
    assert image.read_bytes() == before
    assert copies[0] == copies[1] != before
    found = codes(tmp_path / "one")
    assert EXPECTED.get(kind, "E") in found or (kind not in EXPECTED and found - codes(image)), found
    assert debug("-R", f"damage --class {kind} {tmp_path / 'one'}", image) == 2


def test_another_seed_hits_something_else(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hit = {
        tuple(answer(capsys, image, f"damage --class bit-in-data --seed {seed} {tmp_path / str(seed)}")["done"])
        for seed in range(4)
    }
    assert len(hit) > 1
    assert debug("-R", f"damage --class nothing {tmp_path / 'x'}", image) == 2
    assert not (tmp_path / "x").exists()
