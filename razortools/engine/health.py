"""Is a volume well? From figures and superblock copies to one verdict with its reasons. Pure but for `examine`.

Invariants: what is judged here was read, never guessed; an image that is in use is judged by its last checkpoint, and by what
the process that has it mounted says; nothing is written.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from razortools.engine.limits import Limits
from razortools.engine.statistics import Statistics
from razortools.engine.store import superblocks
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.superblocks import Copy
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.format.superblock import SLOT_COUNT, State, Superblock
from razortools.units import MIB, NANOSECONDS, format_size, plural

_EXAMINE_LIMITS = Limits(record_cache_bytes=1 * MIB, metadata_cache_bytes=16 * MIB)
_DAY_NS = 24 * 60 * 60 * NANOSECONDS


class Verdict(IntEnum):
    """How well. The numbers are the exit codes of monitoring plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_GRAVITY = (Verdict.OK, Verdict.WARNING, Verdict.UNKNOWN, Verdict.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on a figure is a warning, or critical. In percent, where nothing else is said."""

    space_warning: float = 90.0
    space_critical: float = 97.0
    journal_warning: float = 75.0
    # Of a mount alone:
    cache_target: float = 80.0  # below it
    memory_warning: float = 110.0  # of the limits
    commit_age_warning_s: float = 60.0  # beyond the interval
    full_warning_days: float = 7.0  # below it


@dataclass(frozen=True, slots=True)
class Reason:
    """One part of the verdict, with what to do if it is not OK."""

    verdict: Verdict
    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured. Bytes are bytes, times nanoseconds since 1970."""

    label: str
    uuid: str
    total_bytes: int
    free_bytes: int
    used_percent: float
    inodes: int
    directories: int
    names: int
    raw_bytes: int
    stored_bytes: int
    compression_ratio: float | None  # None: no data in blocks yet
    journal_bytes: int
    journal_used_bytes: int
    journal_used_percent: float
    transactions_to_replay: int
    superblock_copies: int
    superblock_copies_invalid: int
    state: str
    generation: int
    mount_count: int
    error_count: int
    written_at_ns: int
    checked_at_ns: int
    fsck_at_ns: int  # as Statistics tells
    fsck_errors: int
    fsck_warnings: int
    fsck_left: int


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict about one image and its reasons. *figures* is None if the image could not be read."""

    image: str
    verdict: Verdict
    reasons: tuple[Reason, ...]
    figures: Figures | None  # as of the last checkpoint
    live: Mapping[str, object] | None = None  # what the daemon that serves it tells


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the gravest verdict: what is known to be critical weighs more than what is not known."""
    return max(verdicts, key=_GRAVITY.index, default=Verdict.UNKNOWN)


def examine(
    device: Device, now_ns: int, thresholds: Thresholds = Thresholds(), *, in_use: bool = False, live: Sequence[Reason] = ()
) -> Health:
    """Return the health of the image on *device*, which is only read. *in_use*: somebody has it mounted; *live*: what they say.

    Raises NotAnImage, UnsupportedFormat, DeviceFailed; damage is part of the answer.
    """
    name = device.name
    try:
        volume = open_volume(device, read_only=True, recover=not in_use, limits=_EXAMINE_LIMITS)
        below = volume.store.device.base if isinstance(volume.store.device, OverlayDevice) else device
        superblock = superblocks.newest(below)
        copies = superblocks.find_copies(below)
    except CorruptImage as damaged:
        reason = Reason(Verdict.CRITICAL, "Integrity", str(damaged))
        return Health(name, Verdict.CRITICAL, (*live, reason), None)
    figures = measure(volume, superblock, copies)
    reasons = (*live, *judge(figures, copies, now_ns, thresholds, in_use=in_use))
    return Health(name, worst([reason.verdict for reason in reasons]), reasons, figures)


def about_failure(failure: str) -> tuple[Reason, ...]:
    """Return what a mount says of itself: *failure* is why it has turned read-only, empty if it has not."""
    return (Reason(Verdict.CRITICAL, "Mount", f"has turned read-only by itself: {failure}"),) if failure else ()


def measure(volume: Volume, superblock: Superblock, copies: Sequence[Copy]) -> Figures:
    """Return the figures of an open volume whose device holds *superblock* and *copies*."""
    now: Statistics = volume.statistics()
    stored = now.data_blocks * now.block_bytes
    replayed = volume.recovered.transactions
    journal_used = _journal_used(volume, superblock) if replayed else now.journal_used_bytes
    return Figures(
        label=superblock.label.rstrip(b"\0").decode("utf-8", "replace"),
        uuid=str(uuid.UUID(bytes=superblock.uuid)),
        total_bytes=now.block_count * now.block_bytes,
        free_bytes=now.free_blocks * now.block_bytes,
        used_percent=round(100 * (1 - now.free_blocks / now.block_count), 2),
        inodes=now.inode_count,
        directories=now.directory_count,
        names=now.name_count,
        raw_bytes=now.raw_bytes,
        stored_bytes=stored,
        compression_ratio=round(now.raw_bytes / stored, 2) if stored else None,
        journal_bytes=now.journal_bytes,
        journal_used_bytes=journal_used,
        journal_used_percent=round(100 * journal_used / now.journal_bytes, 2),
        transactions_to_replay=replayed,
        superblock_copies=len(copies),
        superblock_copies_invalid=sum(_is_damaged(copy, superblock) for copy in copies),
        state=State(superblock.state).name.lower() if superblock.state in list(State) else str(superblock.state),
        generation=superblock.generation,
        mount_count=superblock.mount_count,
        error_count=superblock.error_count,
        written_at_ns=superblock.written_at_ns,
        checked_at_ns=superblock.checked_at_ns,
        fsck_at_ns=now.fsck_at_ns,
        fsck_errors=now.fsck_errors,
        fsck_warnings=now.fsck_warnings,
        fsck_left=now.fsck_left,
    )


def _journal_used(volume: Volume, superblock: Superblock) -> int:
    """Return how much of the ring on the device waits to be replayed: the recovered view has emptied its own already."""
    return volume.store.superblock.journal_tail - superblock.journal_tail


def _is_damaged(copy: Copy, newest: Superblock) -> bool:
    """Whether a copy should be valid and is not. After mkfs one slot has never been written."""
    return copy.superblock is None and not (newest.generation < SLOT_COUNT and not copy.had_magic)


def judge(figures: Figures, copies: Sequence[Copy], now_ns: int, thresholds: Thresholds, *, in_use: bool) -> tuple[Reason, ...]:
    """Return the verdict's parts, in the order in which an operator reads them."""
    return (
        _about_state(figures, in_use=in_use),
        _about_copies(figures, copies),
        _about_journal(figures, thresholds),
        about_space(figures.used_percent, figures.total_bytes, figures.free_bytes, thresholds),
        about_contents(figures.inodes, figures.directories, figures.raw_bytes, figures.stored_bytes),
        _about_checks(figures, now_ns),
    )


def _about_state(figures: Figures, *, in_use: bool) -> Reason:
    if figures.error_count:
        text = f"mounts have met {plural(figures.error_count, 'error')} since the last repair; unmount it and run razorfsck"
        return Reason(Verdict.CRITICAL, "State", text)
    if figures.state == "errors":
        text = "the last repair has left problems; razorfsck tells which, and razorfsck --salvage copies out what can be read"
        return Reason(Verdict.CRITICAL, "State", text)
    if in_use:
        return Reason(Verdict.OK, "State", f"in use, {_opened(figures)}; this is its last checkpoint")
    if figures.state == "dirty":
        text = f"was not unmounted; the next mount replays {plural(figures.transactions_to_replay, 'transaction')} by itself"
        return Reason(Verdict.WARNING, "State", text)
    return Reason(Verdict.OK, "State", f"{figures.state}, {_opened(figures)}")


def _about_copies(figures: Figures, copies: Sequence[Copy]) -> Reason:
    if figures.superblock_copies_invalid:
        places = ", ".join(f"byte {copy.offset}" for copy in copies if copy.superblock is None)
        text = f"{figures.superblock_copies_invalid} of {len(copies)} copies do not verify ({places}); run razorfsck"
        return Reason(Verdict.WARNING, "Superblock", text)
    return Reason(Verdict.OK, "Superblock", f"{len(copies)} copies, generation {figures.generation}")


def _about_journal(figures: Figures, thresholds: Thresholds) -> Reason:
    percent = figures.journal_used_percent
    text = f"{percent:.0f} % of {format_size(figures.journal_bytes)} used"
    if percent >= thresholds.journal_warning:
        return Reason(Verdict.WARNING, "Journal", f"{text}; mount and unmount it once, or make a larger one next time")
    return Reason(Verdict.OK, "Journal", text)


def about_space(percent: float, total_bytes: int, free_bytes: int, thresholds: Thresholds) -> Reason:
    """Return what to say of an image that is used to *percent*."""
    text = f"{percent:.0f} % of {format_size(total_bytes)} used, {format_size(free_bytes)} free"
    if percent >= thresholds.space_critical:
        return Reason(Verdict.CRITICAL, "Space", f"{text}; delete something, or enlarge it with resize of razorfs-debug")
    if percent >= thresholds.space_warning:
        return Reason(Verdict.WARNING, "Space", f"{text}; plan for more room")
    return Reason(Verdict.OK, "Space", text)


def about_contents(inodes: int, directories: int, raw_bytes: int, stored_bytes: int) -> Reason:
    """Return what to say of what an image holds; *raw_bytes* of data take *stored_bytes* in blocks."""
    text = f"{plural(inodes, 'inode')}, {directories} of them directories"
    if stored_bytes:
        text += f"; {format_size(raw_bytes)} of data in {format_size(stored_bytes)} ({raw_bytes / stored_bytes:.2f}:1)"
    return Reason(Verdict.OK, "Contents", text)


def _about_checks(figures: Figures, now_ns: int) -> Reason:
    if figures.fsck_left:
        return about_problems_left(figures.fsck_left)
    checked = about_checks(figures.checked_at_ns, now_ns)
    if figures.error_count or figures.state == "errors":
        return Reason(Verdict.WARNING, "Integrity", f"not known until a repair leaves nothing, {checked}")
    return Reason(Verdict.OK, "Integrity", f"no error seen, {checked}")


def about_problems_left(count: int) -> Reason:
    """Return what to say of an image in which the last razorfsck has left *count* problems."""
    text = f"the last razorfsck has left {plural(count, 'problem')}; unmount it, and run razorfsck --repair "
    text += "or copy out what can be read"
    return Reason(Verdict.WARNING, "Integrity", text)


def about_checks(checked_at_ns: int, now_ns: int) -> str:
    """Return in words when an image was checked last; *checked_at_ns* is 0 if it never was."""
    if not checked_at_ns:
        return "no full check recorded yet"
    return f"last full check {max(now_ns - checked_at_ns, 0) // _DAY_NS} days ago"


def _opened(figures: Figures) -> str:
    return "opened for writing once" if figures.mount_count == 1 else f"opened for writing {figures.mount_count} times"
