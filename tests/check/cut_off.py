"""A resizing that the power cut stopped, as it leaves the image."""

from razortools.check.repair.write_order import WriteOrder
from razortools.check.resize.resize import carried_out, judged
from razortools.engine.store.device import Device
from razortools.format.undo import Stage
from tests.check.samples import healthy

NEW_BYTES = 4 << 20  # twice as large: one of its backups lies where there was one before


def resized_until(last: Stage) -> Device:
    """Return the image whose resizing got as far as the end of the stage *last*."""
    device = healthy()
    before = judged(device)
    steps = carried_out(before, NEW_BYTES // before.image.block_bytes)
    device.resize(NEW_BYTES)
    for step in steps:
        order = WriteOrder(step.overlay)
        until = last if step is steps[-1] else Stage.BEHIND
        mark = order.mark(device, is_sound=True)
        assert mark is not None
        device.write(*mark)
        pages = [(order.stage(offset), offset, page) for offset, page in step.overlay.written_pages()]
        for _, offset, page in sorted(page for page in pages if page[0] <= until):
            device.write(offset, page)
    return device
