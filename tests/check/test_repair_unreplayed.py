"""A journal that cannot be replayed hides what became of the files: what a check finds in the older state is not acted upon."""

from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options
from razortools.debug.crashtest.hurting import hurt
from razortools.engine.store.device import MemoryDevice


def repaired(seed: int) -> Repaired:
    image = hurt(seed).image
    device = MemoryDevice(len(image))
    device.write(0, image)
    steps = repair(device, Wishes(check=Options(threads=1)))
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            done: Repaired = ended.value
            return done


def test_a_file_that_the_journal_deletes_does_not_come_back_in_parts() -> None:
    """A damaged map kept the journal from being replayed, and a damaged record of the deleted file was cut out: out of nothing."""
    for seed in (119, 153):
        print(f"seed {seed}")
        done = repaired(seed)
        assert done.after.clean
        assert done.loss is not None and done.loss.is_none
