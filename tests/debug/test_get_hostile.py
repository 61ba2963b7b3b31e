"""`get` of an image that means harm: nothing is written outside of the place that was asked for."""

import os
from pathlib import Path

import pytest

from razortools.debug.copy_out import copy
from razortools.engine import namespace
from razortools.engine.volume import open_volume
from razortools.errors import CorruptImage
from razortools.format.directory import BackLink
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, name_key
from razortools.units import NameId
from tests.check.editing import edit_item, first_item
from tests.check.samples import Clock, healthy, opened


@pytest.mark.parametrize("text", [b"../a", b"..", b".", b"a/b", b"/ab", b"a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, text: bytes) -> None:
    device = healthy()
    with opened(device) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"evil"[: len(text)], 0o644, 0, 0)
    link = BackLink.decode(first_item(device, ino, Kind.BACK_LINK)[1])
    edit_item(device, name_key(NameId(link.name_id)), text=text)
    (tmp_path / "out").mkdir()
    with open_volume(device, clock=Clock(), read_only=True) as volume, pytest.raises(CorruptImage, match="impossible name"):
        copy(volume, ROOT_INODE, os.fsencode(tmp_path / "out" / "tree"))
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["tree"]
