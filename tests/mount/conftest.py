"""A mounted image for each test that asks for one, taken away again whatever happens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.mounts import Mounted, can_mount


@pytest.fixture(scope="session")
def fuse() -> None:
    """FUSE can be used. Elsewhere these tests have nothing to test; the engine's cover what does not need a mount."""
    if not can_mount():
        pytest.skip("/dev/fuse cannot be used here")


@pytest.fixture
def unmounted(fuse: None, tmp_path: Path) -> Iterator[Mounted]:
    """An image of the test's own, not mounted yet."""
    made = Mounted(tmp_path)
    try:
        yield made
    finally:
        made.take_away()
    assert made.complaints == []


@pytest.fixture
def mounted(unmounted: Mounted) -> Mounted:
    """An image of the test's own, mounted."""
    return unmounted.mount()


@pytest.fixture(scope="module")
def shared(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """An image that the tests of a module share, mounted."""
    made = Mounted(tmp_path_factory.mktemp("shared"))
    try:
        yield made.mount()
    finally:
        made.take_away()
    assert made.complaints == []


@pytest.fixture
def mnt(shared: Mounted, request: pytest.FixtureRequest) -> Path:
    """An empty directory of the test's own on the shared image."""
    folder = shared.path / str(len(list(shared.path.iterdir())))
    folder.mkdir()
    return folder
