"""Fields by name: ``inode.mode``, ``superblock.label``, for people who type and for completion. The format declares them."""

import re

from razortools.format.record import CATALOGUE, Field, Record


def structure_name(structure: type[Record]) -> str:
    """Return how people write the name of a structure: ``data_record``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", structure.__name__).lower()


STRUCTURES: dict[str, type[Record]] = {structure_name(structure): structure for structure in CATALOGUE}


def told_fields(structure: type[Record]) -> list[Field]:
    """Return the fields that hold something: no magic, no checksum of its own, nothing reserved."""
    head = structure.skipped_bytes()
    return [field for field in structure.FIELDS if field.offset >= head and field.name != "reserved"]


def field_names() -> list[str]:
    """Return every field as STRUCTURE.FIELD."""
    return [f"{name}.{field.name}" for name, structure in STRUCTURES.items() for field in told_fields(structure)]
