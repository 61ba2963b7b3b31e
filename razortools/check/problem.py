"""A problem that razorfsck knows, and how a finding of it is made. The table of them is problems.py."""

from dataclasses import dataclass
from typing import Any

from razortools.check.findings import Finding, Repair, Severity
from razortools.units import BlockNo, InodeNo


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the table."""

    code: str
    severity: Severity
    noun: str  # for counting: "3 orphaned blocks"
    sentence: str
    cause: str
    risk: str
    repair: Repair

    def found(
        self,
        *,
        where: str = "",
        path: str | None = None,
        count: int = 1,
        inode: InodeNo | int | None = None,
        block: BlockNo | int | None = None,
        byte_range: tuple[int, int] | None = None,
        key: bytes | None = None,
        **values: Any,
    ) -> Finding:
        """Return the finding. *values* fill the sentence, and so do inode and block; *where* defaults to the block or inode."""
        if not where:
            where = f"block {block}" if block is not None else f"inode {inode}" if inode is not None else "image"
        return Finding(
            code=self.code,
            severity=self.severity,
            message=self.sentence.format(inode=inode, block=block, count=count, **values),
            where=where,
            path=path,
            repair=self.repair.sentence,
            count=count,
            inode=None if inode is None else InodeNo(inode),
            block=None if block is None else BlockNo(block),
            byte_range=byte_range,
            key=key,
            values=values,
        )
