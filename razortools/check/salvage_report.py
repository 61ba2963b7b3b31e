"""What a salvage copied out, and what it did not. Invariant: the lists are bounded, the counts are not."""

from dataclasses import dataclass, field, fields
from typing import Any

from razortools.file_counts import FileCounts

TOLD_MAX = 10_000  # of each list; what comes after is counted


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes of a file that could not be read; in the copy they are zeros."""

    path: str
    first: int
    behind: int
    reason: str


@dataclass(slots=True)
class SalvageReport(FileCounts):
    """What was copied out, and what was not."""

    found_again: int = 0  # files and directories in lost+found
    mended_records: int = 0  # in which one flipped bit was turned back
    unreadable: list[Unreadable] = field(default_factory=list)
    unreadable_count: int = 0
    not_copied: list[tuple[str, str]] = field(default_factory=list)  # path, reason
    not_copied_count: int = 0
    older: list[str] = field(default_factory=list)  # paths that may be in an older state, without their last changes
    not_kept: list[str] = field(default_factory=list)  # kinds of attributes that the host refused
    remarks: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether everything that the image is known to hold was copied."""
        return not (self.unreadable_count or self.not_copied_count or self.older or self.remarks or self.found_again)

    @property
    def is_nothing(self) -> bool:
        """Whether not even a name below the root could be copied, although something should have been."""
        copied = self.files + self.others + max(self.directories - 1, 0)
        return not self.is_whole and not copied

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        names = (
            *(one.name for one in fields(FileCounts)), "found_again", "mended_records",
            "unreadable_count", "not_copied_count", "older", "not_kept", "remarks",
        )  # fmt: skip
        told: dict[str, Any] = {name: getattr(self, name) for name in names}
        told["unreadable"] = [
            {"path": part.path, "first_byte": part.first, "last_byte": part.behind - 1, "reason": part.reason}
            for part in self.unreadable
        ]
        told["not_copied"] = [{"path": path, "reason": reason} for path, reason in self.not_copied]
        return told

    def tell_unreadable(self, path: str, first: int, behind: int, reason: str) -> None:
        """Note bytes of a file that could not be read."""
        self.unreadable_count += 1
        if len(self.unreadable) < TOLD_MAX:
            self.unreadable.append(Unreadable(path, first, behind, reason))

    def tell_not_copied(self, path: str, reason: str) -> None:
        """Note a name, or an attribute, that was not copied."""
        self.not_copied_count += 1
        if len(self.not_copied) < TOLD_MAX:
            self.not_copied.append((path, reason))
