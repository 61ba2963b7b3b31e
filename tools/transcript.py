"""Commands as they are typed, run by a shell in a folder, and what they say, put between the marks of a document."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 120
COMMANDS = {  # name: how this Python runs it
    "mkfs.razorfs": "-m razortools.mkfs",
    "mount.razorfs": "-m razortools.mount",
    "umount.razorfs": "-m razortools.umount",
    "razorfsck": "-m razortools.fsck",
    "razorfs-debug": "-m razortools.debugfs",
    "razorfs-health": "-m razortools.health",
}
_SHELL = "".join(f'{name}() {{ "{sys.executable}" {words} "$@"; }}\n' for name, words in COMMANDS.items())


def typed(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run *command* in *folder*; its stdout holds what it wrote to stderr, too."""
    wide = os.environ | {"COLUMNS": "110", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"} | environment
    words = ["bash", "-c", f"exec 2>&1\n{_SHELL}{command}"]
    return subprocess.run(
        words, cwd=folder, env=wide, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S
    )


def with_exit_code(lines: list[str], exit_code: int) -> str:
    """Return what is shown of a command: some lines of what it said, and its exit code unless that is 0."""
    return "\n".join([*lines, *([f"(exit code {exit_code})"] if exit_code else [])])


def as_markdown(seen: list[tuple[str, str]]) -> str:
    """Return (command, what it said) of each as an indented block."""
    lines: list[str] = []
    for command, said in seen:
        lines += [f"$ {command}", *said.rstrip().splitlines(), ""]
    return "\n".join(f"    {line}".rstrip() for line in lines).rstrip() + "\n"


def replaced(text: str, begin: str, end: str, told: str) -> str:
    """Return *text* with *told* between two marks. Raises ValueError if they are not there."""
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the document has no place between {begin.strip()} and {end.strip()}")
    return f"{head}{begin}{told}{end}{tail}"
