"""What has rested is stored anew, harder, when nobody asks for anything: then, and only then. The clock is not the machine's."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from razortools.engine import files, recompress
from razortools.engine.limits import Limits
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.service import recompressing
from razortools.service.options import parse_options
from razortools.service.recompressing import LOOK_EVERY_S, Recompressor
from razortools.service.residence import Fetcher
from razortools.units import KIB, MIB, NANOSECONDS, InodeNo
from tests.engine.data_volumes import data_records, formatted, new_file
from tests.engine.test_recompress import prose

REST_S = 60.0


class Quiet:
    """A volume with a long file that nobody asks for, unless a test lets somebody ask."""

    def __init__(self) -> None:
        self.volume: Volume = open_volume(formatted(MemoryDevice(32 * MIB)), clock=lambda: int(trio.current_time() * NANOSECONDS))
        self.ino: InodeNo = new_file(self.volume)
        files.write(self.volume, self.ino, 0, prose(1, 2 * MIB))
        files.flush_all(self.volume)
        self.volume.commit()
        self.served = 0
        self.is_spare = True
        self.estimated: set[InodeNo] = set()
        self.recompressor = Recompressor(
            self.volume, Fetcher(self.volume.store.residence), lambda: self.served, self.estimated,
            rest_s=REST_S, is_spare=lambda: self.is_spare,
        )  # fmt: skip

    @property
    def harder(self) -> int:
        """Records that wait to be stored harder."""
        return sum(dirty.packed is not None for dirty in self.volume.records.dirty_of(self.ino).values())


@asynccontextmanager
async def quiet() -> AsyncIterator[Quiet]:
    mount = Quiet()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.recompressor.run)
        yield mount
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in the loop what threads do: for the clock, who waits for a thread sleeps."""

    async def run_sync(work: Callable[..., object], *arguments: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return work(*arguments)

    monkeypatch.setattr(recompressing.placement, "run_sync", run_sync)


def run(scenario: Callable[[], object]) -> None:
    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))  # type: ignore[arg-type]


def test_what_has_rested_is_made_dirty_to_be_stored_harder() -> None:
    async def scenario() -> None:
        async with quiet() as mount:
            await trio.sleep(REST_S - 2 * LOOK_EVERY_S)
            assert mount.harder == 0
            await trio.sleep(4 * LOOK_EVERY_S)
            assert mount.harder == mount.recompressor.record_count == 16
            assert mount.estimated == {mount.ino}
            before = sum(record.block_count(4096) for record in data_records(mount.volume, mount.ino).values())
            files.flush_all(mount.volume)
            after = sum(record.block_count(4096) for record in data_records(mount.volume, mount.ino).values())
            assert before - after == mount.recompressor.saved_blocks > 0
            assert files.read(mount.volume, mount.ino, 0, 2 * MIB) == prose(1, 2 * MIB)

    run(scenario)


def test_while_somebody_asks_nothing_is_done() -> None:
    async def scenario() -> None:
        async with quiet() as mount:
            for _ in range(100):
                await trio.sleep(LOOK_EVERY_S * 0.9)
                mount.served += 1
            assert mount.harder == 0
            await trio.sleep(4 * LOOK_EVERY_S)
            assert mount.harder == 16

    run(scenario)


def test_the_first_request_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with quiet() as mount:
            usual = recompressing.recompress.take

            def take(*arguments: object) -> object:
                mount.served += 1  # it comes while a step is under way
                return usual(*arguments)  # type: ignore[arg-type]

            monkeypatch.setattr(recompressing.recompress, "take", take)
            await trio.sleep(REST_S + 1.5 * LOOK_EVERY_S)
            assert mount.harder == 4  # one step

    run(scenario)


@pytest.mark.parametrize("why", ["no processor to spare", "off", "read-only", "much is dirty"])
def test_otherwise_it_lets_be(why: str) -> None:
    async def scenario() -> None:
        async with quiet() as mount:
            if why == "no processor to spare":
                mount.is_spare = False
            elif why == "off":
                mount.recompressor.configure(0.0)
            elif why == "read-only":
                mount.volume.store.read_only = True
            else:
                mount.volume.set_limits(Limits(dirty_bytes=MIB))
                files.write(mount.volume, new_file(mount.volume), 0, bytes(MIB * 3 // 10))
            await trio.sleep(3 * REST_S)
            assert mount.harder == 0

    run(scenario)


def test_data_that_cannot_be_read_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with quiet() as mount:
            item = data_records(mount.volume, mount.ino)[3]
            mount.volume.store.device.write(item.address * 4096, bytes(4096))
            await trio.sleep(3 * REST_S)
            assert mount.harder == 15

    run(scenario)
    assert sum("what has rested cannot be read" in record.message for record in caplog.records) == 1


def test_a_bug_in_recompressing_does_not_end_the_mount(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with quiet() as mount:
            monkeypatch.setattr(recompressing.recompress, "harder", lambda *_: 1 // 0)
            await trio.sleep(3 * REST_S)
            assert mount.harder == 0

    run(scenario)
    assert "cannot be stored anew, a bug in razortools" in caplog.text


def test_what_was_replaced_while_it_was_read_is_no_damage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its blocks are free after the next checkpoint, and something else may lie in them by the time they are read."""

    async def scenario() -> None:
        async with quiet() as mount:
            usual = recompressing.recompress.harder

            def harder(volume: Volume, several: list[recompress.Resting]) -> object:
                for one in several:
                    files.write(volume, one.ino, one.record_no * 128 * KIB, prose(9, 128 * KIB))
                    volume.checkpoint()
                    volume.store.device.write(one.item.address * 4096, bytes(4096))
                return usual(volume, several)

            monkeypatch.setattr(recompressing.recompress, "harder", harder)
            await trio.sleep(REST_S + 2 * LOOK_EVERY_S)
            assert mount.recompressor.record_count == 0

    run(scenario)
    assert "cannot be read" not in caplog.text


def test_a_file_that_cannot_be_found_keeps_no_other_from_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with quiet() as mount:
            other = new_file(mount.volume)
            files.write(mount.volume, other, 0, prose(2, 2 * 128 * KIB))
            files.flush_all(mount.volume)
            usual = recompressing.recompress.due

            def due(volume: Volume, *arguments: int) -> object:
                if volume.lately.first == mount.ino:
                    raise CorruptImage("its leaf is damaged")
                return usual(volume, *arguments)

            monkeypatch.setattr(recompressing.recompress, "due", due)
            await trio.sleep(REST_S + 4 * LOOK_EVERY_S)
            assert mount.harder == 0
            assert len(mount.volume.records.dirty_of(other)) == 2

    run(scenario)


@pytest.mark.parametrize(("text", "rest_s"), [("recompress=5", 5.0), ("recompress=off", 0.0), ("noatime", 300.0)])
def test_the_option_tells_how_long_data_rest(text: str, rest_s: float) -> None:
    assert parse_options([text]).rest_s == rest_s
