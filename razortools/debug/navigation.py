"""Where one stands: cd, pwd."""

import argparse

from razortools.debug.answers import Answer, Lines
from razortools.debug.session import Command, Session, Words
from razortools.errors import UsageError
from razortools.printable import printable_name


def change_directory(session: Session, options: argparse.Namespace) -> Answer:
    """cd: paths without a slash in front start here from now on."""
    _, inode = session.inode(options.path)
    if not inode.is_directory:
        raise UsageError(f"{options.path}: is not a directory; 'stat {options.path}' tells what it is")
    directory = session.absolute(options.path)
    if not directory.startswith(b"/"):
        raise UsageError(f"{options.path}: no path leads there; 'ls {options.path}' shows what is in it")
    session.directory = directory
    return Lines([], {"directory": session.directory})


def show_directory(session: Session, options: argparse.Namespace) -> Answer:
    """pwd: where paths without a slash in front start."""
    return Lines([printable_name(session.directory)], {"directory": session.directory})


_CD = Words("cd")
_CD.add_argument("path", nargs="?", default="/", metavar="PATH")
_PWD = Words("pwd")

COMMANDS = (
    Command("cd", "let paths without a slash in front start in this directory", _CD, change_directory, ("cd /home",)),
    Command("pwd", "show where paths without a slash in front start", _PWD, show_directory, ("pwd",)),
)
