"""Writing an overlay out in order, without the means to take it back: the slots of the superblock come last."""

from razortools.engine.store.device import PAGE_BYTES, Device, OverlayDevice
from razortools.format.superblock import SLOT_COUNT


def write_plainly(overlay: OverlayDevice, image: Device, block_bytes: int) -> None:
    """Write what *overlay* changed: everything, flush, the slots, flush."""
    late: list[tuple[int, bytes]] = []
    for number in overlay.written_pages():
        offset = number * PAGE_BYTES
        data = overlay.read(offset, min(PAGE_BYTES, image.size_bytes - offset))
        if offset < SLOT_COUNT * block_bytes:
            late.append((offset, data))
        else:
            image.write(offset, data)
    image.flush()
    for offset, data in late:
        image.write(offset, data)
    image.flush()
