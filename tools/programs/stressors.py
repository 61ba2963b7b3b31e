"""Every filesystem stressor of stress-ng on a mount, with its own verification; what does not apply is named with the reason."""

import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mount.mounts import Mounted
from tools.programs.jobs import Job, Outcome, WentWrong, call

DO_NOT_APPLY = {
    "bind-mount": "stress-ng itself calls it dangerous and wants --pathological; it mounts elsewhere and leaves the image alone",
    "binderfs": "mounts Android's binder filesystem; no file of ours is touched",
    "fiemap": "FS_IOC_FIEMAP: Linux asks no FUSE daemon where blocks lie",
    "verity": "fs-verity: needs an ioctl that FUSE does not pass on to a pyfuse3 daemon",
}
_GIVES_UP = "begins with fallocate of its whole file, is refused (EOPNOTSUPP), and gives up"
COUNT_NOTHING = {
    "fallocate": _GIVES_UP,
    "iomix": _GIVES_UP,
    "sync-file": _GIVES_UP,
    "inode-flags": "file flags: ENOTTY, as a pyfuse3 daemon is not asked for them; it counts nothing on ext4 either",
    "xattr": "its first round, 4,096 attributes on one file, did not end in this time",
}
# What a stressor may call a failure although nothing is wrong: text -> reason.
EXPLAINED = {
    "fsize: fallocate unexpectedly succeeded": "fallocate is refused (EOPNOTSUPP); the stressor calls that a success",
    "fsize: expected a SIGXFSZ signal": "follows from the same call",
}
SUCCESS, NOT_IMPLEMENTED = 0, 4


def program() -> str | None:
    """Return what is missing, if anything."""
    return None if shutil.which("stress-ng") else "install the package stress-ng"


def stressors() -> list[str]:
    """Return the names of the stressors in the class filesystem."""
    said = call(["stress-ng", "--class", "filesystem?"])
    return said.partition("stressors:")[2].split()


def jobs(seconds: int) -> Iterator[Job]:
    """Yield a job for each stressor."""
    for name in stressors():
        yield Job(name, partial(_stress, name=name, seconds=max(seconds // 10, 1)))


def _stress(mounted: Mounted, *, name: str, seconds: int) -> tuple[Outcome, str]:
    if name in DO_NOT_APPLY:
        return Outcome.SKIPPED, DO_NOT_APPLY[name]
    words = ["stress-ng", f"--{name}", "2", "--timeout", f"{seconds}s", "--temp-path", str(mounted.path), "--verify", "--metrics"]
    try:
        with TemporaryDirectory() as own:  # one of them leaves files where it was started
            said = call(words, cwd=Path(own))
    except WentWrong as story:
        return Outcome.FAILED, str(story)
    complaints = [line for line in said.splitlines() if re.search(r"\b(fail|error|warn):", line)]
    unexplained = [line for line in complaints if not any(text in line for text in EXPLAINED)]
    left = os.listdir(mounted.path)
    if unexplained or left:
        return Outcome.FAILED, "\n".join([*unexplained, f"left behind: {left[:5]}" if left else ""])
    if "skipping stress" in said:
        return Outcome.SKIPPED, next(line for line in said.splitlines() if "skipping stress" in line)
    done = re.search(rf"\] {re.escape(name)} +(\d+) ", said)
    operations = f"{done[1]} operations" if done else ""
    if done and done[1] == "0":
        return Outcome.SKIPPED, COUNT_NOTHING.get(name, "not one operation was finished in this time")
    reasons = sorted({reason for text, reason in EXPLAINED.items() if any(text in line for line in complaints)})
    return Outcome.WELL, "; ".join(filter(None, (operations, *reasons)))
