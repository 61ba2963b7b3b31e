"""dump --sanitize: a copy in which no name and no content is, on which razorfsck finds what it finds on the image."""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.check.runner import check_quietly
from razortools.debug import rehearsal
from razortools.debug.sanitize import dump, proof
from razortools.debug.sanitize.copy import sanitize
from razortools.debug.sanitize.frames import decompresses, stand_in
from razortools.debug.sanitize.standins import StandIns
from razortools.engine.store.device import Device, open_image
from razortools.engine.volume import open_volume
from razortools.errors import NotAnImage, UnsupportedFormat, UsageError
from razortools.format.compression import Algorithm, pack, unpack
from razortools.format.data import InlineData
from razortools.format.items import decode_item, owned_record
from razortools.format.journal import JournalEntry
from razortools.format.keys import HASH_MAX, HASH_MIN, entry_key, offset_of, xattr_key
from razortools.format.name import Name, hash_name
from razortools.format.record import Record
from razortools.format.xattr import Xattr
from razortools.units import InodeNo
from tests.check.damages import DAMAGES
from tests.check.editing import image_of, journal_entries, write_journal
from tests.check.samples import KeptDevice, healthy, unclean
from tests.debug.tool import answer, crashed, debug, furnished, text

SECRET = b"of this test"
_UNDO_BYTES_AT = next(field.offset for field in JournalEntry.FIELDS if field.name == "undo_bytes")
# No superblock tells what lies where, or one tells that it means something unknown: there is nothing to go by.
_NOTHING_TO_GO_BY = ("E0110", "E0112", "E0113")
_UNREADABLE = "E0802"  # a copy cannot be unreadable
SAMPLES: dict[str, Callable[[], Device]] = {
    "healthy": healthy,
    "one copy of each node": lambda: healthy(copies=1),
    "large blocks": lambda: healthy(block_bytes=8192),
    "a waiting journal": unclean,
    "a longer one": lambda: unclean(3),
}


def copied(device: Device) -> tuple[Device, StandIns]:
    target = KeptDevice(device.size_bytes)
    return target, sanitize(device, target, SECRET).names


def told(device: Device) -> str:
    copy, names = copied(device)
    return proof.difference(proof.judged(device), proof.judged(copy), names)


@pytest.mark.parametrize("name", SAMPLES)
def test_of_a_sound_copy_the_check_says_the_same(name: str) -> None:
    assert told(SAMPLES[name]()) == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_every_damage_stays_as_it_is(number: int) -> None:
    code, damaged = DAMAGES[number]
    device = damaged()
    if code in _NOTHING_TO_GO_BY:
        with pytest.raises((NotAnImage, UnsupportedFormat)):
            copied(device)
        return
    copy, names = copied(device)
    differs = proof.difference(proof.judged(device), proof.judged(copy), names)
    assert bool(differs) == (code == _UNREADABLE), differs
    assert _UNREADABLE in differs or not differs


@pytest.mark.slow
@pytest.mark.parametrize("kind", rehearsal.CLASSES)
def test_every_class_of_damage_stays_as_it_is(kind: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, image, f"damage --class {kind} --seed 1 {tmp_path / 'hurt'}")
    with open_image(tmp_path / "hurt", writable=False) as device:
        if kind == "lost-superblocks":
            with pytest.raises(NotAnImage):
                copied(device)
        else:
            assert check_quietly(device).findings
            assert told(device) == ""


def secrets_of(device: Device) -> Iterator[bytes]:
    """Yield the names and contents of an image, in pieces."""
    for record in records_of(device):
        if isinstance(record, Name):
            yield record.text
        elif isinstance(record, Xattr):
            yield record.name.partition(b".")[2]
            yield b"" if record.out_of_line else record.value
        elif isinstance(record, InlineData):  # nor is it there compressed
            yield from (record.stored[at : at + 16] for at in range(16, len(record.stored), 16))
    for contents in contents_of(device):
        yield from (contents[at : at + 16] for at in range(0, len(contents), 16))


def records_of(device: Device) -> Iterator[Record]:
    with open_volume(device, read_only=True) as volume:
        yield from (decode_item(key, value) for key, value in volume.store.tree.items(bytes(18), b"\xff" * 18))


def contents_of(device: Device) -> Iterator[bytes]:
    with open_volume(device, read_only=True) as volume:
        for key, value in volume.store.tree.items(bytes(18), b"\xff" * 18):
            record = decode_item(key, value)
            if isinstance(record, InlineData):
                yield unpack(record.stored, record.algorithm, record.raw_bytes)
            elif (owned := owned_record(key, value)) is not None:
                yield volume.store.read_record(owned)


@pytest.mark.parametrize("name", SAMPLES)
def test_no_name_and_no_content_is_in_the_copy(name: str) -> None:
    device = SAMPLES[name]()
    copy, _ = copied(device)
    found = b"|".join(re.sub(b"\0{32,}", bytes(32), part) for part in [copy.read(0, copy.size_bytes), *contents_of(copy)])
    windows = {found[at : at + 16] for at in range(len(found))}
    wanted = {one for one in secrets_of(device) if len(one) >= 4 and len(set(one)) > 3}
    assert len(wanted) > 1000
    assert [one for one in wanted if (one in windows if len(one) == 16 else one in found)] == []


def test_a_name_is_as_long_as_before_and_equal_names_stay_equal() -> None:
    device = healthy()
    copy, names = copied(device)
    before, after = list(records_of(device)), list(records_of(copy))
    assert [type(one) for one in before] == [type(one) for one in after]
    pairs = [
        (old.text, new.text) for old, new in zip(before, after, strict=True) if isinstance(old, Name) and isinstance(new, Name)
    ]
    assert len(pairs) > 50
    assert len(set(pairs)) == len({old for old, _ in pairs}) == len({new for _, new in pairs})
    assert all(len(old) == len(new) and new == names.name(old) for old, new in pairs)


