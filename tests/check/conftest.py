"""What the tests of the command share: how it is run, and an image to run it on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from razortools import fsck
from razortools.cli import app as cli
from tests.check.editing import edit_inode, find_inode
from tests.check.running import Run, stored
from tests.check.samples import healthy
from tests.schemas import valid


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Return a function that runs razorfsck with arguments."""

    def call(*arguments: object) -> Run:
        capfd.readouterr()
        code = cli.invoke(fsck.app, "razorfsck", cli.FSCK_CODES, [str(argument) for argument in arguments])
        done = Run(code, *capfd.readouterr())
        if "--json" in arguments:
            valid("razorfsck", json.loads(done.out))
        return done

    return call


@pytest.fixture
def hurt(tmp_path: Path) -> Path:
    """Return an image with a wrong link count."""
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    return stored(device, tmp_path / "hurt")
