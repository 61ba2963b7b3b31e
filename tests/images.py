"""Small images for tests, made by the engine: the same bytes every time but for the clock."""

from pathlib import Path

from razortools.engine.create import create, plan_create
from razortools.engine.store.device import create_image, open_image
from razortools.engine.volume import Volume, open_volume
from razortools.units import MIB


def make_image(path: Path, size_bytes: int = 16 * MIB, **wishes: object) -> Path:
    """Make an empty filesystem in the file *path*, which must not exist, and return it."""
    with create_image(path, size_bytes) as device:
        plan = plan_create(size_bytes, uuid=bytes(range(16)), hash_seed=bytes(16), **wishes)  # type: ignore[arg-type]
        create(device, plan)
    return path


def open_for_writing(path: Path) -> Volume:
    """Return the open volume in the image *path*; close() or `with` finishes it."""
    return open_volume(open_image(path, writable=True))
