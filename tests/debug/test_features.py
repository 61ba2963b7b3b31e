"""feature NAME on|off: a bit changes when nothing is left that it announces, and at no moment before."""

from pathlib import Path

import pytest

from razortools.check.comparison import loss
from razortools.check.findings import Severity
from razortools.check.inventory import take_inventory
from razortools.check.runner import Options, check_quietly
from razortools.debug.commands import COMMANDS
from razortools.debug.crashtest.disks import RecordingDisk
from razortools.debug.opening import look_into
from razortools.debug.session import run_line
from razortools.engine.store import superblocks
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.errors import UsageError
from razortools.format.data import CHECKED_TWICE
from razortools.format.items import owned_record
from razortools.format.superblock import Incompat
from tests.check.samples import Copy, healthy, opened, unclean
from tests.debug.cut_off import states
from tests.debug.tool import answer, crashed, debug, furnished, text

SEED = 3
ONE_THREAD = Options(threads=1)


def records_checked_twice(device: Device) -> int:
    volume = opened(Copy(device))
    owned = (owned_record(key, value) for key, value in volume.store.tree.items(bytes(18), b"\xff" * 18))
    return sum(record is not None and bool(record.flags & CHECKED_TWICE) for record in owned)


def holding(image: bytes) -> Device:
    device = MemoryDevice(len(image))
    device.write(0, image)
    return Copy(device)


def run(device: Device, *lines: str) -> None:
    session = look_into(device, writable=True)
    for line in lines:
        run_line(session, COMMANDS, line)
    session.close()


@pytest.mark.parametrize(
    ("name", "bit"),
    [("second_checksum", Incompat.SECOND_CHECKSUM), ("patches", Incompat.PATCHES), ("late_pages", Incompat.LATE_PAGES)],
)
def test_what_can_be_switched_off_can_be_switched_on_again(name: str, bit: Incompat) -> None:
    device = unclean()
    before = take_inventory(Copy(device), 1)
    for state in ("off", "on"):
        run(device, f"feature {name} {state}", f"feature {name} {state}")
        assert bool(superblocks.newest(device).incompat & bit) == (state == "on")
        assert check_quietly(device, ONE_THREAD).findings == ()
        assert loss(before, take_inventory(Copy(device), 1)).is_none
        if bit is Incompat.SECOND_CHECKSUM:
            assert records_checked_twice(device) == 0  # those that are there get none


def test_new_records_go_by_the_bit_at_once() -> None:
    device = healthy()
    run(device, "feature second_checksum off", "recompress none /docs")
    assert records_checked_twice(device) == 0 and check_quietly(device, ONE_THREAD).findings == ()
    run(device, "feature second_checksum on", "recompress zstd /docs")
    assert records_checked_twice(device) > 0 and check_quietly(device, ONE_THREAD).findings == ()


@pytest.mark.parametrize("name", ["zstd", "lz4", "zlib", "string_table"])
def test_what_cannot_be_switched_off_says_why(name: str) -> None:
    device = healthy()
    before = superblocks.newest(device).incompat
    with pytest.raises(UsageError, match=r"cannot be switched off: (this version compresses|names are not)"):
        run(device, f"feature {name} off")
    assert superblocks.newest(device).incompat == before


@pytest.mark.slow
@pytest.mark.parametrize("state", ["off", "on"])
def test_a_power_cut_leaves_the_bit_set_or_not_and_nothing_unannounced(state: str) -> None:
    print(f"seed {SEED}")
    start = healthy()
    if state == "on":
        run(start, "feature second_checksum off")
    image = start.read(0, start.size_bytes)
    before = take_inventory(Copy(start), 1)
    disk = RecordingDisk(bytearray(image))
    session = look_into(disk, writable=True)
    run_line(session, COMMANDS, f"feature second_checksum {state}")
    seen, bits = 0, set()
    for left in dict.fromkeys(states(image, disk.log, 8, SEED)):
        device = holding(left)
        found = [finding for finding in check_quietly(device, ONE_THREAD).findings if finding.severity > Severity.NOTE]
        assert found == []
        opened(device).close()
        is_set = bool(superblocks.newest(device).incompat & Incompat.SECOND_CHECKSUM)
        assert is_set or not records_checked_twice(device)
        assert loss(before, take_inventory(device, 1)).is_none
        seen, bits = seen + 1, bits | {is_set}
    assert seen > 10 and bits == {True, False}


def test_the_command_tells_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = crashed(tmp_path / "dirty.img", furnished(tmp_path / "a.img"))
    done = answer(capsys, image, "feature second_checksum off", "-w")
    assert done["changed"] and not done["set"] and done["records"] > 0
    assert "off already" in text(capsys, image, "feature second_checksum off", write=True)
    assert debug("-R", "feature second_checksum on", image) == 1
    assert debug("-w", "-R", "feature second_checksum", image) == 2
    assert debug("-w", "-R", "feature nothing on", image) == 2
    assert debug("-w", "-R", "feature zstd off", image) == 2
    with open_image(image, writable=False) as device:
        assert check_quietly(device).findings == ()


def test_on_a_damaged_image_nothing_is_switched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    answer(capsys, image, f"damage --class lost-node {tmp_path / 'hurt'}")
    before = (tmp_path / "hurt").read_bytes()
    assert debug("-w", "-R", "feature second_checksum off", tmp_path / "hurt") == 1
    assert (tmp_path / "hurt").read_bytes() == before
