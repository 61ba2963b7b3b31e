"""Images that were made by earlier versions open, hold what they held, and take new work."""

import json
from pathlib import Path

import pytest
import zstandard

from razortools.engine import files, namespace
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from tools.golden_image import describe

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
GOLDEN = sorted(path.name.removesuffix(".img.zst") for path in FIXTURES.glob("version-*.img.zst"))


def device_of(name: str) -> MemoryDevice:
    """Return a device that holds the golden image *name*."""
    raw = zstandard.ZstdDecompressor().decompress((FIXTURES / f"{name}.img.zst").read_bytes())
    device = MemoryDevice(len(raw))
    device.write(0, raw)
    return device


def test_there_is_a_clean_and_a_dirty_golden_image_of_every_version() -> None:
    assert {"version-1.0-clean", "version-1.0-dirty"} <= set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("read_only", [True, False])
def test_a_golden_image_holds_what_its_manifest_tells(name: str, *, read_only: bool) -> None:
    volume = open_volume(device_of(name), read_only=read_only)
    manifest = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    assert describe(volume) == manifest
    assert (volume.recovered.transactions > 0) == name.endswith("dirty")


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_image_takes_new_work(name: str) -> None:
    device = device_of(name)
    volume = open_volume(device)
    ino = namespace.create(volume, ROOT_INODE, b"made later", 0o600, 0, 0)
    files.write(volume, ino, 0, b"new")
    volume.close()
    again = open_volume(device)
    assert files.read(again, namespace.lookup(again, ROOT_INODE, b"made later"), 0, 10) == b"new"
