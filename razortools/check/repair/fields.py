"""Fields of items, changed one by one."""

from dataclasses import replace
from typing import Any

from razortools.errors import UsageError
from razortools.format.items import ITEMS


def set_field(key: bytes, value: bytes, field: str, to: int | bytes) -> bytes:
    """Return the item's *value* with one field changed. Raises CorruptImage if it cannot be read, UsageError for no field."""
    structure: Any = ITEMS.get(key[9])
    if structure is None or field not in {one.name for one in structure.FIELDS}:
        raise UsageError(f"an item of kind {key[9]:#04x} has no field '{field}'")
    changed: bytes = replace(structure.decode(value), **{field: to}).encode()
    return changed
