"""Creating a filesystem: from a few wishes a plan, from the plan an empty volume.

A plan is a pure value; the same plan gives the same bytes. Few blocks are written whatever the size: superblock slots and
backups, one page of a space map and its index, the root node. Everything else is taken to be zeros or meaningless.
"""

import os
import stat
import time
from dataclasses import dataclass, replace

from razortools.engine.make.identity import HASH_SEED_BYTES, random_uuid
from razortools.engine.store.admin import noted
from razortools.engine.store.commit import freeze
from razortools.engine.store.device import Device
from razortools.engine.store.store import Store
from razortools.errors import UsageError
from razortools.format.admin import EMPTY_HISTORY, NO_ENTRY, Action, entry
from razortools.format.compression import Policy
from razortools.format.data import RECORD_BYTES_MAX, RECORD_BYTES_MIN
from razortools.format.geometry import IMAGE_BYTES_MIN, Geometry, plan_geometry
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.journal import Operation
from razortools.format.keys import COUNTERS_KEY, inode_key
from razortools.format.node import ChildPointer
from razortools.format.spacemap import VIRGIN
from razortools.format.superblock import (
    BLOCK_BYTES_CHOICES,
    KNOWN_COMPAT,
    KNOWN_INCOMPAT,
    LABEL_BYTES_MAX,
    VERSION_MAJOR,
    VERSION_MINOR,
    Compat,
    Incompat,
    State,
    Superblock,
)
from razortools.format.volume import Counters
from razortools.units import KIB, NameId, format_size

RECORD_BYTES = 128 * KIB
ROOT_MODE = 0o755
RECORD_NODES_MAX = 64  # a record's item must fit into a quarter of a node even if each of its blocks lies alone
AUTO = Policy()
FIRST_NAME_ID = NameId(1)
BLOCK_COUNT_MIN = 128  # the fixed parts take about 20, the nodes of a small tree and their next versions about 60
ALL_FEATURES = Incompat(KNOWN_INCOMPAT)
ALL_COMPAT = Compat(KNOWN_COMPAT)


def feature_name(feature: Incompat | Compat) -> str:
    """Return the name of one feature as the commands write it."""
    return str(feature.name).lower()


def _names_of(features: Incompat | Compat) -> list[str]:
    return [feature_name(feature) for feature in type(features) if feature & features]


@dataclass(frozen=True, slots=True)
class Features:
    """The features of an image."""

    incompat: Incompat = ALL_FEATURES
    compat: Compat = ALL_COMPAT

    def names(self) -> list[str]:
        """Return their names as the commands write them."""
        return [*_names_of(self.incompat), *_names_of(self.compat)]


USUAL_FEATURES = Features()
# An image without them is whole, and older versions open it and find nothing to complain of.
OPTIONAL_FEATURES = tuple(_names_of(Incompat.SECOND_CHECKSUM | Incompat.LATE_PAGES) + _names_of(Compat.ADMIN_HISTORY))


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePlan:
    """Everything that decides the bytes of an empty filesystem."""

    geometry: Geometry
    uuid: bytes
    hash_seed: bytes
    label: bytes
    record_bytes: int
    metadata_copies: int
    compression: Policy
    features: Features
    root_uid: int
    root_gid: int
    root_mode: int  # permission bits
    made_at_ns: int


