"""What mount options do to the space that files take, in the image and on the host."""

import os
import random
from pathlib import Path

import pytest

from razortools.units import MIB
from tests.mount.mounts import Mounted

pytestmark = pytest.mark.mount


def host_bytes(image: Path) -> int:
    """Return how much of *image* the host really keeps."""
    return image.stat().st_blocks * 512


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and sync it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def stored_bytes(path: Path) -> int:
    """Return how much of the image a file takes."""
    return path.stat().st_blocks * 512


def test_the_compression_of_a_mount_is_that_of_its_new_files_only(unmounted: Mounted) -> None:
    text = b"the same words again and again " * 30_000
    mounted = unmounted.mount("compression=none")
    write_durably(mounted.path / "plain", text)
    mounted.remount()
    write_durably(mounted.path / "packed", text)
    assert stored_bytes(mounted.path / "plain") >= len(text)
    assert stored_bytes(mounted.path / "packed") < len(text) // 10
    assert (mounted.path / "plain").read_bytes() == text


@pytest.mark.parametrize("discard", [True, False])
def test_freed_space_goes_back_to_the_host_if_wanted(unmounted: Mounted, *, discard: bool) -> None:
    noise = random.Random(1).randbytes(20 * MIB)
    mounted = unmounted.mount("discard" if discard else "nodiscard")
    write_durably(mounted.path / "large", noise)
    write_durably(mounted.path / "kept", noise[: 2 * MIB])
    full = host_bytes(mounted.image)
    assert full > 22 * MIB
    (mounted.path / "large").unlink()
    mounted.umount()
    assert (host_bytes(mounted.image) < 10 * MIB) == discard
    mounted.mount()
    assert (mounted.path / "kept").read_bytes() == noise[: 2 * MIB]
