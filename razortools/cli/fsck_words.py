"""The words of razorfsck's command line: what may stand together, and what the values mean.

Invariants: an option that the deed would ignore is refused by its name; all of it is judged before the image is opened.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterable

from razortools.check.runner import PHASES
from razortools.cli import deeds
from razortools.errors import UsageError

THREADS_MAX = 64
STDOUT = 1
DESCRIPTORS_MAX = 1 << 31  # what a C int holds
EXPLAIN = "explain"
LOOK, REPAIR, PLAN, APPLY, UNDO, SALVAGE = "a look", "a repair", "--plan", "--apply", "--undo", "--salvage"
COMPACT = "--compact"

POLICIES = ("-n", "-p", "-y", "-i")
_CHECKING = ("-f", "-b", "--threads", "-C", "--json", "-q", "-v")  # what goes with everything that checks the image
GOES_WITH: deeds.Table = {
    LOOK: frozenset(("-n", "--only", "--path", *_CHECKING)),
    REPAIR: frozenset(("-p", "-y", "-i", "--rebuild", "--undo-file", *_CHECKING)),
    PLAN: frozenset((PLAN, "-p", "-y", "-i", "--rebuild", *_CHECKING)),
    APPLY: frozenset((APPLY, "--undo-file", "--threads", "-C", "--json", "-q", "-v")),  # the plan itself tells of -b
    UNDO: frozenset((UNDO, "--undo-file", "--json", "-q")),
    COMPACT: frozenset((COMPACT, "--undo-file", "--threads", "-C", "--json", "-q", "-v")),
    SALVAGE: frozenset((SALVAGE, "--json", "-q", "-v")),
    EXPLAIN: frozenset[str](),
}


def deed_of(given: Iterable[str]) -> str:
    """Return what the options that were *given* ask for. Raises UsageError if they do not go together."""
    words = list(given)
    _only_one(word for word in words if word in POLICIES)
    deed = _only_one(word for word in words if word in (PLAN, APPLY, UNDO, COMPACT, SALVAGE))
    if not deed:
        deed = REPAIR if {"-p", "-y", "-i", "--rebuild"} & set(words) else LOOK
    deeds.judge(deed, words, GOES_WITH)
    if {"-p", "--rebuild"} <= set(words):
        raise UsageError("-p only does what is safe; a rebuild is not")
    return deed


def _only_one(words: Iterable[str]) -> str:
    given = list(words)
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together")
    return given[0] if given else ""


def judge_descriptor(number: int | None, image: str, *, as_json: bool) -> None:
    """Raise UsageError unless -C names a descriptor that is open for writing and leads neither into the image nor to a document.

    A closed one would be the next that is opened: the image itself.
    """
    if number is None:
        return
    try:
        if not 0 <= number < DESCRIPTORS_MAX:
            raise OSError
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        target = os.fstat(number)
    except OSError:
        raise UsageError(f"-C: {number} is no open file descriptor") from None
    if mode == os.O_RDONLY:
        raise UsageError(f"-C: descriptor {number} is not open for writing")
    if as_json and (number == STDOUT or _is_one_file(target, os.fstat(STDOUT))):
        raise UsageError(f"-C: descriptor {number} leads to standard output, where --json prints its one document")
    try:
        there = os.stat(image)
    except (OSError, ValueError):
        return  # opening the image will tell what is wrong
    is_same_device = target.st_rdev == there.st_rdev != 0
    if os.path.samestat(target, there) or is_same_device:
        raise UsageError(f"-C: descriptor {number} leads into {image} itself")


def _is_one_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are the same file or pipe; a terminal or /dev/null shows or drops what comes from both."""
    return os.path.samestat(one, other) and not stat.S_ISCHR(one.st_mode)


def parse_phases(text: str | None) -> frozenset[int]:
    """Return the phases that ``1,5`` or ``3-6`` name. Raises UsageError."""
    if text is None:
        return frozenset(PHASES)
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9])(?:-([0-9]))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= len(PHASES):
            raise UsageError(f"--only: '{part}' is no phase; they have the numbers 1 to {len(PHASES)}, as in --only 1,5")
        chosen |= set(range(first, last + 1))
    return frozenset(chosen)


def parse_path(text: str | None) -> str | None:
    """Return the path within the image. Raises UsageError."""
    if text is not None and not text.startswith("/"):
        raise UsageError(f"--path: '{text}' does not start with '/'; it is a path within the image")
    return text


def not_below(number: int | None, lowest: int, option: str) -> int | None:
    """Return *number*. Raises UsageError if it is below *lowest*."""
    if number is not None and number < lowest:
        raise UsageError(f"{option}: {number} is below {lowest}")
    return number


def thread_count(wanted: int | None) -> int:
    """Return how many threads verify data. Raises UsageError."""
    if wanted is not None and not 1 <= wanted <= THREADS_MAX:
        raise UsageError(f"--threads: {wanted} is not possible; choose 1 to {THREADS_MAX}")
    return wanted or min(os.cpu_count() or 1, THREADS_MAX)
