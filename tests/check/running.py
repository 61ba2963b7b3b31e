"""razorfsck run by the tests: what is left behind by that, and images in files."""

from pathlib import Path
from typing import NamedTuple

from razortools.engine.store.device import Device


class Run(NamedTuple):
    """What a run of the command left behind."""

    code: int
    out: str
    err: str


def stored(device: Device, path: Path) -> Path:
    """Write what *device* holds into a file."""
    path.write_bytes(device.read(0, device.size_bytes))
    return path
