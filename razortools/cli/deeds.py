"""What options ask for, and which of them mean something to that: one rule for all commands that can do several things."""

from collections.abc import Iterable, Mapping

from razortools.errors import UsageError

Table = Mapping[str, frozenset[str]]  # deed: the options that mean something to it


def judge(deed: str, given: Iterable[str], goes_with: Table) -> None:
    """Raise UsageError for the first of the *given* options that *deed* would ignore."""
    for word in given:
        if word not in goes_with[deed]:
            uses = [name for name, words in goes_with.items() if word in words and name != word]
            hint = f"; it goes with {' or '.join(uses)}" if uses else ""
            raise UsageError(f"{word} means nothing to {deed}{hint}")
