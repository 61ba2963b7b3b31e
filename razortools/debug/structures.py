"""Where everything starts: super, and every copy of it."""

import argparse
import re

from razortools.debug.answers import Answer, Lines, Several, Table
from razortools.debug.fields import told_fields
from razortools.debug.session import Command, Session, Words
from razortools.debug.values import fields_of, shown_field
from razortools.engine.store import superblocks
from razortools.engine.store.superblocks import Copy
from razortools.errors import CorruptImage, UsageError
from razortools.format.superblock import SLOT_COUNT, Superblock


def show_super(session: Session, options: argparse.Namespace) -> Answer:
    """super: every field of the newest superblock, or of one copy, and what lies in each place where a copy belongs."""
    copies = superblocks.find_copies(session.device)
    newest = session.superblock()
    chosen = newest if options.copy is None else _chosen(copies, options.copy)
    rows = [
        (
            copy_name(number),
            copy.offset,
            copy.superblock.generation if copy.superblock else "",
            "valid" if copy.superblock else copy.reason,
        )
        for number, copy in enumerate(copies)
    ]
    meaning = [
        (
            field.name,
            shown_field(Superblock, field.name, getattr(chosen, field.name)),
            _meaning(field.name, field.meaning, chosen, newest),
        )
        for field in told_fields(Superblock)
    ]
    data = {
        "superblock": fields_of(chosen),
        "copies": [
            {
                "place": copy_name(number),
                "offset": copy.offset,
                "generation": copy.superblock.generation if copy.superblock else None,
                "state": "valid" if copy.superblock else copy.reason,
            }
            for number, copy in enumerate(copies)
        ],
    }
    return Several(
        [
            Table(("field", "value", "meaning"), meaning, None),
            Lines([""]),
            Table(("copy", "at byte", "generation", "state"), rows, None, right=(1, 2)),
        ],
        data,
    )


def copy_name(number: int) -> str:
    """Return how people call a copy: ``slot A``, ``backup 1``."""
    return f"slot {'AB'[number]}" if number < SLOT_COUNT else f"backup {number - SLOT_COUNT + 1}"


def copy_number(name: str) -> int:
    """Return the number of the copy that people call *name*. Raises UsageError."""
    match = re.fullmatch(r"(?:slot ?)?([AB])|(?:backup ?)?(\d+)", name, re.IGNORECASE)
    if match is None or match.group(2) == "0":
        raise UsageError(f"{name} is no copy of the superblock; they are A, B, 1, 2 and so on: the slots and the backups")
    return "AB".index(match.group(1).upper()) if match.group(1) else SLOT_COUNT + int(match.group(2)) - 1


def _chosen(copies: list[Copy], name: str) -> Superblock:
    """Return the copy called *name*. Raises UsageError if there is no such place, CorruptImage if it does not verify."""
    number = copy_number(name)
    if number >= len(copies):
        raise UsageError(f"super: there is no {copy_name(number)}; 'super' lists the copies")
    found = copies[number].superblock
    if found is None:
        raise CorruptImage(
            f"{copy_name(number)} at byte {copies[number].offset}: {copies[number].reason}; 'block' shows its bytes"
        )
    return found


def _meaning(name: str, meaning: str, chosen: Superblock, newest: Superblock) -> str:
    """Return what a field means, and what the newest superblock says if that is something else."""
    now = getattr(newest, name)
    if getattr(chosen, name) == now:
        return meaning
    return f"{meaning} [newest: {shown_field(Superblock, name, now)}]"


_SUPER = Words("super")
_SUPER.add_argument("copy", nargs="?", metavar="COPY", help="A or B for a slot, a number for a backup; otherwise the newest")

COMMANDS = (Command("super", "show the superblock and all its copies", _SUPER, show_super, ("super", "super B")),)