def plan_create(
    image_bytes: int,
    *,
    block_bytes: int = 4096,
    record_bytes: int = RECORD_BYTES,
    journal_bytes: int | None = None,
    metadata_copies: int = 2,
    compression: Policy = AUTO,
    features: Features = USUAL_FEATURES,
    label: str = "",
    root_uid: int = 0,
    root_gid: int = 0,
    root_mode: int = ROOT_MODE,
    uuid: bytes | None = None,
    hash_seed: bytes | None = None,
    made_at_ns: int | None = None,
) -> CreatePlan:
    """Return the plan for an image of *image_bytes*. What is None is chosen: uuid and hash seed at random, the time is now.

    Raises UsageError for wishes that cannot be fulfilled.
    """
    _check_sizes(block_bytes, record_bytes, metadata_copies)
    if IMAGE_BYTES_MIN <= image_bytes < BLOCK_COUNT_MIN * block_bytes:
        raise UsageError(
            f"{format_size(image_bytes)} is too small for blocks of {format_size(block_bytes)}; it takes "
            f"{format_size(BLOCK_COUNT_MIN * block_bytes)}, or smaller blocks"
        )
    if not 0 <= root_mode <= 0o7777:
        raise UsageError(f"{root_mode:o} is not a mode; give the permission bits of the root directory, such as 0755")
    geometry = plan_geometry(image_bytes, block_bytes, journal_bytes)
    if record_bytes > geometry.node_bytes * RECORD_NODES_MAX:
        raise UsageError(
            f"records of {format_size(record_bytes)} are too large for an image of {format_size(image_bytes)}; "
            f"choose {format_size(geometry.node_bytes * RECORD_NODES_MAX)} at the most"
        )
    return CreatePlan(
        geometry=geometry,
        uuid=random_uuid() if uuid is None else uuid,
        hash_seed=os.urandom(HASH_SEED_BYTES) if hash_seed is None else hash_seed,
        label=encode_label(label),
        record_bytes=record_bytes,
        metadata_copies=metadata_copies,
        compression=compression,
        features=features,
        root_uid=root_uid,
        root_gid=root_gid,
        root_mode=root_mode,
        made_at_ns=time.time_ns() if made_at_ns is None else made_at_ns,
    )


def create(device: Device, plan: CreatePlan) -> Superblock:
    """Write the empty filesystem of *plan* to *device* and return its superblock. The device stays open.

    What the device held before must be zeros, or of no meaning to RAZORFS: an old journal in the same place could be replayed.
    """
    planned = plan_superblock(plan)
    made = entry(Action.MKFS, plan.made_at_ns, detail=planned.block_count * planned.block_bytes)
    store = Store.format(device, replace(planned, **noted(planned, made)))
    assert store.room.has(0, 0, 0, deleting=False), "the smallest image has room for a root"
    store.start(Operation.MKDIR, ROOT_INODE)
    store.put(inode_key(ROOT_INODE), _root(plan).encode())
    store.put(COUNTERS_KEY, _counters().encode())
    store.finish()
    freeze(store, plan.made_at_ns)  # nothing that a journal could add to: the checkpoint holds all of it
    store.checkpoint(plan.made_at_ns)
    store.device.flush()  # the backups too
    return store.superblock


def plan_superblock(plan: CreatePlan) -> Superblock:
    """Return the superblock of a volume that has no tree yet."""
    geometry = plan.geometry
    return Superblock(
        version_major=VERSION_MAJOR,
        version_minor=VERSION_MINOR,
        slot=0,
        address=0,
        compat=int(plan.features.compat),
        read_only_compat=0,
        incompat=int(plan.features.incompat),
        uuid=plan.uuid,
        label=plan.label,
        hash_seed=plan.hash_seed,
        block_bytes=geometry.block_bytes,
        node_bytes=geometry.node_bytes,
        record_bytes=plan.record_bytes,
        metadata_copies=plan.metadata_copies,
        compression=int(plan.compression.algorithm),
        compression_level=plan.compression.level,
        state=State.CLEAN,
        block_count=geometry.block_count,
        spacemap_a=geometry.spacemap_starts[0],
        spacemap_b=geometry.spacemap_starts[1],
        spacemap_active=0,
        spacemap_top=VIRGIN,
        journal_start=geometry.journal_start,
        journal_blocks=geometry.journal_blocks,
        journal_tail=0,
        journal_sequence=1,
        generation=0,
        transaction=0,
        root=ChildPointer(0, 0, 0, 0),
        root_level=0,
        free_blocks=geometry.block_count - sum(count for _, count in geometry.fixed_extents()),
        inode_count=1,
        directory_count=1,
        made_at_ns=plan.made_at_ns,
        mounted_at_ns=0,
        written_at_ns=plan.made_at_ns,
        checked_at_ns=0,
        mount_count=0,
        error_count=0,
        node_count=1,
        admin_last=NO_ENTRY,
        admin_before=NO_ENTRY,
        reserved=bytes(Superblock.LAYOUT.reserved.sizeof()),
        admin_history=EMPTY_HISTORY,
    )


