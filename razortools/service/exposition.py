"""The page of one mount, scrape after scrape: what has not changed since the last one is not written again.

A page has hundreds of lines, and while it is made the interpreter serves nobody else; but between two scrapes few values change.
How a line reads, prometheus_client says, once for each series; after that its number is replaced. Invariant: the text is what
metrics.page() makes of the same figures, which a law in the tests holds.
"""

from collections.abc import Iterable
from dataclasses import replace

from razortools.engine.store.durations import BOUNDS_S
from razortools.service.figures import MountFigures, Spread
from razortools.service.metrics import METRICS, Declared, Labels, Sample, cumulated, number_text, rendered

HEAD_LINES = 2  # HELP and TYPE


class _Series:
    """The lines of one value, or of one histogram."""

    __slots__ = ("_heads", "_lines", "_numbers", "_value", "text")

    def __init__(self, declared: Declared, image: str, sample: Sample) -> None:
        _, self._value = sample
        self._numbers = _numbers(self._value)
        self._lines = [f"{line}\n" for line in rendered([declared.family_of([(image, sample)])]).split("\n")[HEAD_LINES:-1]]
        self._heads = [line[: line.rindex(" ") + 1] for line in self._lines]
        self.text = "".join(self._lines)
        assert len(self._lines) == len(self._numbers)

    def set(self, value: float | Spread) -> None:
        """Let the text tell another value."""
        if value == self._value:
            return
        numbers = _numbers(value)
        for at, (number, before) in enumerate(zip(numbers, self._numbers, strict=True)):
            if number != before:
                self._lines[at] = f"{self._heads[at]}{number_text(number)}\n"
        self._numbers, self._value = numbers, value
        self.text = "".join(self._lines)


def _numbers(value: float | Spread) -> list[float]:
    """Return the numbers of a value's lines, in their order."""
    if not isinstance(value, Spread):
        return [value]
    counts = [count for _, count in cumulated(value)]
    return [*counts, counts[-1], value.total_s]


class Exposition:
    """What is kept of a mount's page between two scrapes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._series: dict[tuple[str, Labels], _Series] = {}
        self._heads = {declared.name: rendered([declared.family_of([])]) for declared in METRICS}

    def prepare(self, figures: MountFigures, operations: Iterable[str]) -> None:
        """Make the lines of *operations* that nobody has asked for yet: who scrapes first after that would wait for it."""
        never = {name: Spread((0,) * (len(BOUNDS_S) + 1), 0.0) for name in operations}
        self._parts(replace(figures, requests=never | dict(figures.requests)))

    def page(self, figures: MountFigures) -> str:
        """Return the metrics of a mount, always the same one, in Prometheus' text format."""
        return "".join(self._parts(figures))

    def _parts(self, figures: MountFigures) -> list[str]:
        parts: list[str] = []
        for declared in METRICS:
            at = len(parts)
            for labels, value in declared.samples(figures):
                series = self._series.get((declared.name, labels))
                if series is None:
                    series = self._series[declared.name, labels] = _Series(declared, figures.image, (labels, value))
                else:
                    series.set(value)
                parts.append(series.text)
            if len(parts) > at:
                parts.insert(at, self._heads[declared.name])
        return parts
