"""Images with a past: the same image at several moments of its life, so that older blocks can be written back over newer ones."""

import functools
from dataclasses import dataclass

from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.units import MIB
from tests.check.samples import KeptDevice
from tests.workload import Clock, Workload, formatted, opened

IMAGE_BYTES = 2 * MIB
MOMENTS = 4
STEPS = 40  # operations between two moments


@dataclass(frozen=True, slots=True)
class History:
    """The states of one image, oldest first. All but the last were closed cleanly."""

    states: tuple[Device, ...]
    committed: tuple[Device, ...]  # the states that each commit since then left; empty: the last was closed cleanly, too
    last_session: tuple[Device, ...] = ()  # the states that each commit since the last but one left, in either case

    @property
    def is_pending(self) -> bool:
        """Whether the newest state is as a crash leaves it, with a journal that waits."""
        return bool(self.committed)

    @property
    def now(self) -> Device:
        """The newest state."""
        return self.states[-1]


@functools.lru_cache(maxsize=4)
def history(seed: int) -> History:
    """Return the history that *seed* makes, the same one each time."""
    device = KeptDevice(IMAGE_BYTES)
    formatted(device, metadata_copies=1 + seed % 2)
    clock = Clock()
    states: list[Device] = []
    committed: list[Device] = []
    is_pending = seed % 3 == 0
    for moment in range(MOMENTS):
        volume = opened(device, clock)
        session: list[Device] = []
        work = Workload(volume, seed * MOMENTS + moment, file_bytes_max=100_000)
        for step in range(STEPS):
            work.step()
            if step % 13 == 12:
                volume.commit()
                session.append(_kept(device))
        volume.commit()
        session.append(_kept(device))
        committed += session[:-1]
        if not (is_pending and moment == MOMENTS - 1):
            volume.close()
            committed = [_kept(device)]
        states.append(_kept(device))
    return History(tuple(states), tuple(committed) if is_pending else (), tuple(session))


def _kept(device: MemoryDevice) -> Device:
    """Return a copy that stays as it is."""
    kept = KeptDevice(device.size_bytes)
    for number, page in device.copy()._pages.items():
        kept.write(number * len(page), page)
    return kept
