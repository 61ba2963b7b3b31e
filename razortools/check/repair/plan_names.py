"""The string table: counts of uses, names that nobody uses, and names that no file can have."""

from razortools.check.findings import Finding
from razortools.check.repair.draft import Draft
from razortools.format.directory import NAME_BYTES_MAX
from razortools.format.keys import name_key
from razortools.units import NameId


def reference_count(draft: Draft, finding: Finding) -> None:
    """A name is counted wrongly."""
    key = name_key(NameId(finding.values["name_id"]))
    counted = finding.values["counted"]
    if finding.values["name_id"] in draft.named:
        return  # the next round counts
    if counted:
        draft.set(key, "reference_count", counted, f"count {counted} uses of the name")
    else:
        draft.delete(key, "remove the name that nothing uses")


def unused(draft: Draft, finding: Finding) -> None:
    """A name is used by nobody."""
    if finding.values["name_id"] not in draft.named:
        draft.delete(name_key(NameId(finding.values["name_id"])), "remove the name that nothing uses")


def impossible(draft: Draft, finding: Finding) -> None:
    """A name that the kernel refuses. The entries that use it are filed anew by the next round."""
    name_id = finding.values["name_id"]
    text = draft.text(name_id)
    if text is None:
        return
    possible = text.replace(b"/", b"+").replace(b"\0", b"")[:NAME_BYTES_MAX]
    if possible in (b"", b".", b".."):
        possible = b"#name%d" % name_id
    draft.set(name_key(NameId(name_id)), "text", possible, "store a name that can be used")
