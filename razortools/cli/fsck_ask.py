"""Asking the operator about repairs, one by one. Questions go to stderr, answers come from stdin."""

import sys

from razortools.check.findings import Finding, Repair
from razortools.check.problems import PROBLEMS
from razortools.cli import render
from razortools.printable import printable


class Asking:
    """Decides about findings by asking; remembers what was answered, for a repair looks again after each round."""

    def __init__(self) -> None:
        """Nothing was answered yet."""
        self._answers: dict[tuple[object, ...], bool] = {}
        self._for_all: dict[str, bool] = {}  # by code

    def __call__(self, finding: Finding) -> bool:
        """Return whether *finding* is to be repaired. Raises KeyboardInterrupt for "quit"."""
        if PROBLEMS[finding.code].repair is Repair.RESET_STATE:
            return True  # it goes by itself when nothing else is left
        if finding.code in self._for_all:
            return self._for_all[finding.code]
        subject = (finding.code, finding.where, finding.path, finding.key)
        if subject not in self._answers:
            where = printable(finding.path) if finding.path is not None else finding.where
            answer = _answer(
                f"{finding.code} {where}: {finding.message}.\n  A repair will {finding.repair}.\n"
                f"  Repair it? yes, no, all or none of {finding.code}, quit [y/n/a/e/q] ",
                "ynaeq",
            )
            if answer in "ae":
                self._for_all[finding.code] = answer == "a"
            self._answers[subject] = answer in "ya"
        return self._answers[subject]

    @staticmethod
    def confirm(question: str) -> bool:
        """Return whether the operator says yes."""
        return _answer(f"{question} [y/n] ", "yn") == "y"


def _answer(question: str, choices: str) -> str:
    """Return one of the letters *choices*. Raises KeyboardInterrupt for q, and if there is nobody to answer."""
    while True:
        render.message(question)
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        letter = line.strip().lower()[:1]
        if letter == "q" and "q" in choices:
            raise KeyboardInterrupt
        if letter and letter in choices:
            return letter
