"""Outcomes: what came of one case, as values that processes hand to one another, and their sum by class of damage."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

CASES_OF_A_FAILURE = 3  # kept in full


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case. *results*: words that are counted. *failure* not empty: a rule was broken, and *case* says in which case."""

    kind: str  # class of damage
    results: tuple[str, ...]
    case: str = ""
    failure: str = ""


@dataclass(slots=True)
class Tally:
    """The sum of many outcomes."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # (class, what failed) -> cases
    failed: int = 0

    @property
    def cases(self) -> int:
        """How many cases there were."""
        return sum(counter["cases"] for counter in self.counts.values())

    def add(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Count *outcomes*; return the failures that are shown: the first few of each sort."""
        shown = []
        for outcome in outcomes:
            self.counts.setdefault(outcome.kind, Counter()).update(("cases", *outcome.results))
            if outcome.failure:
                self.failed += 1
                alike = self.failures.setdefault((outcome.kind, _sort(outcome.failure)), [])
                if len(alike) < CASES_OF_A_FAILURE:
                    alike.append(outcome.case)
                    shown.append(outcome)
        return shown

    def table(self) -> str:
        """Return the counts as text, a class a line."""
        words = sorted({word for counter in self.counts.values() for word in counter} - {"cases"})
        columns = ["cases", *words]
        width = max((len(kind) for kind in self.counts), default=5)
        lines = [" " * width + "".join(f"{word:>14}" for word in columns)]
        for kind, counter in sorted(self.counts.items()):
            lines.append(f"{kind:{width}}" + "".join(f"{counter[word]:>14,}" for word in columns))
        return "\n".join(lines)


def _sort(failure: str) -> str:
    """Return what is alike in failures that differ in their numbers only."""
    return "".join("#" if letter.isdigit() else letter for letter in failure)[:120]
