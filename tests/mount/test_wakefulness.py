"""Processors are kept awake while requests follow one another, never otherwise, and nothing is left of it."""

import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from razortools.service.options import parse_options
from razortools.service.pump import FOLLOWING
from razortools.service.remount_plan import options_after
from razortools.service.wakefulness import DEVICE, PROCESSORS_MAX, Wakefulness
from tests.mount.mounts import Mounted
from tests.mount.test_pump import ECHO, Kernel, Pumping, run

AWAKE, AS_THEY_LIKE = 0, 2_000_000_000


class Clock:
    """Time that goes on when it is told to."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Device:
    """A pipe in the kernel's place: all that is said stays in it until somebody looks."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "latency"
        os.mkfifo(self.path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def said(self) -> list[int]:
        try:
            return [number for (number,) in struct.iter_unpack("=i", os.read(self._descriptor, 1 << 16))]
        except BlockingIOError:
            return []

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.close()


def wakefulness_at(
    device: Device | Path, wanted: bool | None = True, *, processors: int = 2, clock: Clock | None = None
) -> Wakefulness:
    path = device.path if isinstance(device, Device) else device
    made = Wakefulness(path, processors=processors, clock=clock or Clock())
    made.configure(wanted)
    return made


@given(words=st.lists(st.sampled_from(["keep", "let_go", "on", "off"]), max_size=12))
def test_the_kernel_is_told_what_changes_and_nothing_twice(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    device, clock = Device(tmp_path_factory.mktemp("dev")), Clock()
    wakefulness, is_on, is_kept, expected, kept_s = wakefulness_at(device, clock=clock), True, False, list[int](), 0.0
    for word in words:
        clock.now_s += 1
        kept_s += is_kept
        if word == "keep":
            wakefulness.keep()
            expected += [AWAKE] * (is_on and not is_kept)
            is_kept = is_on
        elif word == "on":
            wakefulness.configure(True)
            is_on = True
        else:
            wakefulness.let_go() if word == "let_go" else wakefulness.configure(False)
            expected += [AS_THEY_LIKE] * is_kept
            is_kept, is_on = False, is_on and word == "let_go"
        assert wakefulness.is_kept == is_kept
        assert wakefulness.kept_s == kept_s
    wakefulness.close()
    assert device.said() == expected + [AS_THEY_LIKE] * is_kept
    device.close()


@pytest.mark.parametrize("processors", [1, PROCESSORS_MAX, PROCESSORS_MAX + 1, 64])
@pytest.mark.parametrize("wanted", [None, True, False])
def test_where_there_are_many_processors_somebody_has_to_want_it(processors: int, wanted: bool | None, device: Device) -> None:
    wakefulness = wakefulness_at(device, wanted, processors=processors)
    wakefulness.keep()
    assert wakefulness.is_kept == (processors <= PROCESSORS_MAX if wanted is None else wanted)
    wakefulness.close()


@pytest.mark.parametrize("wanted", [None, True])
@pytest.mark.parametrize("refusing", ["is not there", "takes nothing"])
def test_what_the_machine_refuses_is_told_once_and_not_tried_again(
    wanted: bool | None, refusing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    opened: list[object] = []
    honest = os.open
    monkeypatch.setattr(os, "open", lambda *words: opened.append(words) or honest(*words))
    wakefulness = wakefulness_at(tmp_path / "none" if refusing == "is not there" else Path("/dev/full"), wanted)
    for _ in range(3):
        wakefulness.keep()
        assert not wakefulness.is_kept and wakefulness.kept_s == 0
        wakefulness.let_go()
        wakefulness.configure(wanted)
    (told,) = (record for record in caplog.records if "kept awake" in record.message)
    assert told.levelno == (logging.DEBUG if wanted is None and refusing == "is not there" else logging.WARNING)
    assert len(opened) == 1
    wakefulness.close()


@pytest.mark.parametrize("following", [0, 1, FOLLOWING - 1, FOLLOWING, FOLLOWING + 5])
def test_processors_are_kept_awake_while_requests_follow_one_another(following: int, device: Device) -> None:
    """Not for a request now and then; and whenever the pump is parked they sleep as they like."""

    async def story() -> None:
        kernel, wakefulness = Kernel(), wakefulness_at(device)
        at_work = Pumping(kernel, wakefulness=wakefulness)
        pump, left, awake = at_work.pump, [0], list[bool]()

        def spin() -> bool:
            awake.append(wakefulness.is_kept)
            left[0] -= 1
            return left[0] >= 0 and bool(kernel.ask(ECHO))

        pump._spin = spin  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            for _ in range(2):  # parked in between: it counts from the start
                await trio.testing.wait_all_tasks_blocked()
                assert not wakefulness.is_kept
                left[0] = following
                awake.clear()
                kernel.ask(ECHO)
                await trio.testing.wait_all_tasks_blocked()
                assert awake == [number >= FOLLOWING for number in range(following + 1)]
            nursery.cancel_scope.cancel()
        assert device.said() == [AWAKE, AS_THEY_LIKE] * (2 * (following >= FOLLOWING))
        wakefulness.close()
        kernel.close()

    run(story)


def test_a_pump_that_ends_in_the_middle_of_a_burst_lets_go(device: Device) -> None:
    """Closing comes next, and may take minutes."""

    async def story() -> None:
        kernel, wakefulness = Kernel(), wakefulness_at(device)
        pump = Pumping(kernel, wakefulness=wakefulness).pump
        left = [FOLLOWING]

        def spin() -> bool:
            left[0] -= 1
            if left[0] < 0:
                assert wakefulness.is_kept
                kernel.told()
                kernel.hang_up()
                return True
            return bool(kernel.ask(ECHO))

        pump._spin = spin  # type: ignore[method-assign]
        kernel.ask(ECHO)
        await pump.run()
        assert not wakefulness.is_kept and device.said() == [AWAKE, AS_THEY_LIKE]
        wakefulness.close()
        kernel.channel.close()

    run(story)


@pytest.mark.parametrize(("text", "wanted"), [("lowlatency", True), ("nolowlatency", False), ("noatime", None)])
def test_the_option_can_change_while_mounted(text: str, wanted: bool | None) -> None:
    assert parse_options([text]).low_latency is wanted
    assert options_after(parse_options(["commit=1"]), [text]).low_latency is wanted


@pytest.mark.skipif(not os.access(DEVICE, os.W_OK), reason="this kernel takes no wishes for the latency of its processors")
@pytest.mark.parametrize(("option", "is_open"), [("lowlatency", True), ("nolowlatency", False)])
def test_a_mount_holds_the_device_open_if_it_is_to(option: str, is_open: bool, unmounted: Mounted) -> None:
    unmounted.mount(option)
    (unmounted.path / "file").write_text("text")
    descriptors = Path(f"/proc/{unmounted.pid}/fd")
    assert (str(DEVICE) in map(os.readlink, descriptors.iterdir())) == is_open
    unmounted.umount()