def encode_label(label: str) -> bytes:
    """Return *label* as the superblock holds it. Raises UsageError if it does not fit."""
    encoded = label.encode("utf-8", "surrogateescape")
    if len(encoded) > LABEL_BYTES_MAX:
        raise UsageError(f"the label takes {len(encoded)} bytes; {LABEL_BYTES_MAX} is the most")
    if b"\0" in encoded or not label.isprintable():
        raise UsageError("the label holds characters that cannot be shown; choose another one")
    return encoded.ljust(LABEL_BYTES_MAX, b"\0")


def parse_features(text: str) -> Features:
    """Return the features that *text* means: names with commas between. Raises UsageError for what this version cannot do."""
    names: dict[str, Incompat | Compat] = {feature_name(feature): feature for feature in (*Incompat, *Compat)}
    incompat, compat = ALL_FEATURES, ALL_COMPAT
    for name in filter(None, (part.strip().lower() for part in text.split(","))):
        plain = name.removeprefix("^")
        if plain not in names:
            raise UsageError(f"'{plain}' is not a feature of this version; it has {', '.join(names)}")
        if plain == name:
            continue
        feature = names[plain]
        if plain not in OPTIONAL_FEATURES:
            raise UsageError(f"{plain} cannot be switched off: this version may use it in every image")
        if isinstance(feature, Incompat):
            incompat &= ~feature
        else:
            compat &= ~feature
    return Features(incompat, compat)


def _check_sizes(block_bytes: int, record_bytes: int, metadata_copies: int) -> None:
    if block_bytes not in BLOCK_BYTES_CHOICES:
        choices = ", ".join(map(str, BLOCK_BYTES_CHOICES))
        raise UsageError(f"{block_bytes} is not a block size; choose one of {choices}")
    if not RECORD_BYTES_MIN <= record_bytes <= RECORD_BYTES_MAX or record_bytes & (record_bytes - 1):
        raise UsageError(
            f"{record_bytes} is not a record size; choose a power of two from {format_size(RECORD_BYTES_MIN)} "
            f"to {format_size(RECORD_BYTES_MAX)}"
        )
    if record_bytes < block_bytes:
        raise UsageError(f"a record of {format_size(record_bytes)} is smaller than a block of {format_size(block_bytes)}")
    if metadata_copies not in (1, 2):
        raise UsageError(f"{metadata_copies} copies of the metadata cannot be kept; choose 1 or 2")


def _root(plan: CreatePlan) -> Inode:
    """Return the root directory, empty."""
    return Inode(
        mode=stat.S_IFDIR | plan.root_mode,
        uid=plan.root_uid,
        gid=plan.root_gid,
        link_count=2,
        size=0,
        stored_blocks=0,
        atime_ns=plan.made_at_ns,
        mtime_ns=plan.made_at_ns,
        ctime_ns=plan.made_at_ns,
        btime_ns=plan.made_at_ns,
        rdev=0,
        generation=0,
        flags=0,
        next_link_no=0,
        record_log2=plan.record_bytes.bit_length() - 1,
        compression=int(plan.compression.algorithm),
        compression_level=plan.compression.level,
        reserved=0,
    )


def _counters() -> Counters:
    """Return the counters of a volume that holds the root only."""
    return Counters(ROOT_INODE + 1, FIRST_NAME_ID, 1, 1, 0, 0, 0)
