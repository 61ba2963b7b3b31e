"""Opening an image to look into it, in whatever state it is.

Clean: as it is. Not closed: its journal is replayed into memory. Mounted by somebody else, or with a damaged journal: its last
checkpoint, which is told. Damaged so that no tree can be opened: the device alone, and whoever asks for the filesystem learns
why. Invariant: without the right to write, not a byte of the image changes; with it, an image that is in use is refused.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from razortools.debug.session import Session, reason_of
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.undo_place import default_undo_file, has_undo_file
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, ImageBusy, RazorError
from razortools.format.admin import Action

Tell = Callable[[str], None]
Hold = Callable[[], AbstractContextManager[object]]


@contextmanager
def open_session(image: str, *, writable: bool, tell: Tell, hold: Hold = nullcontext) -> Iterator[Session]:
    """Yield the session of the image at path *image*; *tell* gets a sentence if what it shows is not what is there now.

    *hold* is entered if somebody else has the image in use, and yields whether he keeps what is looked at. If the body raises,
    what it had not committed is dropped. Raises NotAnImage, UnsupportedFormat, DeviceFailed, ImageBusy (a writer only), each one
    sentence for the operator.
    """
    try:
        device = open_image(image, writable=writable)
    except ImageBusy as busy:
        if writable:
            raise
        with hold() as is_held:
            changing = "" if is_held else "; where it is written over meanwhile it may look damaged"
            tell(f"{busy}. Until then this shows its last checkpoint{changing}")
            device = open_image(image, writable=False, lock=False)
            with _session(device, writable=False, recover=False, tell=tell) as session:
                yield session
        return
    with _session(device, writable=writable, recover=True, tell=tell) as session:
        yield session


@contextmanager
def _session(device: Device, *, writable: bool, recover: bool, tell: Tell) -> Iterator[Session]:
    """Yield the session over *device*, and close both."""
    try:
        _judge_undo_file(device, writable=writable, tell=tell)
        session = look_into(device, writable=writable, recover=recover, tell=tell)
    except BaseException:
        device.close()
        raise
    try:
        yield session
    except BaseException:
        session.abandon()
        raise
    else:
        if session.surgery is not None:
            tell(f"{len(session.surgery.changes)} staged changes were not committed and are dropped")
        session.close()


def _judge_undo_file(device: Device, *, writable: bool, tell: Tell) -> None:
    """Tell of a commit, a resizing or a repair that was cut off. Raises ImageBusy for a writer, who could not take it back."""
    if not has_undo_file(device.name, tell):
        return
    from razortools.check.repair.undo import was_cut_off  # late: it loads slowly, and hardly ever is there one
    from razortools.check.repair.undo_shelf import HostShelf

    path = default_undo_file(device.name)
    if was_cut_off(device, HostShelf(path, device.name)):
        what = f"{device.name}: a change was cut off while it was written; razorfsck --undo {device.name} takes it back"
        if writable:
            raise ImageBusy(f"{what}. If what was written is to stay, remove {path} first")
        tell(what)


def look_into(device: Device, *, writable: bool, recover: bool = True, tell: Tell = lambda text: None) -> Session:
    """Return a session over *device*, with as much of the filesystem as can be opened. Raises as open_session() does."""
    try:
        return Session(device, _opened(device, writable=writable, recover=recover), writable=writable)
    except CorruptImage as damaged:
        reason = reason_of(damaged)
    except RazorError:
        raise
    except Exception as broken:  # damage under a right checksum can take any shape, and the device can still be looked at
        reason = f"{device.name}: opening it failed: {type(broken).__name__}: {broken}"
    volume = None if writable else _last_checkpoint(device, recover)
    if volume is not None:
        tell(f"{reason}. This shows its last checkpoint")
    return Session(device, volume, writable=writable, fault="" if volume is not None else reason)


def _opened(device: Device, *, writable: bool, recover: bool) -> Volume:
    return open_volume(device, read_only=not writable, recover=recover, opening=Action.DEBUG)


def _last_checkpoint(device: Device, recover: bool) -> Volume | None:
    """Return the filesystem without what the journal holds, if that can be opened."""
    if not recover:
        return None
    try:
        return open_volume(device, read_only=True, recover=False)
    except Exception:
        return None
