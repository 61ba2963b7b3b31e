"""Making an image: judge the place, plan, write, fill, and only then let it be a filesystem.

Invariants: nothing is written before everything that can be refused has been refused; the superblocks are written last;
whatever goes wrong, a file that was made here is removed again, and one that was there before keeps its length.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO

from razortools.engine.create import AUTO, RECORD_BYTES, ROOT_MODE, USUAL_FEATURES, CreatePlan, Features, create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.make import target as make_target
from razortools.engine.make.held_device import HeldDevice
from razortools.engine.make.identity import UuidChoice, choose_identity, effective_choice
from razortools.engine.make.target import Target
from razortools.engine.populate.digest import digest_entries
from razortools.engine.populate.entry import Entry, Source, clamped
from razortools.engine.populate.source import open_source
from razortools.engine.populate.writer import populate
from razortools.engine.statistics import Statistics
from razortools.engine.store.device import Device
from razortools.engine.volume import open_volume
from razortools.file_counts import FileCounts
from razortools.format.compression import Policy
from razortools.format.geometry import Geometry
from razortools.format.inode import ROOT_INODE
from razortools.units import NANOSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the operator wants. None: what is usual."""

    image: str
    size_bytes: int | None = None
    label: str = ""
    uuid: UuidChoice | None = None
    block_bytes: int = 4096
    record_bytes: int = RECORD_BYTES
    journal_bytes: int | None = None
    metadata_copies: int = 2
    compression: Policy = AUTO
    features: Features = USUAL_FEATURES
    source: str | None = None  # what to put in: a directory, a tarball, "-"
    root_owner: tuple[int, int] | None = None
    root_mode: int | None = None
    epoch_s: int | None = None  # SOURCE_DATE_EPOCH
    dry_run: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made, or would be."""

    image_bytes: int
    plan: CreatePlan
    dry_run: bool
    populated: FileCounts | None = None
    statistics: Statistics | None = None


def make(order: Order, stdin: IO[bytes], notice: Callable[[Entry], None] = lambda entry: None) -> Made:
    """Make the filesystem that *order* describes, or only plan it. *notice* is told of each file that goes in.

    Raises UsageError; Refused, ImageBusy, SourceFailed, OutOfSpace, DeviceFailed. A new image is removed then.
    """
    with ExitStack() as held:
        target = make_target.examine(order.image, order.size_bytes, order.block_bytes)
        make_target.refuse(target, held, force=order.force, dry_run=order.dry_run)
        source = _source(order, stdin, target, held)
        plan = _plan(order, target, source)
        if order.dry_run:
            return Made(image_bytes=target.image_bytes, plan=plan, dry_run=True)
        with _whole_or_nothing(target, held, plan.geometry) as device:
            waiting = HeldDevice(device, plan.geometry)
            create(waiting, plan)
            waiting.drop_journal()
            made = _fill(waiting, plan, order, source, notice, target.image_bytes)
            waiting.release()
        make_target.settle(target)
        return made


def _source(order: Order, stdin: IO[bytes], target: Target, held: ExitStack) -> Source | None:
    if order.source is None:
        return None
    twice = effective_choice(order.uuid, order.epoch_s) in ("content", "time") and not order.dry_run
    return open_source(order.source, stdin, held, image=lambda: target.identity, twice=twice)


def _plan(order: Order, target: Target, source: Source | None) -> CreatePlan:
    """Return the plan. Sizes are judged before the source is read, which may take long."""

    def plan_with(uuid: bytes, hash_seed: bytes, made_at_ns: int) -> CreatePlan:
        uid, gid = order.root_owner or _usual_owner(order)
        return plan_create(
            target.image_bytes,
            block_bytes=order.block_bytes,
            record_bytes=order.record_bytes,
            journal_bytes=order.journal_bytes,
            metadata_copies=order.metadata_copies,
            compression=order.compression,
            features=order.features,
            label=order.label,
            root_uid=uid,
            root_gid=gid,
            root_mode=ROOT_MODE if order.root_mode is None else order.root_mode,
            uuid=uuid,
            hash_seed=hash_seed,
            made_at_ns=made_at_ns,
        )

    plan_with(b"", b"", 0)

    def digest() -> bytes:
        return digest_entries(_entries(order, source)) if source is not None else digest_entries(())

    identity = choose_identity(effective_choice(order.uuid, order.epoch_s), order.epoch_s, order.label, digest)
    return plan_with(identity.uuid, identity.hash_seed, identity.made_at_ns)


def _usual_owner(order: Order) -> tuple[int, int]:
    """Return who owns the root: whoever makes it, so that he can use it; root where nothing may depend on who that is."""
    return (os.geteuid(), os.getegid()) if order.epoch_s is None else (0, 0)


def _entries(order: Order, source: Source) -> Iterator[Entry]:
    """Yield the entries of *source* as they are to be kept: times clamped, the root as the options want it."""
    epoch_ns = None if order.epoch_s is None else order.epoch_s * NANOSECONDS
    for entry in clamped(source.entries(), epoch_ns):
        if not entry.path and (order.root_owner is not None or order.root_mode is not None):
            uid, gid = order.root_owner or (entry.uid, entry.gid)
            mode = entry.mode if order.root_mode is None else entry.mode & ~0o7777 | order.root_mode
            yield replace(entry, uid=uid, gid=gid, mode=mode)
        else:
            yield entry


def _fill(
    device: Device, plan: CreatePlan, order: Order, source: Source | None, notice: Callable[[Entry], None], image_bytes: int
) -> Made:
    """Put the source into the new filesystem on *device*."""
    if source is None:
        return Made(image_bytes=image_bytes, plan=plan, dry_run=False)
    # One moment for all: that of the making. What was written is not read again, so it needs no cache.
    volume = open_volume(device, limits=Limits(record_cache_bytes=0), clock=lambda: plan.made_at_ns, opening=None)
    populated = populate(volume, source.name, _entries(order, source), notice)
    volume.commit()
    statistics = volume.statistics()
    root = volume.inodes.get(ROOT_INODE)
    kept = replace(plan, root_uid=root.uid, root_gid=root.gid, root_mode=root.mode & 0o7777)
    volume.close()
    return Made(image_bytes=image_bytes, plan=kept, dry_run=False, populated=populated, statistics=statistics)


@contextmanager
def _whole_or_nothing(target: Target, held: ExitStack, geometry: Geometry) -> Iterator[Device]:
    """Yield the device to write to; undo what can be undone if the body fails."""
    try:
        yield make_target.prepare(target, held, geometry)
    except BaseException:
        with suppress(OSError):
            make_target.undo(target)
        raise
