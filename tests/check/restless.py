"""An image that changes while it is looked at, at chosen moments, as one that is mounted does. No clock, no threads.

The volume's writes go into a queue. Whoever looks sees them up to some point, the last one perhaps torn, and with each of its
reads more of them; when the queue is empty the volume does something more. So a look meets an image between any two writes.
"""

import random
from collections import deque

from razortools.check.witness import Witness
from razortools.engine import files, namespace
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import DeviceFailed, OutOfSpace
from razortools.format.inode import ROOT_INODE
from tests.check.samples import Clock, KeptDevice, healthy


class _Queueing(KeptDevice):
    """The volume's end: it sees all that it has written."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.queue: deque[tuple[int, bytes]] = deque()

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        super().write(offset, data)
        self.queue.append((offset, bytes(data)))


class Restless(MemoryDevice):
    """What a look sees."""

    def __init__(self, seed: int, *, calm: int = 4, checkpoints: float = 0.3) -> None:
        """Mount the sample image. Of *calm* reads one lets time pass; *checkpoints*: how many of the changes end in one."""
        base = healthy()
        super().__init__(base.size_bytes)
        self.name = "restless"
        self._chance = random.Random(seed)
        self._calm = calm
        self._checkpoints = checkpoints
        self._below = _Queueing(base.size_bytes)
        for offset in range(0, base.size_bytes, 1 << 16):
            self._below.write(offset, base.read(offset, 1 << 16))
        self._files: list[bytes] = []
        self.is_running = True
        self.step_count = 0
        self.volume: Volume = open_volume(self._below, clock=Clock())
        self.catch_up()

    def catch_up(self) -> None:
        """See all that was written."""
        while self._below.queue:
            super().write(*self._below.queue.popleft())

    def read(self, offset: int, length: int) -> bytes:
        """Let time pass, or not, and read."""
        if self.is_running and self._chance.randrange(self._calm) == 0:
            self._pass()
        return super().read(offset, length)

    def _pass(self) -> None:
        queue = self._below.queue
        if not queue:
            self.step()
        for _ in range(self._chance.choice((0, 1, 3, 20))):
            if queue:
                super().write(*queue.popleft())
        if queue:  # the one after it is under way
            offset, data = queue[0]
            super().write(offset, data[: self._chance.randrange(len(data))])

    def step(self) -> None:
        """Have the volume change something, and commit it or make a checkpoint."""
        self.step_count += 1
        chance, volume = self._chance, self.volume
        for _ in range(chance.randrange(1, 6)):
            try:
                self._change(volume, chance)
            except OutOfSpace:
                self._remove(volume, chance)
        if chance.random() < self._checkpoints:
            volume.checkpoint()
        else:
            volume.commit()

    def _change(self, volume: Volume, chance: random.Random) -> None:
        if len(self._files) > 25 or (self._files and chance.random() < 0.3):
            self._remove(volume, chance)
            return
        name = b"busy %d" % chance.randrange(1 << 40)
        ino = namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)
        self._files.append(name)
        files.write(volume, ino, 0, chance.randbytes(chance.choice((100, 3000, 9000, 40_000))))

    def _remove(self, volume: Volume, chance: random.Random) -> None:
        name = self._files.pop(chance.randrange(len(self._files)))
        namespace.unlink(volume, ROOT_INODE, name)

    def hurt(self, block: int) -> None:
        """Damage a block on the disk: the volume does not know of it, and does not write there."""
        raw = bytearray(super().read(block * 4096, 4096))
        raw[7] ^= 0x40
        super().write(block * 4096, raw)


class Pinned(Witness):
    """The daemon of the volume on a restless device, asked without a socket."""

    knows_all_writes = True

    def __init__(self, device: Restless) -> None:
        self._device = device
        self._store = device.volume.store
        self._begun = 0

    def settle(self) -> bool:
        """As service/holding.py: right after a checkpoint, when nothing is on its way."""
        self._store.maps.unpin(self)
        self._device.volume.checkpoint()
        self._device.catch_up()
        self._store.maps.pins.add(self)
        self._begun = self._store.begun_generation
        return True

    def has_written(self) -> bool:
        return self._store.begun_generation != self._begun

    def has_moved(self) -> bool:
        return not self._store.maps.pins.has(self)

    def close(self) -> None:
        self._store.maps.unpin(self)


def unreadable(*_: object) -> bytes:
    """Stand in for a device that fails."""
    raise DeviceFailed("no")
