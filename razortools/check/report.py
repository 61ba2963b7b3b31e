"""The report: what a check found, as a value, with the exit code that fsck(8) asks for. Made by the runner, shown by fsck.py."""

from dataclasses import dataclass

from razortools.check.findings import Finding, Severity

EXIT_REPAIRED = 1  # problems were found and are gone
EXIT_LEFT = 4  # problems were left
EXIT_FAILED = 8  # the check could not be made


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """How a phase went. Status: ok, note, warning, error, fatal, or skipped."""

    number: int
    name: str
    status: str
    checked: int
    unit: str  # of checked, singular
    seconds: float
    problem: str  # what was found in a few words: "3 orphaned blocks"; empty: nothing wrong


@dataclass(frozen=True, slots=True)
class Summary:
    """The filesystem in figures."""

    files: int = 0
    directories: int = 0
    total_bytes: int = 0  # sizes of all regular files
    stored_bytes: int = 0  # what their contents take in the image
    leaf_fill: float = 1.0  # part of the leaves' room that items take
    breaks: int = 0  # places at which a file goes on somewhere else in the image

    @property
    def ratio(self) -> float:
        """How many bytes each stored byte stands for; 1.0 for an empty filesystem."""
        return round(self.total_bytes / self.stored_bytes, 2) if self.stored_bytes else 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a check has to tell."""

    image: str
    phases: tuple[PhaseResult, ...]
    findings: tuple[Finding, ...]
    summary: Summary
    loss: dict[str, object] | None = None  # what a repair cost; None: nothing was repaired
    repair: dict[str, object] | None = None  # what a repair did; None: nothing was to be repaired
    is_modified: bool = False  # the image was changed, whether or not that has answered a finding
    is_refused: bool = False  # what was asked for was not done
    part: str = ""  # what of the image was looked at; empty: all of it
    in_use: dict[str, object] | None = None  # how an image was looked at that somebody else writes to; None: nobody does

    @property
    def left(self) -> list[Finding]:
        """The findings that no repair has answered."""
        return [finding for finding in self.findings if not finding.repaired]

    @property
    def worst(self) -> Severity:
        """The worst severity among the findings that are left; NOTE if there are none."""
        return max((finding.severity for finding in self.left), default=Severity.NOTE)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong any more."""
        return self.worst is Severity.NOTE

    @property
    def error(self) -> str | None:
        """Why it could not be checked; None: it could."""
        messages = [finding.message for finding in self.left if finding.severity is Severity.FATAL]
        return f"{self.image}: {'; '.join(messages)}" if messages else None

    @property
    def problem_count(self) -> int:
        """Problems that are left, notes not counted."""
        return sum(finding.count for finding in self.left if finding.severity > Severity.NOTE)

    @property
    def exit_code(self) -> int:
        """The sum that fsck(8) asks for: 0 clean, 1 repaired, 4 problems left, 8 not checked."""
        repaired = self.is_modified or any(finding.repaired for finding in self.findings)
        left = self.is_refused or any(Severity.NOTE < finding.severity < Severity.FATAL for finding in self.left)
        failed = self.worst is Severity.FATAL
        return (EXIT_REPAIRED if repaired else 0) | (EXIT_LEFT if left else 0) | (EXIT_FAILED if failed else 0)

    def as_json(self) -> dict[str, object]:
        """Return the document that --json prints."""
        summary = self.summary
        document: dict[str, object] = {
            "image": self.image,
            "clean": None if self.error is not None or (self.clean and self.part) else self.clean,
            "exit_code": self.exit_code,
            "phases": [
                {
                    "number": phase.number,
                    "name": phase.name,
                    "status": phase.status,
                    "checked": phase.checked,
                    "seconds": round(phase.seconds, 3),
                }
                for phase in self.phases
            ],
            "findings": [_finding_json(finding) for finding in self.findings],
            "loss": self.loss or (self._no_loss() if self.error is None else None),
            "summary": None if self.error is not None else {
                "files": summary.files,
                "directories": summary.directories,
                "total_bytes": summary.total_bytes,
                "stored_bytes": summary.stored_bytes,
                "ratio": summary.ratio,
            },
        }
        told = {"repair": self.repair, "in_use": self.in_use, "error": self.error}
        return document | {name: value for name, value in told.items() if value is not None}

    def _no_loss(self) -> dict[str, object]:
        """Return a loss statement where no repair was made. How many files damage alone has hurt, nobody has counted then."""
        return {"unchanged": self.summary.files if self.clean else None, "renamed": [], "truncated": [], "lost": []}


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "severity": finding.severity.word,
        "path": finding.path,
        "where": finding.where,
        "message": finding.message,
        "repair": finding.repair,
        "repaired": finding.repaired,
        "inode": finding.inode,
        "block": finding.block,
        "bytes": list(finding.byte_range) if finding.byte_range else None,
        "count": finding.count,
    }
