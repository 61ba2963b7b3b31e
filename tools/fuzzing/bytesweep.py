"""The byte sweep: each byte of a small image is changed in turn, and each change is found or proven harmless.

A byte is harmless where nothing is: in a block that the space map calls free, and in the journal of an image at rest. That the
image then looks the same and can be used is proven once for each such block, with all its bytes changed.
"""

import functools
import random
from collections.abc import Iterator

from razortools.engine.store.device import Device
from razortools.engine.store.pages import PAGE_BYTES
from razortools.units import MIB
from tests.check.editing import image_of
from tests.check.samples import filled
from tests.check.test_flips import used_blocks
from tools.fuzzing.damaged import Damaged
from tools.fuzzing.harmless import why_not_usable
from tools.fuzzing.outcome import Outcome
from tools.fuzzing.staged import StagedCheck
from tools.fuzzing.verdict import Verdict, judge
from tools.fuzzing.view import View, view

IMAGE_BYTES = MIB + MIB // 2  # the smallest that what samples.fill() makes fits into
CROWD = 6  # every structure and three leaves are there all the same, and each of 300,000 checks has less of the same to read
WHOLE_EVERY = 61  # of so many changes one is judged by a whole check too, which must find the same


@functools.cache
def small_image() -> Device:
    """Return the image: small, closed cleanly, with everything in it that the format knows."""
    return filled(IMAGE_BYTES, crowd=CROWD)


@functools.cache
def _view() -> View:
    return view(small_image())


@functools.cache
def _used() -> frozenset[int]:
    return frozenset(used_blocks(small_image()))


@functools.cache
def _staged() -> StagedCheck:
    return StagedCheck(small_image())


def block_count() -> int:
    """Return how many blocks, and so seeds, there are."""
    return image_of(small_image()).geometry.block_count


def sweep(block: int, *, step: int = 1, start: int = 0) -> Iterator[Outcome]:
    """Change every byte of *block* (each *step*-th from *start*), one after the other. Behind the last block comes the first."""
    block %= block_count()
    if block not in _used():
        yield _free_block(block)
        return
    chance = random.Random(block)
    changes = [(offset, 1 << chance.randrange(8)) for offset in range(start, PAGE_BYTES, step)]
    raw = small_image().read(block * PAGE_BYTES, PAGE_BYTES)
    verdicts: dict[int, Verdict] = {}
    with _staged().of(block) as judged:
        for offset, bit in changes:
            verdicts[offset] = judged(offset, bytes([raw[offset] ^ bit]))
            yield _outcome(f"seed {block}, byte {offset}", verdicts[offset])
    for offset, bit in changes[::WHOLE_EVERY]:
        device = Damaged(small_image())
        device.write(block * PAGE_BYTES + offset, bytes([raw[offset] ^ bit]))
        if judge(device) != verdicts[offset]:
            yield Outcome("byte in use", ("failed",), f"seed {block}, byte {offset}", "a whole check finds something else")


def _outcome(case: str, verdict: Verdict) -> Outcome:
    if verdict.stumbled:
        return Outcome("byte in use", ("failed",), case, verdict.stumbled)
    if verdict.is_detected:
        return Outcome("byte in use", ("detected",), case)
    return Outcome("byte in use", ("failed",), case, "a changed byte in use was not found")


def _free_block(block: int) -> Outcome:
    """Change all bytes of a block that is not in use."""
    device = Damaged(small_image())
    raw = device.read(block * PAGE_BYTES, PAGE_BYTES)
    device.write(block * PAGE_BYTES, bytes(byte ^ 0x5A for byte in raw))
    verdict = judge(device)
    wrong = verdict.stumbled or ", ".join(verdict.codes)
    if not wrong and view(device) != _view():
        wrong = "what is seen has changed"
    wrong = wrong or why_not_usable(device)
    kind = "block not in use"
    return Outcome(kind, ("failed" if wrong else "harmless",), f"seed {block}", wrong)
