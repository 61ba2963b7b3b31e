"""Identity of a new filesystem: its UUID, the seed of its name hash, its birth.

Under SOURCE_DATE_EPOCH, and with the UUID ``content``, everything here follows from what is put in and from that moment.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from razortools.errors import UsageError
from razortools.units import NANOSECONDS

UUID_BYTES = 16
HASH_SEED_BYTES = 16
_DIGITS_MAX = 20  # of a number of seconds; Python refuses to count thousands
_V1_EPOCH = 0x01B21DD213814000  # 1970 in the 100 ns steps since 1582 that version 1 counts
_V1_STEPS = 10_000_000  # a second

UuidWord = Literal["random", "time", "content"]
UuidChoice = UuidWord | uuid.UUID
_UUID_WORDS: dict[str, UuidWord] = {"random": "random", "time": "time", "content": "content"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a filesystem this one."""

    uuid: bytes
    hash_seed: bytes
    made_at_ns: int


def parse_uuid_choice(text: str) -> UuidChoice:
    """Return what *text* means: random, time, content, or a UUID. Raises UsageError."""
    word = text.strip().lower()
    if word in _UUID_WORDS:
        return _UUID_WORDS[word]
    try:
        return uuid.UUID(word)
    except ValueError:
        raise UsageError(f"'{text}' is not a UUID; give one, or random, time or content") from None


def parse_epoch(text: str) -> int:
    """Return the seconds that SOURCE_DATE_EPOCH means. Raises UsageError."""
    if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS_MAX or int(text) > (1 << 63) // NANOSECONDS - 1:
        raise UsageError(f"SOURCE_DATE_EPOCH is '{text}'; it must be a number of seconds since 1970")
    return int(text)


def effective_choice(choice: UuidChoice | None, epoch_s: int | None) -> UuidChoice:
    """Return *choice*, or what is usual: random, but content where the image must come out the same each time."""
    if choice is not None:
        return choice
    return "random" if epoch_s is None else "content"


def choose_identity(choice: UuidChoice, epoch_s: int | None, label: str, digest: Callable[[], bytes]) -> Identity:
    """Return the identity for *choice*. *digest* is called, at most once, if it depends on what is put in."""
    made_at_ns = time.time_ns() if epoch_s is None else epoch_s * NANOSECONDS
    if choice == "content":
        made = derived_uuid(digest(), label)
    elif choice == "time":
        made = uuid.uuid1().bytes if epoch_s is None else _timed_uuid(epoch_s, digest(), label)
    elif choice == "random":
        made = random_uuid()
    else:
        made = choice.bytes
    is_derived = epoch_s is not None or choice == "content"
    return Identity(made, derived_hash_seed(made) if is_derived else os.urandom(HASH_SEED_BYTES), made_at_ns)


def random_uuid() -> bytes:
    """Return a random UUID (version 4)."""
    return uuid.uuid4().bytes


def derived_uuid(digest: bytes, label: str) -> bytes:
    """Return the UUID (version 8, RFC 9562) of a volume with these contents, see populate/digest.py, and this label."""
    made = bytearray(_mixed(digest, label, b"razorfs uuid"))
    made[6] = made[6] & 0x0F | 0x80
    made[8] = made[8] & 0x3F | 0x80
    return bytes(made)


def derived_hash_seed(uuid_bytes: bytes) -> bytes:
    """Return the hash seed of a volume that must come out the same each time. Unlike a random one it is no secret."""
    return hashlib.blake2b(uuid_bytes, digest_size=HASH_SEED_BYTES, person=b"razorfs seed").digest()


def _timed_uuid(epoch_s: int, digest: bytes, label: str) -> bytes:
    """Return a UUID of version 1 for this moment, with a node number that follows from the contents instead of the machine."""
    steps = epoch_s * _V1_STEPS + _V1_EPOCH
    mixed = _mixed(digest, label, b"razorfs node")
    node = int.from_bytes(mixed[:6], "big") | 1 << 40  # the multicast bit: no network card has this number
    fields = (steps & 0xFFFF_FFFF, steps >> 32 & 0xFFFF, steps >> 48 & 0x0FFF, mixed[6] & 0x3F, mixed[7], node)
    return uuid.UUID(fields=fields, version=1).bytes


def _mixed(digest: bytes, label: str, person: bytes) -> bytes:
    return hashlib.blake2b(digest + label.encode("utf-8", "surrogateescape"), digest_size=UUID_BYTES, person=person).digest()
