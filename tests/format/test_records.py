"""Laws that hold for every record in the catalogue, whatever it means."""

from typing import Annotated, Any

import construct
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.errors import CorruptImage
from razortools.format.record import Record, embed, record
from tests.format.records import CHECKSUMMED, RECORDS, declared, values_of

every_record = pytest.mark.parametrize("record_class", RECORDS, ids=lambda record_class: record_class.__name__)
every_checksummed = pytest.mark.parametrize("record_class", CHECKSUMMED, ids=lambda record_class: record_class.__name__)


def as_container(value: Any) -> dict[str, Any]:
    """Return the fields of a record as construct's dictionaries hold them, without magic and checksum."""
    return {
        field.name: as_container(part) if isinstance(part := getattr(value, field.name), Record) else part
        for field in declared(type(value))
    }


def without_io(parsed: construct.Container[Any]) -> dict[str, Any]:
    """Return what construct parsed, without its private entries and what the record's own head holds."""
    return {
        name: without_io(part) if isinstance(part, construct.Container) else part
        for name, part in parsed.items()
        if not name.startswith("_") and name != "magic"
    }


@every_record
@given(data=st.data())
@settings(max_examples=40)
def test_what_is_encoded_decodes_to_the_same_value(record_class: type[Record], data: st.DataObject) -> None:
    value = data.draw(values_of(record_class))
    assert record_class.decode(value.encode()) == value


@every_record
@given(data=st.data())
@settings(max_examples=40)
def test_the_fast_codec_agrees_with_the_declaration_in_both_directions(record_class: type[Record], data: st.DataObject) -> None:
    value = data.draw(values_of(record_class))
    encoded = value.encode()
    parsed = without_io(record_class.LAYOUT.parse(encoded))
    if record_class.MAGIC:
        checksum = parsed.pop("crc32c")
        assert record_class.LAYOUT.build({"crc32c": checksum, **as_container(value)}) == encoded
    else:
        assert record_class.LAYOUT.build(as_container(value)) == encoded
    assert parsed == as_container(value)


@every_record
@given(data=st.data())
@settings(max_examples=20)
def test_a_record_cut_short_is_refused(record_class: type[Record], data: st.DataObject) -> None:
    encoded = data.draw(values_of(record_class)).encode()
    length = data.draw(st.integers(0, record_class.skipped_bytes() + record_class.FIXED_BYTES - 1))
    with pytest.raises(CorruptImage):
        record_class.decode(encoded[:length])


@every_record
@given(data=st.data())
@settings(max_examples=10)
def test_bytes_behind_a_record_of_fixed_size_are_refused(record_class: type[Record], data: st.DataObject) -> None:
    encoded = data.draw(values_of(record_class)).encode()
    if not record_class.TAIL:
        with pytest.raises(CorruptImage):
            record_class.decode(encoded + b"\0")


@every_checksummed
@given(data=st.data())
@settings(max_examples=60)
def test_a_flipped_bit_anywhere_in_a_checksummed_record_is_refused(record_class: type[Record], data: st.DataObject) -> None:
    encoded = bytearray(data.draw(values_of(record_class)).encode())
    place = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[place // 8] ^= 1 << place % 8
    with pytest.raises(CorruptImage):
        record_class.decode(bytes(encoded))


@every_record
def test_the_fields_tell_their_places_without_gaps(record_class: type[Record]) -> None:
    offset = 0
    for field in record_class.FIELDS:
        assert field.offset == offset, field
        offset += field.size_bytes
    assert offset == record_class.skipped_bytes() + record_class.FIXED_BYTES


@every_record
def test_every_field_has_a_meaning(record_class: type[Record]) -> None:
    assert record_class.__doc__
    assert all(field.meaning for field in record_class.FIELDS)


def test_the_catalogue_names_each_record_once() -> None:
    names = [record_class.__name__ for record_class in RECORDS]
    assert len(names) == len(set(names)) >= 15


def test_a_record_that_mixes_byte_orders_cannot_be_declared() -> None:
    before = list(RECORDS)
    with pytest.raises(AssertionError, match="byte orders"):

        @record()
        class Mixed(Record):
            little: Annotated[int, construct.Int32ul * "little"]
            big: Annotated[int, construct.Int32ub * "big"]

    assert before == RECORDS


def test_a_checksummed_record_cannot_be_embedded() -> None:
    with pytest.raises(AssertionError, match="cannot be embedded"):

        @record()
        class Outer(Record):
            inner: Annotated[Any, embed(CHECKSUMMED[0], "a record with its own checksum")]
