"""A check of an image of which one page changes again and again: the passes that do not read that page are made once.

A pass is a function of the facts that it is given and of the bytes that it reads. So a pass that reads nothing of a page when the
undamaged image is checked finds the same, and hands on the same facts, whatever stands there. From the first pass on that reads
the page everything is made anew, by the runner itself. Invariant: facts are not changed by the passes that read them. Whoever
uses this compares its verdicts with those of whole checks, again and again.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from razortools.check import runner
from razortools.check.findings import Event, Progress
from razortools.engine.store.device import Device
from razortools.engine.store.pages import PAGE_BYTES
from tests.check.samples import Copy
from tools.fuzzing.verdict import Verdict, judge

# In the order in which the runner calls them.
PASSES = (
    "superblock_pass", "journal_pass", "inode_pass", "directory_pass", "data_pass", "string_pass", "compression_pass",
    "checksum_pass",
)  # fmt: skip

Passing = Generator[Event, None, Any]


class _Noting(Copy):
    """A copy that knows which of its pages were read."""

    def __init__(self, base: Device) -> None:
        super().__init__(base)
        self.pages_read: set[int] = set()

    def read(self, offset: int, length: int) -> bytes:
        """See Device."""
        self.pages_read.update(range(offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES + 1))
        return super().read(offset, length)


@dataclass(slots=True)
class _Made:
    """What a pass over the undamaged image did."""

    events: list[Event]
    facts: Any
    pages_read: set[int]

    def again(self, *_: object, **__: object) -> Passing:
        """Do the same, without reading anything."""
        yield from self.events
        return self.facts


class StagedCheck:
    """Checks an image after one change or another in a single page."""

    def __init__(self, base: Device) -> None:
        """Check the image on *base*, which is not changed, once."""
        self._device = _Noting(base)
        self._made: list[_Made] = []
        with ExitStack() as stack:
            for name in PASSES:
                stack.enter_context(_replaced(name, self._noted(getattr(runner, name).check)))
            verdict = judge(self._device)
        assert (verdict.codes, verdict.stumbled, len(self._made)) == ((), "", len(PASSES))

    def _noted(self, passing: Callable[..., Passing]) -> Callable[..., Passing]:
        """Return *passing*, which tells what it did as well."""

        def noted(*arguments: Any, **named: Any) -> Passing:
            self._device.pages_read = set()
            events: list[Event] = []
            made = passing(*arguments, **named)
            while True:
                try:
                    event = next(made)
                except StopIteration as done:
                    self._made.append(_Made(events, done.value, self._device.pages_read))
                    return done.value
                if not isinstance(event, Progress):
                    events.append(event)
                yield event

        return noted

    def passes_kept(self, page: int) -> int:
        """Return how many passes, from the first on, read nothing of a page."""
        readers = (number for number, made in enumerate(self._made) if page in made.pages_read)
        return next(readers, len(PASSES))

    @contextmanager
    def of(self, page: int) -> Iterator[Callable[[int, bytes], Verdict]]:
        """Yield a function that judges the image with other bytes at an offset within *page*."""
        start = page * PAGE_BYTES

        def judged(offset: int, data: bytes) -> Verdict:
            self._device.write(start + offset, data)
            try:
                return judge(self._device)
            finally:
                self._device.forget(start, PAGE_BYTES)

        with ExitStack() as stack:
            for name, made in list(zip(PASSES, self._made, strict=True))[: self.passes_kept(page)]:
                stack.enter_context(_replaced(name, made.again))
            yield judged


def _replaced(name: str, check: Callable[..., Passing]) -> AbstractContextManager[object]:
    """Return a context in which the runner, and nobody else, finds *check* in the place of that of a pass."""
    module = getattr(runner, name)
    return mock.patch.object(runner, name, SimpleNamespace(**vars(module) | {"check": check}))
