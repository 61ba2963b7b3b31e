"""Edits: what a repair changes, as values. The edits of all rounds, in order, are the plan.

Each edit is plain, has a JSON form that people can read, and carries the code that it answers, the path that is concerned and a
sentence. Applying the same edits to the same image gives the same bytes, so nothing in them depends on the clock or on chance.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from razortools.check.image import BLOCK_MASK
from razortools.check.problems import PROBLEMS
from razortools.errors import UsageError
from razortools.format.items import ITEMS
from razortools.format.keys import KEY_BYTES, KIND_AT
from razortools.format.superblock import Superblock

NUMBER_MAX = (1 << 64) - 1
NUMBER_MIN = -(1 << 63)


class Verb(Enum):
    """What an edit does. The frame (space maps, counters, superblocks) is made anew after each round, whatever the edits."""

    FRAME = "write the frame anew"  # nothing but what every round does at its end
    MEND = "mend superblock"  # block: in units of 4 KiB, for nothing tells the block size when all copies are damaged
    SUPERBLOCK = "set superblock field"  # field, value
    REPLAY = "replay"  # value: how many transactions; the rest of the journal is dropped
    COPY = "copy node"  # block: first block of the bad copy; source: of the good one
    ADOPT = "mend leaf"  # block: first block of a leaf that verifies, but whose header counts wrongly
    FLIP = "flip bit"  # block: first block; value: number of the bit
    REBUILD = "rebuild the tree"
    PUT = "put item"  # key, value
    DELETE = "delete item"  # key
    SET = "set field"  # key, field, value
    MOVE = "move record"  # key: its blocks are copied to free ones


class Purpose(Enum):
    """What an edit is for, where more hangs on it than the change itself: what the repair tells of the loss."""

    MEND = "mend"  # a comparison of the files tells what it costs
    DISCARD = "discard"  # the item goes for good, and is counted as lost: no comparison of files sees it
    ANEW = "make anew"  # an inode whose owner, mode and times nobody knows


IN_PLACE = frozenset((Verb.MEND, Verb.SUPERBLOCK, Verb.COPY, Verb.FLIP))  # a round of these alone makes no new frame
Value = int | bytes | tuple[int, ...] | None  # a tuple: the fields of a record within a record


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change."""

    verb: Verb
    code: str
    why: str  # for people only
    purpose: Purpose = Purpose.MEND
    path: str | None = None
    key: bytes = b""
    field: str = ""
    value: Value = None
    block: int | None = None
    source: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the edit as JSON holds it; what it does not use is left out."""
        told: dict[str, Any] = {
            "do": self.verb.value, "purpose": self.purpose.value, "code": self.code, "path": self.path, "why": self.why,
        }  # fmt: skip
        if self.key:
            told["key"] = self.key.hex()
        if self.field:
            told["field"] = self.field
        if self.value is not None:
            told["value"] = {"hex": self.value.hex()} if isinstance(self.value, bytes) else self.value
        told |= {name: number for name, number in (("block", self.block), ("source", self.source)) if number is not None}
        return told

    @classmethod
    def from_json(cls, told: Any) -> "Edit":
        """Return the edit that *told* holds. Raises UsageError."""
        try:
            edit = cls(
                verb=Verb(told["do"]), code=_text(told["code"]), why=_text(told["why"]), purpose=_purpose_from_json(told),
                path=_text_or_none(told.get("path")), key=bytes.fromhex(told.get("key", "")), field=_text(told.get("field", "")),
                value=_value_from_json(told.get("value")),
                block=_place_or_none(told.get("block")), source=_place_or_none(told.get("source")),
            )  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError) as wrong:
            raise UsageError(f"this is no edit of a plan: {str(told)[:80]} ({wrong})") from None
        edit.check()
        return edit

    def check(self) -> None:
        """Raise UsageError if a part that the verb needs is missing or of the wrong type."""
        wanted = _NEEDS[self.verb]
        for name, kinds in wanted.items():
            if not isinstance(getattr(self, name), kinds) or getattr(self, name) in ("", b""):
                raise UsageError(f"an edit that is to {self.verb.value} needs '{name}'")
        if "key" in wanted and len(self.key) != KEY_BYTES:
            raise UsageError(f"an edit has a key of {len(self.key)} bytes; keys have {KEY_BYTES}")
        if self.verb in (Verb.REPLAY, Verb.FLIP) and isinstance(self.value, int) and self.value < 0:
            raise UsageError(f"an edit that is to {self.verb.value} has the number {self.value}")
        if self.code not in PROBLEMS:
            raise UsageError(f"an edit answers '{self.code}', which is the code of no problem")
        if self.field and self.field not in self._fields():
            raise UsageError(f"an edit is to set '{self.field}'; there is no such field")

    def _fields(self) -> set[str]:
        """Return the names of the fields that the edit may set."""
        if self.verb is Verb.SUPERBLOCK:
            return {one.name for one in Superblock.FIELDS}
        structure: Any = ITEMS.get(self.key[KIND_AT]) if len(self.key) == KEY_BYTES else None
        return {one.name for one in structure.FIELDS} if structure is not None else set()


_NEEDS: dict[Verb, dict[str, type | tuple[type, ...]]] = {
    Verb.FRAME: {},
    Verb.MEND: {"block": int},
    Verb.SUPERBLOCK: {"field": str, "value": (int, bytes, tuple)},
    Verb.REPLAY: {"value": int},
    Verb.COPY: {"block": int, "source": int},
    Verb.ADOPT: {"block": int},
    Verb.FLIP: {"block": int, "value": int},
    Verb.REBUILD: {},
    Verb.PUT: {"key": bytes, "value": bytes},
    Verb.DELETE: {"key": bytes},
    Verb.SET: {"key": bytes, "field": str, "value": (int, bytes)},
    Verb.MOVE: {"key": bytes},
}


_WORDS_OF_DISCARDS = ("remove the item that makes no sense", "remove data behind the end of the file")
_WORDS_OF_ANEW = "make anew: "


def _purpose_from_json(told: dict[str, Any]) -> Purpose:
    """Return the purpose of an edit. Plans of older versions tell it by nothing but these words."""
    if "purpose" in told:
        return Purpose(told["purpose"])
    if told["why"] in _WORDS_OF_DISCARDS:
        return Purpose.DISCARD
    return Purpose.ANEW if told["why"].startswith(_WORDS_OF_ANEW) else Purpose.MEND


def _value_from_json(told: Any) -> Value:
    if isinstance(told, dict):
        return bytes.fromhex(told["hex"])
    if isinstance(told, list):
        return tuple(whole_number(number, lowest=NUMBER_MIN) for number in told)
    return None if told is None else whole_number(told, lowest=NUMBER_MIN)


def whole_number(told: Any, highest: int = NUMBER_MAX, lowest: int = 0) -> int:
    """Return *told* as a number that a field can hold. Raises ValueError."""
    if isinstance(told, bool) or not isinstance(told, int) or not lowest <= told <= highest:
        raise ValueError(f"no number from {lowest} to {highest}")
    return told


def _place_or_none(told: Any) -> int | None:
    return None if told is None else whole_number(told, BLOCK_MASK)


def _text(told: Any) -> str:
    """Return *told*. Raises TypeError if it is no text."""
    if not isinstance(told, str):
        raise TypeError("no text where one belongs")
    return told


def _text_or_none(told: Any) -> str | None:
    return None if told is None else _text(told)


Round = tuple[Edit, ...]


def removed_items(edits: Round) -> int:
    """Return how many items a round removes for good."""
    return sum(edit.verb is Verb.DELETE and edit.purpose is Purpose.DISCARD for edit in edits)
