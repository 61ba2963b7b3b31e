"""Volumes in memory for the tests of the namespace."""

from razortools.engine.create import create, plan_create
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY
from razortools.units import MIB

START_NS = 1_000_000


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = START_NS

    def __call__(self) -> int:
        return self.now


def new_device(size_bytes: int = 16 * MIB) -> MemoryDevice:
    """Return a device with an empty filesystem, the same one each time."""
    device = MemoryDevice(size_bytes)
    create(device, plan_create(size_bytes, uuid=bytes(range(16)), hash_seed=bytes(16), made_at_ns=START_NS))
    return device


def new_volume(size_bytes: int = 16 * MIB) -> Volume:
    """Return an empty volume. Its clock is a Clock."""
    return open_again(new_device(size_bytes))


def open_again(device: Device) -> Volume:
    """Return the volume on *device*. Its clock is a Clock."""
    return open_volume(device, clock=Clock())


def clock_of(volume: Volume) -> Clock:
    """Return the clock that new_volume gave it."""
    assert isinstance(volume.now_ns, Clock)
    return volume.now_ns


def items(volume: Volume) -> dict[bytes, bytes]:
    """Return all items of the tree, after bringing it up to date."""
    if not volume.read_only:
        volume.inodes.put_behind()
    return dict(volume.store.items(LOWEST_KEY, HIGHEST_KEY))
