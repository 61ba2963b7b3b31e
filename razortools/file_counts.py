"""How many files of which kind were copied, into an image or out of it. Everything that copies files counts them so."""

from dataclasses import dataclass

from razortools.units import format_size, plural


@dataclass(slots=True)
class FileCounts:
    """What was copied."""

    files: int = 0
    directories: int = 0  # with the top of what was copied, if that was made
    symlinks: int = 0
    hard_links: int = 0  # names beyond the first
    specials: int = 0  # devices, fifos, sockets
    total_bytes: int = 0  # sizes of the files

    @property
    def others(self) -> int:
        """How many names lead to neither a directory nor, as its first one, to a regular file."""
        return self.symlinks + self.hard_links + self.specials

    @property
    def amount(self) -> str:
        """The sum in words."""
        return f"{plural(self.files, 'file')}, {plural(self.directories, 'directory')}, {format_size(self.total_bytes)}"
