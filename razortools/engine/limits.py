"""Limits: how much memory the engine may use and how long work may wait."""

from dataclasses import dataclass

from razortools.units import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that hold. Bytes are bytes of memory."""

    record_cache_bytes: int = 256 * MIB  # decompressed records that are clean
    metadata_cache_bytes: int = 128 * MIB  # tree nodes
    dirty_bytes: int = 64 * MIB  # data written but not yet compressed and placed
    # A change is synced as a patch if what it belongs to is at least so many times as large: else it is compressed as soon.
    patch_share: int = 4
    # Pages that are overwritten in records which are not in memory wait as such once so many records have changed.
    loose_from: int = 64
    late_share: int = 4  # a record has late pages behind it up to one part in so many of its size
    commit_interval_s: float = 5.0  # the most that a program that never syncs can lose
    checkpoint_interval_s: float = 30.0  # bounds how much a recovery replays
