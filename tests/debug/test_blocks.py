"""block: every byte of every block is named once, and what is wrong with it is said, whatever is left of the image."""

import random
from pathlib import Path

import pytest

from razortools.debug.opening import look_into
from razortools.debug.ownership import Wanted, owners
from razortools.engine.store.device import open_image
from razortools.units import BlockNo
from tests.debug.tool import answer, crashed, debug, furnished, hurt, text


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("blocks")
    return crashed(here / "dirty.img", furnished(here / "a.img"))


def blocks_in_use(image: Path) -> dict[str, int]:
    """Return a block of each kind."""
    session = look_into(open_image(image, writable=False), writable=False)
    found: dict[str, int] = {}
    for owner in owners(session, Wanted([(0, 4096)])):
        found.setdefault(owner.what.split(",")[0], owner.span[0])
    session.close()
    return found


def test_a_block_that_is_marked_and_that_nobody_names_is_told_as_such(tmp_path: Path) -> None:
    session = look_into(open_image(furnished(tmp_path / "a.img"), writable=False), writable=False)
    block_count = session.superblock().block_count

    def told(first: int, end: int) -> list[str]:
        return [owner.what for owner in owners(session, Wanted([(first, end)]))]

    free = [owner.span for owner in owners(session, Wanted([(0, block_count)])) if owner.what == "free"]
    first, end = max(free, key=lambda span: span[1] - span[0])
    session.volume.store.maps.mark_used(BlockNo(end - 1), 1)
    assert told(first, end - 1) == ["free"]
    assert told(first, end) == told(end - 1, end) == ["marked as used, but nothing that can be read names it"]
    assert told(block_count, block_count + 1) == ["behind the end of the filesystem"]
    session.close()


def test_every_byte_of_every_kind_of_block_is_told_once(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = blocks_in_use(dirty)
    assert set(kinds) == {
        "superblock",
        "space map A",
        "space map B",
        "journal",
        "tree node",
        "data",
        "a large extended attribute",
        "free",
    }
    raw = dirty.read_bytes()
    for block in {*kinds.values(), kinds["journal"] + 3, kinds["tree node"] + 1}:
        (told,) = answer(capsys, dirty, f"block {block}")
        at = 0
        for span in told["spans"]:
            assert span["at"] == at, (block, span)
            at += span["length"]
        assert at == 4096
        assert "".join(span["hex"] for span in told["spans"]) == raw[block * 4096 : (block + 1) * 4096].hex()
        assert "WRONG" not in text(capsys, dirty, f"block {block}")


def test_a_node_is_named_field_by_field_and_its_pointers_are_followed(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = blocks_in_use(dirty)
    (told,) = answer(capsys, dirty, f"block {kinds['tree node']}")
    spans = {span["name"]: span for span in told["spans"]}
    assert spans["generation"]["value"] == "3"
    follows = [span["follow"] for span in told["spans"] if "follow" in span]
    assert "/home" in follows
    assert any(follow.startswith("blocks ") and follow.endswith("good") for follow in follows)
    (top,) = answer(capsys, dirty, "block 0")
    assert next(span for span in top["spans"] if span["name"] == "root.mirror")["follow"] == "node of level 0, good"
    (journal,) = answer(capsys, dirty, f"block {kinds['journal'] + 3}")
    assert "8512: redo Name.text" in {span["name"] for span in journal["spans"]}
    assert journal["spans"][-1]["name"] == "zeros to the end of the block"
    assert len(answer(capsys, dirty, "block 0 3")) == 3


def test_a_flipped_bit_is_said_where_it_is(dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = blocks_in_use(dirty)
    chance = random.Random(5)
    whole = dirty.read_bytes()
    for kind, block in kinds.items():
        if kind in ("journal", "free", "space map A", "space map B"):
            continue
        at = block * 4096 + chance.randrange(20, 60)
        damaged = tmp_path / "damaged.img"
        damaged.write_bytes(whole)
        hurt(damaged, at, bytes([whole[at] ^ 4]))
        assert "WRONG" in text(capsys, damaged, f"block {block}"), kind
    active = 2 + answer(capsys, dirty, "super")["superblock"]["spacemap_active"]
    damaged.write_bytes(whole)
    hurt(damaged, active * 4096 + 100, b"\x11")
    assert "checksum: WRONG" in text(capsys, damaged, f"block {active}")


def test_blocks_can_be_looked_at_whatever_is_left(dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.img"
    damaged.write_bytes(dirty.read_bytes())
    backups = [copy["offset"] for copy in answer(capsys, dirty, "super")["copies"]]
    node = blocks_in_use(dirty)["tree node"]
    for offset in backups:
        hurt(damaged, offset + 200)
    before = damaged.read_bytes()
    assert "not known" in text(capsys, damaged, "block 0")
    assert "a node that nothing names begins here = of level 0" in text(capsys, damaged, f"block {node}")
    assert debug("-R", "super", damaged) == 1
    assert damaged.read_bytes() == before
    for wrong in ("block 99999999", "block -1", "block 0 0", "block x"):
        assert debug("-R", wrong, dirty) == 2
