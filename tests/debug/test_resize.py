"""resize: the same files in an image of another size, whatever happens meanwhile."""

import random
import re
from contextlib import suppress
from pathlib import Path

import pytest

from razortools.check import problems
from razortools.check.comparison import loss
from razortools.check.inventory import take_inventory
from razortools.check.resize import image_file
from razortools.check.resize import resize as resize_module
from razortools.check.resize.plan import Plan, are_free, make_plan, new_places
from razortools.check.resize.resize import Resized, carried_out, judged, least_bytes, resize
from razortools.check.resize.write import carry_out
from razortools.check.runner import check_quietly
from razortools.debug.crashtest.repairs import Mend, NothingToMend, RepairDepth, RepairExplorer, RepairTally
from razortools.engine import directories, files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.errors import CorruptImage, OutOfSpace, PosixError, UsageError
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import inode_key
from razortools.units import KIB, MIB
from tests.check.aged import aged
from tests.check.editing import edit_inode, find_inode
from tests.check.samples import Copy, healthy, opened
from tests.debug.tool import answer, crashed, debug, furnished, text
from tools.fuzzing.generator import healthy_image

SEED = 7
NOW_NS = 1_700_000_000 * 10**9
SIZES = (3 * MIB, 5 * MIB + 4 * KIB, 127 * MIB, 129 * MIB, 700 * MIB)  # a space map of one page, and of more
DEPTH = RepairDepth(states_per_flush=4, undo_from=1, again_from=2)


def shown(device: Device, overlay: OverlayDevice) -> None:
    """Let *device* hold what *overlay* shows, without the order that makes it safe."""
    device.resize(max(device.size_bytes, overlay.size_bytes))
    for offset, page in list(overlay.written_pages()):
        device.write(offset, page)


def resized(device: Device, size_bytes: int) -> Resized:
    """Resize, and cut the device if it is longer."""
    done = resize(device, size_bytes, lambda overlay: shown(device, overlay), NOW_NS)
    device.resize(done.bytes_after)
    return done


def delete_something(device: Device) -> None:
    """Delete files: what an image must allow, however full it is."""
    with opened(device) as volume:
        for _, name, _ in list(directories.entries(volume, ROOT_INODE))[:3]:
            try:
                namespace.unlink(volume, ROOT_INODE, name)
            except PosixError:
                continue


# The law, over images and sizes


@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_an_image_of_another_size_holds_the_same(seed: int) -> None:
    chance = random.Random(seed)
    device = Copy(healthy_image(seed).device)
    before = take_inventory(Copy(device), 1)
    opened(device).close()
    block_bytes = judged(device).image.block_bytes
    for _ in range(3):
        least = least_bytes(judged(device))
        wanted = chance.choice((least, chance.choice(SIZES), chance.randrange(least, device.size_bytes + MIB)))
        try:
            done = resized(device, wanted)
        except UsageError as refused:  # some are full
            wanted = int(re.findall(r"can (?:grow to|get as small as) (\d+) bytes", str(refused))[0])
            done = resized(device, wanted)
        assert done.bytes_after == device.size_bytes == wanted // block_bytes * block_bytes
        assert check_quietly(device).findings == ()
        assert loss(before, take_inventory(Copy(device), 1)).is_none
        later = Copy(device)
        delete_something(later)
        assert check_quietly(later).findings == ()


