"""What `razorfsck explain CODE` tells: a row of the table of problems, in full sentences."""

import re

from razortools.check.problems import PROBLEMS
from razortools.errors import UsageError


def explain(code: str) -> list[tuple[str, str]]:
    """Return (heading, text) pairs about a problem. Raises UsageError for a code that does not exist."""
    problem = PROBLEMS.get(code.upper())
    if problem is None:
        phases = ", ".join(sorted({known[:3] + "nn" for known in PROBLEMS}))
        raise UsageError(f"'{code}' is no problem code; they read {phases}, such as E0501")
    sentence = re.sub(r"\{(\w+)[^}]*\}", r"<\1>", problem.sentence)
    safety = "yes" if problem.repair.safe else "no, only when it is asked for"
    return [
        ("Code", problem.code),
        ("Problem", f"{problem.noun}: {sentence}"),
        ("Severity", problem.severity.word),
        ("Cause", problem.cause),
        ("Risk", problem.risk),
        ("Repair", f"A repair will {problem.repair.sentence}."),
        ("Safe repair", safety),
    ]