_TEXT = st.binary(min_size=1, max_size=40).filter(lambda name: name not in (b".", b".."))


@settings(max_examples=60, deadline=None)
@given(st.sets(_TEXT, max_size=60), st.sets(st.integers(HASH_MIN, HASH_MAX - 1), max_size=20), st.binary(min_size=1, max_size=16))
def test_keys_keep_their_order_and_names_are_filed_right(texts: set[bytes], strays: set[int], secret: bytes) -> None:
    attributes = {b"user." + one for one in texts}
    names = StandIns(secret, b"old seed", b"new seed")
    names.learn(texts, attributes)
    filed = {hash_name(text, b"old seed"): text for text in texts | attributes}
    keys = [entry_key(InodeNo(1), offset) for offset in {*filed, *strays, 0, HASH_MAX, (1 << 64) - 1}]
    keys += [xattr_key(InodeNo(2), offset) for offset in filed]
    for key in keys:
        names.note(key)
    try:
        names.settle()
    except UsageError:
        assert sum(len(text) <= 2 for text in texts) > 20
        return
    new = [names.hashed(key) for key in sorted(keys)]
    assert new == sorted(set(new))
    for offset, name in filed.items():
        stand = names.name(name)
        assert len(stand) == len(name)
        assert [at for at, byte in enumerate(name) if byte in b"/\0"] == [at for at, byte in enumerate(stand) if byte in b"/\0"]
        free = bytes(byte for byte in name.removeprefix(b"user.") if byte not in b"/\0")
        if free:
            assert stand not in texts | attributes
            assert offset_of(names.hashed(entry_key(InodeNo(1), offset))) == hash_name(stand, b"new seed")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from((Algorithm.ZSTD, Algorithm.LZ4, Algorithm.ZLIB)),
    st.integers(1, 300_000),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_what_stands_for_stored_bytes_decompresses_as_they_do(algorithm: Algorithm, size: int, kind: int, part: int) -> None:
    chance = random.Random(size)
    raw = (chance.randbytes(size * part // 100) + (b"abc"[: kind or 1] * size))[:size]
    stored = pack(raw, algorithm)
    made_by, made = stand_in(int(algorithm), len(stored), size)
    assert len(made) == len(stored)
    assert decompresses(made_by, made, size)
    assert made_by == algorithm or len(stored) >= size
    assert not decompresses(int(algorithm), stand_in(int(algorithm), len(stored), size, whole=False)[1], size)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("dump")
    return crashed(here / "dirty.img", furnished(here / "a.img"), commits=3)


def test_the_command_tells_what_it_wrote(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = image.read_bytes()
    done = answer(capsys, image, f"dump --sanitize {tmp_path / 'copy'}")
    assert image.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
    assert done["copy"] == str(tmp_path / "copy")
    assert done["findings"] == {"E0201": 1}
    assert min(done[key] for key in ("names", "nodes", "records", "journal_entries")) > 0
    assert done["stored_bytes"] < 1 << 20 < (tmp_path / "copy").stat().st_size == image.stat().st_size
    assert "razorfsck finds the same" in text(capsys, image, f"dump --sanitize {tmp_path / 'again'}")
    assert debug("-R", f"dump --sanitize {tmp_path / 'copy'}", image) == 2
    assert debug("-R", "dump", image) == 2


def test_a_damaged_image_is_copied_with_its_damage(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, image, f"damage --class lost-node --seed 3 {tmp_path / 'hurt'}")
    done = answer(capsys, tmp_path / "hurt", f"dump --sanitize {tmp_path / 'copy'}")
    assert "E0302" in done["findings"]
    with open_image(tmp_path / "copy", writable=False) as copy:
        assert "E0302" in {finding.code for finding in check_quietly(copy).findings}


def test_a_copy_that_does_not_prove_itself_is_not_there(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forgetful(device: Device, target: Device, secret: bytes) -> object:
        made = sanitize(device, target, secret)
        target.write(0, bytes(4096))
        return made

    monkeypatch.setattr(dump, "sanitize", forgetful)
    assert debug("-R", f"dump --sanitize {tmp_path / 'copy'}", image) == 1
    assert "E0101" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_a_superblock_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_bytes(bytes(1 << 20))
    assert debug("-R", f"dump --sanitize {tmp_path / 'copy'}", nothing) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["nothing"]


@pytest.mark.parametrize("seed", range(6))
def test_rubbish_anywhere_stays_what_it_is(seed: int) -> None:
    chance = random.Random(seed)
    device = unclean(3) if seed % 2 else healthy()
    used = [block for block in range(device.size_bytes // 4096) if any(device.read(4096 * block, 4096))]
    for _ in range(chance.choice((3, 20))):
        device.write(4096 * chance.choice(used) + chance.randrange(4088), chance.randbytes(8))
    assert proof.judged(device)
    assert told(device) == ""


def test_what_stands_for_a_broken_entry_does_not_reach_into_other_transactions() -> None:
    device = unclean(3)
    image = image_of(device)
    first, second, *_ = journal_entries(image)
    older = device.read((image.geometry.journal_start + first.position // 4096) * 4096, 4096)
    write_journal(image, first.position - 4096, older)  # what an earlier round has left in front of it
    write_journal(image, second.position - 4096 + _UNDO_BYTES_AT, (9000).to_bytes(4, "little"))  # and its length is a lie
    assert told(device) == ""
