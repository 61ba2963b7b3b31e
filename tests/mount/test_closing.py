"""How a mount ends, and what is known of it if it does not: without a mount."""

import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from razortools.service import closing, logs
from razortools.service.options import MountOptions
from razortools.service.server import Mounted
from tests.mount.mounts import ANSWER_S


class Nothing:
    """Takes whatever is done to it."""

    read_only = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.fixture
def ending() -> Iterator[Mounted]:
    """A mount without a kernel, of which a test replaces what it looks at. The process is afterwards as it was."""
    handlers = {number: signal.getsignal(number) for number in closing.SIGNALS}
    interval_s = sys.getswitchinterval()
    made = Mounted.__new__(Mounted)
    made._control = None
    made._connection = made._channel = made._session = made._remounter = Nothing()  # type: ignore[assignment]
    made._options = MountOptions()
    made._volume = Nothing()  # type: ignore[assignment]
    yield made
    sys.setswitchinterval(interval_s)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Path]:
    """The log's file, in use."""
    before = logs.log.handlers[:], logs.log.propagate, logs.log.level
    pyfuse3 = logging.getLogger("pyfuse3")
    others = pyfuse3.handlers[:], pyfuse3.propagate, pyfuse3.level
    logs.start(MountOptions(log=str(tmp_path / "log")), foreground=False)
    yield tmp_path / "log"
    for logger, (handlers, propagate, level) in ((logs.log, before), (pyfuse3, others)):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_threads_switch_as_usual_while_the_image_is_closed(ending: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switching often is for those who wait for answers, and there are none any more."""
    found = []

    async def serve() -> None:
        sys.setswitchinterval(0.0005)

    monkeypatch.setattr(ending, "_serve", serve)
    monkeypatch.setattr(ending, "_close", lambda: found.append(sys.getswitchinterval()))
    ending.run()
    assert found == [pytest.approx(0.005)]


def test_a_daemon_that_hangs_while_closing_says_where(ending: Mounted, logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve() -> None:
        pass

    def close_that_hangs() -> None:
        end = time.monotonic() + ANSWER_S
        while "close_that_hangs" not in logged.read_text():
            assert time.monotonic() < end, "it does not say so"

    monkeypatch.setattr(closing, "PATIENCE_S", 0.001)
    monkeypatch.setattr(ending, "_serve", serve)
    monkeypatch.setattr(ending, "_close", close_that_hangs)
    ending.run()


def test_nothing_is_said_of_a_daemon_that_has_closed_in_time(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log may have been opened again meanwhile: what is armed must write nowhere else, and be gone in the end."""
    said: list[str] = []

    def arm(patience_s: float, *, repeat: bool, file: int, exit: bool = False) -> None:
        assert not (repeat or exit)
        said.append(os.readlink(f"/proc/self/fd/{file}"))

    monkeypatch.setattr(faulthandler, "dump_traceback_later", arm)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: said.append("cancelled"))
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(ZeroDivisionError), closing.telling_where_it_hangs():
        assert said == [str(logged)]
        1 / 0  # noqa: B018
    assert said == [str(logged), "cancelled"]
    assert os.listdir("/proc/self/fd") == descriptors
