"""Opening: an image in any state is looked at as far as it goes, and a reader never changes a byte of it."""

from pathlib import Path

import pytest

from razortools.debug.opening import open_session
from razortools.engine import namespace
from razortools.engine.store import superblocks
from razortools.engine.store.device import open_image
from razortools.errors import CorruptImage, ImageBusy
from razortools.format.inode import ROOT_INODE
from tests.debug.tool import crashed, debug, furnished, hurt
from tests.images import open_for_writing


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return furnished(tmp_path / "a.img")


def opened(image: Path) -> tuple[list[str], bool, bytes]:
    """Return what was told, whether there is a volume, and the names in its root."""
    told: list[str] = []
    with open_session(str(image), writable=False, tell=told.append) as session:
        names = b" ".join(sorted(name for name in (b"home", b"late") if session.has_volume and _has(session.volume, name)))
        assert session.superblock().block_bytes == 4096
        return told, session.has_volume, names


def _has(volume: object, name: bytes) -> bool:
    try:
        namespace.lookup(volume, ROOT_INODE, name)  # type: ignore[arg-type]
    except namespace.PosixError:
        return False
    return True


def root_node(image: Path) -> int:
    """Return the block of the root node's first copy."""
    with open_image(image, writable=False) as device:
        return superblocks.newest(device).root.address


def test_clean_dirty_and_damaged_images_are_looked_at_without_a_change(image: Path, tmp_path: Path) -> None:
    dirty = crashed(tmp_path / "dirty.img", image)
    damaged = tmp_path / "damaged.img"
    damaged.write_bytes(image.read_bytes())
    with open_image(damaged, writable=False) as device:
        root = superblocks.newest(device).root
    hurt(damaged, root.address * 4096)
    hurt(damaged, root.mirror * 4096)
    for one, has_volume, names in ((image, True, b"home late"), (dirty, True, b"home late"), (damaged, False, b"")):
        before = one.read_bytes()
        assert opened(one) == ([], has_volume, names)
        assert one.read_bytes() == before


def test_a_damaged_journal_shows_the_last_checkpoint_and_says_so(image: Path, tmp_path: Path) -> None:
    dirty = tmp_path / "dirty.img"
    volume = open_for_writing(image)
    for name in (b"late", b"later", b"latest"):
        namespace.mkdir(volume, ROOT_INODE, name, 0o755, 0, 0)
        volume.commit()
    dirty.write_bytes(image.read_bytes())
    tail = volume.store.journal.tail % volume.store.journal.ring_bytes
    start = volume.store.geometry.journal_start * 4096
    volume.close()
    hurt(dirty, start + tail)
    told, has_volume, names = opened(dirty)
    assert (has_volume, names) == (True, b"home")
    assert "This shows its last checkpoint" in told[0]


def test_a_mounted_image_shows_its_last_checkpoint_and_a_writer_is_refused(image: Path) -> None:
    with open_for_writing(image) as volume:
        namespace.mkdir(volume, ROOT_INODE, b"late", 0o755, 0, 0)
        volume.commit()
        told, has_volume, names = opened(image)
        assert (has_volume, names) == (True, b"home")
        assert "in use" in told[0]
        assert "shows its last checkpoint" in told[0]
        with pytest.raises(ImageBusy), open_session(str(image), writable=True, tell=told.append):
            pass


def test_without_a_tree_a_command_that_needs_one_says_what_else_works(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_image(image, writable=False) as device:
        root = superblocks.newest(device).root
    hurt(image, root.address * 4096)
    hurt(image, root.mirror * 4096)
    assert debug("-R", "super", image) == 0
    assert debug("-R", "ls", image) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no good copy is left" in line and "what needs no tree works: super" in line


def test_what_a_failed_session_had_not_committed_is_dropped(image: Path) -> None:
    def fail() -> None:
        with open_session(str(image), writable=True, tell=lambda text: None) as session:
            namespace.mkdir(session.volume, ROOT_INODE, b"late", 0o755, 0, 0)
            raise CorruptImage("no")

    with pytest.raises(CorruptImage):
        fail()
    assert opened(image) == ([], True, b"home")
