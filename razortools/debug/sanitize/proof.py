"""The proof: razorfsck says the same of the copy as of the image, code by code and place by place."""

import os
from collections import Counter

from razortools.check.findings import Finding
from razortools.check.runner import Options, check_quietly
from razortools.debug.sanitize.standins import StandIns
from razortools.engine.store.device import Device

_EVERYTHING = Options(findings_per_code=1 << 30)


def judged(device: Device) -> tuple[Finding, ...]:
    """Return all that razorfsck finds on *device*."""
    return check_quietly(device, _EVERYTHING).findings


def difference(image: tuple[Finding, ...], copy: tuple[Finding, ...], names: StandIns) -> str:
    """Return how the findings on the copy differ from those on the image, in a few words; empty: they do not."""
    expected = Counter(_told(finding, names) for finding in image)
    found = Counter(_told(finding, None) for finding in copy)
    parts = []
    for word, missing in (("not found any more", expected - found), ("found only there", found - expected)):
        if missing:
            code, _, where, *_ = next(iter(missing))
            parts.append(f"{missing.total()} {word}, such as {code} ({where or 'no place'})")
    return "; ".join(parts)


def _told(finding: Finding, names: StandIns | None) -> tuple[object, ...]:
    """Return what a finding is about; with *names*, as it must be told of the copy."""
    path, key = finding.path, finding.key
    if names is not None:
        key = names.hashed(key) if key is not None and names.knows(key) else key
        path = None if path is None else os.fsdecode(names.path(os.fsencode(path)))
    return (finding.code, finding.severity, finding.where, finding.inode, finding.block, finding.byte_range, key, path)
