"""Figures of a mount: what its daemon tells of itself at one moment, as one value.

Taken in the loop's thread, between two requests; everything in it is a copy, so it may go anywhere: to a thread that answers
Prometheus, or as one line of JSON through the control socket. Invariants: counters only rise while a mount lives and begin at
zero with it; what has never happened is left out; times are seconds, and ages count back from the moment when it was taken.
"""

import errno
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import razortools
from razortools.engine.adaptive import Tally
from razortools.engine.statistics import Statistics
from razortools.engine.store.durations import Durations
from razortools.format.compression import Algorithm
from razortools.service.handlers import name_of

if TYPE_CHECKING:
    from razortools.service.committer import Committer
    from razortools.service.memory import Memory
    from razortools.service.operations import Operations
    from razortools.service.pump import Pump
    from razortools.service.recompressing import Recompressor
    from razortools.service.space_history import SpaceHistory
    from razortools.service.wakefulness import Wakefulness


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took: the counts of engine/store/durations.py and the sum of all."""

    counts: tuple[int, ...]
    total_s: float

    @property
    def count(self) -> int:
        """How often it happened."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Compressed:
    """What became of the records that met one verdict of engine/adaptive.py."""

    record_count: int
    raw_bytes: int
    stored_bytes: int
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MountFigures:
    """See the module."""

    version: str
    pid: int
    image: str
    mount_point: str
    mounted_age_s: float
    volume: Statistics
    limits_bytes: dict[str, int]  # of "records", "metadata" and "dirty", as they are in force now
    memory_shortages: int  # how often the kernel told that memory is short
    requests: dict[str, Spread]  # by operation
    refusals: dict[str, dict[str, int]]  # by operation and name of the error
    waiting_requests: int
    waited_s: dict[str, float]  # by phase, see service/phases.py
    held_inodes: int
    read_bytes: int
    written_bytes: int
    corrupt_requests: int  # refused because what they needed failed its check
    failed_requests: int  # refused because the device failed
    awake_s: float  # time in which idle processors were kept from sleeping
    fetches: int
    commits: Spread
    checkpoints: Spread
    flushes: Spread | None  # None: the device does not tell
    commit_interval_s: float
    checkpoint_interval_s: float
    commit_age_s: float  # since the last look whether there is anything to commit, and there was nothing or it is durable
    checkpoint_age_s: float
    recovered_transactions: int
    recovered_entries: int
    recovered_discarded: int
    recovery_s: float
    compression: dict[str, Compressed]  # by verdict
    resting_files: int  # that may be stored anew, harder, once they have rested
    resting_dropped: int  # files that are not, because too many others were resting already
    recompressed_records: int  # stored anew, harder, after they had rested
    recompressed_saved_bytes: int
    compression_types: dict[str, Compressed]  # by type of file, holes left out
    decompression: dict[str, Compressed]  # by algorithm: what was read and decompressed
    space_history: tuple[tuple[float, int], ...]  # age, bytes in use; oldest first

    @classmethod
    def from_document(cls, told: Mapping[str, Any]) -> "MountFigures":
        """Return what `asdict` made a document of. Raises TypeError, KeyError if another version did."""
        fields = dict(told)
        fields["volume"] = Statistics(**told["volume"])
        for name in ("commits", "checkpoints", "flushes"):
            fields[name] = None if told[name] is None else _spread(told[name])
        fields["requests"] = {name: _spread(spread) for name, spread in told["requests"].items()}
        for name in ("compression", "compression_types", "decompression"):
            fields[name] = {key: Compressed(**one) for key, one in told[name].items()}
        fields["space_history"] = tuple((age_s, used) for age_s, used in told["space_history"])
        return cls(**fields)

    def document(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


def _spread(told: Mapping[str, Any]) -> Spread:
    return Spread(tuple(told["counts"]), told["total_s"])


def _compressed(tally: Tally) -> Compressed:
    return Compressed(tally.record_count, tally.raw_bytes, tally.stored_bytes, tally.took_s)


def spread_of(durations: Durations) -> Spread:
    """Return a copy of *durations*."""
    return Spread(tuple(durations.counts), durations.total_s)


@dataclass(slots=True, eq=False)
class Telling:
    """All parts of a mount that have something to tell."""

    pid: int
    image: str
    mount_point: str
    pump: "Pump"
    operations: "Operations"
    committer: "Committer"
    memory: "Memory"
    recompressor: "Recompressor"
    wakefulness: "Wakefulness"
    history: "SpaceHistory"
    mounted_at_s: float  # of the monotonic clock

    def take(self) -> MountFigures:
        """Return the figures of this moment. In the loop's thread."""
        operations, committer, tally = self.operations, self.committer, self.pump.tally
        volume, options, now_s = operations.volume, operations.options, time.monotonic()
        refusals: dict[str, dict[str, int]] = {}
        for (opcode, number), count in tally.refusals.items():
            refusals.setdefault(name_of(opcode), {})[errno.errorcode.get(number, str(number))] = count
        flush_times = getattr(volume.store.device, "flush_times", None)
        recovered, tallies = volume.recovered, volume.records.tallies
        return MountFigures(
            version=razortools.__version__,
            pid=self.pid,
            image=self.image,
            mount_point=self.mount_point,
            mounted_age_s=now_s - self.mounted_at_s,
            volume=volume.statistics(),
            limits_bytes={
                "records": volume.limits.record_cache_bytes,
                "metadata": volume.limits.metadata_cache_bytes,
                "dirty": volume.limits.dirty_bytes,
            },
            memory_shortages=self.memory.signal_count,
            requests={name_of(opcode): spread_of(times) for opcode, times in tally.times.items() if times.total_ns},
            refusals=refusals,
            waiting_requests=tally.under_way,
            waited_s={phase.value: waited_s for phase, waited_s in tally.waited_s.items()},
            held_inodes=volume.inodes.held_count,
            read_bytes=operations.read_bytes,
            written_bytes=operations.written_bytes,
            corrupt_requests=operations.failures.corrupt_count,
            failed_requests=operations.failures.failed_count,
            awake_s=self.wakefulness.kept_s,
            fetches=operations.fetcher.fetch_count,
            commits=spread_of(volume.store.commit_times),
            checkpoints=spread_of(volume.store.checkpoint_times),
            flushes=spread_of(flush_times) if isinstance(flush_times, Durations) else None,
            commit_interval_s=options.commit_interval_s,
            checkpoint_interval_s=options.checkpoint_interval_s,
            commit_age_s=now_s - committer.committed_at_s,
            checkpoint_age_s=now_s - committer.checkpointed_at_s,
            recovered_transactions=recovered.transactions,
            recovered_entries=recovered.entries,
            recovered_discarded=recovered.discarded,
            recovery_s=recovered.took_s,
            compression={verdict.name.lower(): _compressed(tally) for verdict, tally in tallies.by_verdict.items()},
            resting_files=len(volume.lately),
            resting_dropped=volume.lately.forgotten_count,
            recompressed_records=self.recompressor.record_count,
            recompressed_saved_bytes=self.recompressor.saved_blocks * volume.block_bytes,
            compression_types={kind: _compressed(tally) for kind, tally in tallies.by_type.items()},
            decompression={
                Algorithm(kind).name.lower(): Compressed(work.count, work.raw_bytes, work.stored_bytes, work.took_s)
                for kind, work in volume.store.unpacked.told().items()
            },
            space_history=self.history.told(now_s),
        )
