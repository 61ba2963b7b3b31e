"""Random values of every record in the catalogue, made from the same declarations that the codecs come from."""

import importlib
import pkgutil
from typing import Any

import construct
from hypothesis import strategies as st

import razortools.format
from razortools.format.record import CATALOGUE, Field, Record

for _module in pkgutil.iter_modules(razortools.format.__path__):
    importlib.import_module(f"razortools.format.{_module.name}")

RECORDS = list(CATALOGUE)
CHECKSUMMED = [record for record in RECORDS if record.MAGIC]


def declared(record_class: type[Record]) -> list[Field]:
    """Return the fields of *record_class* that its author declared: all but magic and checksum."""
    return [field for field in record_class.FIELDS if field.offset >= record_class.skipped_bytes()]


def values_of(record_class: type[Record]) -> st.SearchStrategy[Any]:
    """Return a strategy of values of *record_class*."""
    return st.builds(record_class, *(_field_values(field) for field in declared(record_class)))


def _field_values(field: Field) -> st.SearchStrategy[Any]:
    core = field.subcon
    if hasattr(core, "record_class"):
        return values_of(core.record_class)
    if isinstance(core, construct.FormatField):
        bits = core.length * 8
        signed = core.fmtstr[-1].islower()
        return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)
    if isinstance(core, construct.Bytes):
        return st.binary(min_size=min(core.length, 64), max_size=min(core.length, 64)).map(
            lambda start: start.ljust(core.length, b"\0")
        )
    return st.binary(max_size=300)
