"""An incident as it is played: an image with its mount point, the commands that are typed, what they say, and what may be lost.

Invariant: a scene ends with nothing mounted and no process of its own, whatever happened in it.
"""

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from razortools.engine import namespace
from razortools.engine.files import write as write_file
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import InodeNo
from tests.mount.mounts import Mounted
from tools.transcript import typed, with_exit_code

SHOWN_FOLDER = "/srv"


class Scene:
    """A folder with ``disk.img``, where it is mounted (``mnt``), and what its owner wants to find again."""

    def __init__(self, folder: Path, image_bytes: int) -> None:
        """Make an empty image of *image_bytes* in *folder*."""
        self.folder = folder
        self.mounted = Mounted(folder, image_bytes, "disk.img")
        self.wanted: dict[str, bytes] = {}  # what the image must hold in the end: path from its root -> contents

    @property
    def image(self) -> Path:
        """The image."""
        return self.mounted.image

    @property
    def mount_point(self) -> Path:
        """Where it is mounted, or will be."""
        return self.mounted.path

    def fill(self, files: Mapping[str, bytes]) -> None:
        """Put files into the image, which is not mounted, and want them back. Their folders are in the root."""
        with open_volume(open_image(self.image, writable=True)) as volume:
            folders: dict[str, InodeNo] = {"": ROOT_INODE}
            for path, contents in files.items():
                folder, _, name = path.rpartition("/")
                if folder not in folders:
                    folders[folder] = namespace.mkdir(volume, ROOT_INODE, folder.encode(), 0o755, 0, 0)
                ino = namespace.create(volume, folders[folder], name.encode(), 0o644, 0, 0)
                write_file(volume, ino, 0, contents)
        self.wanted |= files

    def kill_the_daemon(self) -> None:
        """Kill the process that serves the mount."""
        self.mounted.send(signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Typed:
    """A command that the operator types in the scene's folder, and what it must say: each a regular expression."""

    command: str
    says: tuple[str, ...] = ()
    exit_code: int = 0
    only: str | None = None  # what is shown of it: the lines that match; None: all


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What others do: programs at work, an accident."""

    act: Callable[[Scene], None]


@dataclass(frozen=True, slots=True)
class Incident:
    """A scene from its beginning to the end of the trouble."""

    name: str
    image_bytes: int
    prepare: Callable[[Scene], None]
    steps: tuple[Typed | Meanwhile, ...]
    losses: Callable[[Scene], list[str]]  # what was lost although it should not; judged when all is over


@dataclass(frozen=True, slots=True)
class Played:
    """What came of an incident."""

    seen: tuple[tuple[str, str], ...]  # (command, what it printed), as they are shown
    faults: tuple[str, ...]  # what was said wrong, and what was lost


def play(incident: Incident, folder: Path) -> Played:
    """Play an incident in the empty *folder*."""
    scene = Scene(folder, incident.image_bytes)
    seen, faults = [], []
    try:
        incident.prepare(scene)
        for step in incident.steps:
            if isinstance(step, Meanwhile):
                step.act(scene)
                continue
            shown, wrong = _type(step, scene)
            seen.append((step.command, shown))
            faults += wrong
        faults += incident.losses(scene)
    finally:
        scene.mounted.take_away()
    return Played(tuple(seen), tuple(faults))


def _type(step: Typed, scene: Scene) -> tuple[str, list[str]]:
    """Run a command; return what is shown of what it printed, and what is wrong with it."""
    done = typed(step.command, scene.folder)
    said = done.stdout.replace(str(scene.folder), SHOWN_FOLDER)
    wrong = [
        f"$ {step.command}\n{said}does not say: {pattern}" for pattern in step.says if not re.search(pattern, said, re.MULTILINE)
    ]
    if done.returncode != step.exit_code:
        wrong.append(f"$ {step.command}\n{said}exit code {done.returncode}, {step.exit_code} expected")
    return with_exit_code(list(_shown(said.splitlines(), step.only)), step.exit_code), wrong


def _shown(lines: list[str], only: str | None) -> Iterator[str]:
    """Yield the lines that are shown; what is left out between and around them is one line of dots."""
    was_left_out = False
    for line in lines:
        is_shown = only is None or re.search(only, line) is not None
        if is_shown:
            yield line
        elif not was_left_out:
            yield "[...]"
        was_left_out = not is_shown