def crowded(seed: int) -> tuple[MemoryDevice, int]:
    """An image that was full, of which a part has been deleted: what is left lies all over it; and a size to shrink it to."""
    chance = random.Random(seed)
    device = MemoryDevice(chance.choice((2, 3, 4, 6)) * MIB)
    identity, copies = bytes(range(16)), chance.choice((1, 2))
    plan = plan_create(
        device.size_bytes, uuid=identity, hash_seed=bytes(16), metadata_copies=copies, journal_bytes=64 * KIB
    )
    create(device, plan)
    with opened(device) as volume:
        count = 0
        with suppress(OutOfSpace):
            while True:
                ino = namespace.create(volume, ROOT_INODE, b"f%d" % count, 0o644, 1, 2)
                files.write(volume, ino, 0, chance.randbytes(chance.choice((5000, 131_072, 131_072, 60_000))))
                volume.commit()
                count += 1
        share = chance.uniform(0.2, 0.8)
        for number in range(count):
            if chance.random() < share:
                namespace.unlink(volume, ROOT_INODE, b"f%d" % number)
    return device, chance.randrange(device.size_bytes // 3, device.size_bytes) // (4 * KIB) * 4 * KIB


@pytest.mark.parametrize("seed", [202, 268, 336, 381, 433, 462])
def test_what_makes_way_for_new_backups_is_what_it_was(seed: int, tmp_path: Path) -> None:
    """The step that vacates their places moved records to where another new backup was to be, which had been free. Of a hundred
    crowded images that were shrunk eight lost files: structures were judged, and contents were not.
    """
    device, wanted_bytes = crowded(seed)
    image = tmp_path / "image"
    image.write_bytes(device.read(0, device.size_bytes))
    before = judged(device)
    places = new_places(before, wanted_bytes // (4 * KIB))
    vacating, _ = carried_out(before, wanted_bytes // (4 * KIB))
    assert not are_free(before, places) and are_free(vacating.after, places)
    with open_image(image, writable=True) as there:
        image_file.resize_image(there, wanted_bytes)
        assert check_quietly(there).findings == ()
        assert loss(take_inventory(device, 1), take_inventory(there, 1)).is_none


def test_what_has_moved_is_read_before_the_means_to_take_it_back_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, wanted_bytes = crowded(202)
    image = tmp_path / "image"
    image.write_bytes(device.read(0, device.size_bytes))
    honest = image_file.write_out

    def spoiling(overlay: OverlayDevice, there: Device, *words: object, **more: object) -> object:
        """Write, and lose one block of what has moved."""
        done = honest(overlay, there, *words, **more)  # type: ignore[arg-type]
        page = next(iter(overlay._shown))
        there.write(page * 4 * KIB, b"not what it was")
        return done

    monkeypatch.setattr(image_file, "write_out", spoiling)
    with open_image(image, writable=True) as there, pytest.raises(CorruptImage, match="1 record that moved cannot be verified"):
        image_file.resize_image(there, wanted_bytes)
    assert there.size_bytes == device.size_bytes  # not cut off
    assert Path(f"{image}.undo").exists()


def test_what_moves_twice_is_what_it_was(tmp_path: Path) -> None:
    """The second step's overlay had a record from where it had lain at first, and the first step had written over that."""
    device, wanted_bytes = crowded(2068)
    image = tmp_path / "image"
    image.write_bytes(device.read(0, device.size_bytes))
    vacating, moving = carried_out(judged(device), wanted_bytes // (4 * KIB))
    assert not vacating.plan.moves.keys().isdisjoint(moving.plan.moves)
    with open_image(image, writable=True) as there:
        image_file.resize_image(there, wanted_bytes)
        assert check_quietly(there).findings == ()
        assert loss(take_inventory(device, 1), take_inventory(there, 1)).is_none


def test_what_does_not_fit_is_refused_with_the_size_that_does() -> None:
    device = aged()
    before = device.read(0, device.size_bytes)
    least = least_bytes(judged(device))
    with pytest.raises(UsageError, match=f"as small as {least} bytes"):
        resized(device, least - 4096)
    assert device.read(0, device.size_bytes) == before
    resized(device, least)


def test_a_larger_space_map_finds_a_place_and_a_smaller_one_comes_back() -> None:
    device = aged()
    before = judged(device).image.geometry
    resized(device, 300 * MIB)
    grown = judged(device).image.geometry
    assert grown.spacemap.page_count > before.spacemap.page_count
    assert min(grown.spacemap_starts) > before.journal_start and grown.journal_start == before.journal_start
    resized(device, 2 * MIB)
    shrunk = judged(device).image.geometry
    assert max(shrunk.spacemap_starts) < shrunk.block_count == before.block_count
    assert check_quietly(device).findings == ()


def test_an_image_that_is_not_sound_is_not_touched() -> None:
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    before = device.read(0, device.size_bytes)
    with pytest.raises(CorruptImage, match=r"E0401.*repair it first"):
        resized(device, 4 * MIB)
    assert device.read(0, len(before)) == before


def test_a_result_that_is_not_right_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(plan: Plan, overlay: OverlayDevice) -> object:
        key = inode_key(find_inode(overlay, "/docs/one"))
        leaf = next(number for number, low in reversed(list(enumerate(plan.measured.tree.leaf_lows))) if low <= key)
        plan.touched.add(leaf)
        value = plan.measured.tree.get(key)
        assert value is not None
        plan.moves[key] = value[:4] + b"\x63" + value[5:]  # another owner
        return carry_out(plan, overlay)

    monkeypatch.setattr(resize_module, "carry_out", forgetful)
    with pytest.raises(CorruptImage, match="would not be right"):
        resized(aged(), 4 * MIB)


# Power cuts


def first_step(size_bytes: int) -> Mend:
    """Return what makes an overlay show what the first transaction of a resizing makes of the image below it."""

    def mend(overlay: OverlayDevice) -> None:
        before = judged(overlay.base)
        block_count = size_bytes // before.image.block_bytes
        if block_count == before.image.geometry.block_count:
            raise NothingToMend
        made = carried_out(before, block_count)[0].overlay
        overlay._pages, overlay._shown = made._pages, made._shown

    return mend


def explored(device: Device, mend: Mend) -> RepairTally:
    return RepairExplorer(device.read(0, device.size_bytes), mend, SEED, DEPTH, is_sound=True).explore()


def longer() -> Device:
    """A filesystem that does not fill its device: what grows in place needs no length changed."""
    device = aged()
    device.resize(4 * MIB)
    return device


def vacated() -> Device:
    """An image in which nothing lies where its backups will be."""
    device = aged()
    steps = carried_out(judged(device), 1400 * KIB // 4096)
    assert len(steps) == 2
    shown(device, steps[0].overlay)
    return device


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "size_bytes"),
    [(longer, 4 * MIB), (aged, 1400 * KIB), (vacated, 1400 * KIB)],
    ids=["growing", "vacating", "shrinking"],
)
def test_a_power_cut_in_a_resizing_loses_nothing_and_can_be_taken_back(start: object, size_bytes: int) -> None:
    print(f"seed {SEED}")
    assert callable(start)
    found = explored(start(), first_step(size_bytes))
    assert found.violations == []
    assert found.is_written and len(found.states) > 20
    assert set(found.stages) == {"write-out", "undo", "again"}


@pytest.mark.slow
def test_a_backup_over_what_is_still_needed_is_caught() -> None:
    def hasty(overlay: OverlayDevice) -> None:
        before = judged(overlay.base)
        if are_free(before, new_places(before, 1400 * KIB // 4096)):
            raise NothingToMend
        made = OverlayDevice(overlay.base)
        carry_out(make_plan(before, 1400 * KIB // 4096), made)
        overlay._pages, overlay._shown = made._pages, made._shown

    assert any("worse off" in violation for violation in explored(aged(), hasty).violations)


def test_a_file_whose_length_alone_was_changed_is_sound() -> None:
    device = aged()
    device.resize(4 * MIB)  # cut off before anything else was written
    assert [finding.code for finding in check_quietly(device).findings] == [problems.DEVICE_LARGER.code]
    resize(device, 1400 * KIB, lambda overlay: shown(device, overlay), NOW_NS)  # cut off before the file was
    assert [finding.code for finding in check_quietly(device).findings] == [problems.DEVICE_LARGER.code]
    opened(device).close()
    assert resized(device, 1400 * KIB).nodes_written == 0
    assert device.size_bytes == 1400 * KIB


# The command


def test_a_file_grows_and_shrinks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = crashed(tmp_path / "dirty.img", furnished(tmp_path / "a.img"))
    told = answer(capsys, image, "resize")
    assert told["bytes"] == told["device_bytes"] == 16 * MIB > told["least_bytes"]
    grown = answer(capsys, image, "resize 40M", "-w")
    assert image.stat().st_size == 40 * MIB == grown["bytes_after"] == grown["device_bytes"]
    assert grown["undo_file"] == f"{image}.undo" and Path(f"{image}.undo").exists()
    assert text(capsys, image, "resize 40M", "cat /late", write=True).endswith("committed\n")
    shrunk = answer(capsys, image, f"resize {told['least_bytes']}", "-w")
    assert image.stat().st_size == told["least_bytes"] and shrunk["undo_file"] is None
    assert {path.name for path in tmp_path.glob("dirty.img.undo*")} == {"dirty.img.undo.1"}  # that of the growing
    with open_image(image, writable=False) as device:
        assert check_quietly(device).findings == ()
    assert debug("-w", "-R", "resize 300K", image) == 2
    assert "as small as" in capsys.readouterr().err
    assert debug("-R", "resize 1G", image) == 1
    assert debug("-w", "-R", "set inode.uid 5 /late", "-R", "resize 1G", image) == 2
    assert debug("-w", "-R", "resize huge", image) == 2


def test_what_was_changed_after_a_resizing_in_one_session_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    text(capsys, image, "mkdir /before", "resize 20M", "mkdir /after", "resize 17M", write=True)
    assert {"before", "after", "home"} <= set(text(capsys, image, "ls /").split())
    with open_image(image, writable=False) as device:
        assert check_quietly(device).findings == ()


def test_a_damaged_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    told = answer(capsys, image, f"damage --class link-count {tmp_path / 'hurt'}")
    hurt_image = Path(told["copy"])
    assert debug("-w", "-R", "resize 20M", hurt_image) == 1
    assert "E0401" in capsys.readouterr().err
    assert hurt_image.stat().st_size == 16 * MIB and not Path(f"{hurt_image}.undo").exists()
    answer(capsys, image, f"damage --class lost-node {tmp_path / 'lost'}")
    assert debug("-w", "-R", "resize 20M", tmp_path / "lost") == 1
    assert "E0302" in capsys.readouterr().err or (tmp_path / "lost").stat().st_size == 16 * MIB


def test_a_block_device_gets_no_larger_than_it_is() -> None:
    with pytest.raises(UsageError, match="make the device larger"):
        image_file.judge_size(MemoryDevice(2 * MIB), 2 * MIB + 1)
    image_file.judge_size(MemoryDevice(2 * MIB), 2 * MIB)


def test_growing_can_be_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from razortools.check.repair.undo import undo

    image = furnished(tmp_path / "a.img")
    text(capsys, image, "touch -t 5 /home/text", write=True)
    with open_image(image, writable=False) as device:
        rest = device.read(0, device.size_bytes)
    done = answer(capsys, image, "resize 40M", "-w")
    with open_image(image, writable=True) as device:
        undo(device, done["undo_file"])
    found = image.read_bytes()
    assert len(found) == len(rest)
    with open_image(image, writable=False) as device:
        assert check_quietly(device).findings == ()


def test_the_plan_of_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(OutOfSpace):
        make_plan(judged(aged()), 280)


@pytest.mark.parametrize("size", ["0", "1", "100K", "7E", "9E", "99999E", "9" * 5000])
def test_regression_a_size_that_no_image_can_have_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    """They were a ZeroDivisionError and a MemoryError."""
    image = furnished(tmp_path / "image", 4 * MIB)
    assert debug("-w", "-R", f"resize {size}", image) in (1, 2)  # the host may refuse it before we do
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "internal error" not in err
    assert image.stat().st_size == 4 * MIB
    assert list(tmp_path.iterdir()) == [image]
