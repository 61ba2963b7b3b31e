"""Metrics: what Prometheus is told of a mount, each declared once with name, kind, meaning and where its values come from.

Names and units are Prometheus' conventions: base units (seconds, bytes), the unit last, counters end in _total (added when they
are written). From the declarations come the page of `-o metrics=`, that of `razorfs-health --prometheus`, and the list that the
dashboard and the alert rules in contrib/ are checked against.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from razortools.engine.store.durations import BOUNDS_S
from razortools.service.figures import Compressed, MountFigures, Spread
from razortools.service.label_values import label_value

Labels = tuple[str, ...]
Sample = tuple[Labels, float | Spread]
_BUCKETS = [*(repr(bound) for bound in BOUNDS_S), "+Inf"]


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric. *labels* come after "image", which all have."""

    name: str
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily] | type[HistogramMetricFamily]
    meaning: str
    samples: Callable[[MountFigures], Iterable[Sample]]
    labels: tuple[str, ...] = ()

    def family(self, told: Sequence[MountFigures]) -> Metric:
        """Return the metric with its values for several mounts."""
        return self.family_of((figures.image, sample) for figures in told for sample in self.samples(figures))

    def family_of(self, told: Iterable[tuple[str, Sample]]) -> Metric:
        """Return the metric with these samples, each with its image."""
        family = self.kind(self.name, self.meaning, labels=("image", *self.labels))
        for image, (labels, value) in told:
            values = tuple(map(label_value, (image, *labels)))
            if isinstance(family, HistogramMetricFamily):
                assert isinstance(value, Spread)
                family.add_metric(values, buckets=list(cumulated(value)), sum_value=value.total_s)
            else:
                assert not isinstance(value, Spread)
                family.add_metric(values, value)
        return family

    @property
    def series(self) -> tuple[str, ...]:
        """The names that its values have on the page."""
        if self.kind is HistogramMetricFamily:
            return tuple(f"{self.name}_{end}" for end in ("bucket", "count", "sum"))
        return (f"{self.name}_total",) if self.kind is CounterMetricFamily else (self.name,)


def cumulated(spread: Spread) -> Iterator[tuple[str, float]]:
    """Yield (bound, how many were not above it)."""
    total = 0
    for bound, count in zip(_BUCKETS, spread.counts, strict=True):
        total += count
        yield bound, total


def _counter(name: str, meaning: str, value: Callable[[MountFigures], float]) -> Declared:
    return Declared(name, CounterMetricFamily, meaning, lambda figures: [((), value(figures))])


def _gauge(name: str, meaning: str, value: Callable[[MountFigures], float]) -> Declared:
    return Declared(name, GaugeMetricFamily, meaning, lambda figures: [((), value(figures))])


def _by(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily] | type[HistogramMetricFamily],
    name: str,
    meaning: str,
    labels: str | tuple[str, ...],
    samples: Callable[[MountFigures], Iterable[Sample]],
) -> Declared:
    return Declared(name, kind, meaning, samples, (labels,) if isinstance(labels, str) else labels)


def _refusals(figures: MountFigures) -> Iterator[Sample]:
    for operation, errors in figures.refusals.items():
        for error, count in errors.items():
            yield (operation, error), count


def _compression(part: Callable[[str, MountFigures], float]) -> Callable[[MountFigures], Iterable[Sample]]:
    return lambda figures: [((verdict,), part(verdict, figures)) for verdict in figures.compression]


def _decompression(part: Callable[[Compressed], float]) -> Callable[[MountFigures], Iterable[Sample]]:
    return lambda figures: [((algorithm,), part(one)) for algorithm, one in figures.decompression.items()]


def _types(part: Callable[[Compressed], float]) -> Callable[[MountFigures], Iterable[Sample]]:
    return lambda figures: [((kind,), part(one)) for kind, one in figures.compression_types.items()]


def _memory(figures: MountFigures) -> Iterable[Sample]:
    volume = figures.volume
    return [
        (("records",), volume.record_cache_bytes),
        (("metadata",), volume.metadata_cache_bytes),
        (("dirty",), volume.dirty_bytes),
    ]


def _cache(hits: bool) -> Callable[[MountFigures], Iterable[Sample]]:
    def samples(figures: MountFigures) -> Iterable[Sample]:
        volume = figures.volume
        if hits:
            return [(("records",), volume.record_hits), (("metadata",), max(volume.node_walks - volume.node_misses, 0))]
        return [(("records",), volume.record_misses), (("metadata",), volume.node_misses)]

    return samples


def _fsck_findings(figures: MountFigures) -> Iterable[Sample]:
    volume = figures.volume
    return [(("error",), volume.fsck_errors), (("warning",), volume.fsck_warnings)]


METRICS: tuple[Declared, ...] = (
    # Requests
    _by(HistogramMetricFamily, "razorfs_request_duration_seconds",
        "Time from taking a request from the kernel to its answer.", "operation",
        lambda figures: [((operation,), spread) for operation, spread in figures.requests.items()]),
    _by(CounterMetricFamily, "razorfs_request_errors", "Requests answered with an error.", ("operation", "error"), _refusals),
    _gauge("razorfs_requests_waiting", "Requests that wait for something now.", lambda figures: figures.waiting_requests),
    _by(CounterMetricFamily, "razorfs_request_wait_seconds", "Time that requests have spent waiting, by what for.", "phase",
        lambda figures: [((phase,), waited_s) for phase, waited_s in figures.waited_s.items()]),
    _counter("razorfs_read_bytes", "Bytes that programs have read from files.", lambda figures: figures.read_bytes),
    _counter("razorfs_written_bytes", "Bytes that programs have written to files.", lambda figures: figures.written_bytes),
    _gauge("razorfs_held_inodes", "Inodes that the kernel keeps in mind.", lambda figures: figures.held_inodes),
    _counter("razorfs_awake_seconds", "Time in which idle processors were kept from sleeping.", lambda figures: figures.awake_s),
    # Caches and memory
    _by(CounterMetricFamily, "razorfs_cache_hits", "Data records, and ways to a leaf of the tree, that memory held.", "cache",
        _cache(hits=True)),
    _by(CounterMetricFamily, "razorfs_cache_misses", "Data records, and nodes of the tree, that had to be read.", "cache",
        _cache(hits=False)),
    _by(GaugeMetricFamily, "razorfs_memory_bytes", "Memory in use, by component.", "component", _memory),
    _by(GaugeMetricFamily, "razorfs_memory_limit_bytes", "Memory that a component may use.", "component",
        lambda figures: [((component,), limit) for component, limit in figures.limits_bytes.items()]),
    _counter("razorfs_memory_shortages", "How often the kernel told that memory is short.",
        lambda figures: figures.memory_shortages),
    _counter("razorfs_fetches", "Things that were read in threads.", lambda figures: figures.fetches),
    _counter("razorfs_in_place_wait_seconds", "Time that all requests stood still for the device.",
             lambda figures: figures.volume.waits_in_place_s),
    _counter("razorfs_flight_wait_seconds", "Time that all requests stood still for a commit or checkpoint under way.",
             lambda figures: figures.volume.waits_for_flights_s),
    # Durability
    _by(HistogramMetricFamily, "razorfs_commit_duration_seconds", "Time to write and flush a commit of the journal.", (),
        lambda figures: [((), figures.commits)]),
    _by(HistogramMetricFamily, "razorfs_checkpoint_duration_seconds", "Time to write and flush a checkpoint.", (),
        lambda figures: [((), figures.checkpoints)]),
    _by(HistogramMetricFamily, "razorfs_flush_duration_seconds", "Time that the host takes to make writes stable.", (),
        lambda figures: [] if figures.flushes is None else [((), figures.flushes)]),
    _counter("razorfs_journal_aborts", "Transactions that were dropped.", lambda figures: figures.volume.aborts),
    _gauge("razorfs_journal_size_bytes", "Size of the journal.", lambda figures: figures.volume.journal_bytes),
    _gauge("razorfs_journal_used_bytes", "Bytes of the journal that a mount would replay.",
           lambda figures: figures.volume.journal_used_bytes),
    _gauge("razorfs_last_commit_age_seconds", "Time since everything was durable.", lambda figures: figures.commit_age_s),
    _gauge("razorfs_last_checkpoint_age_seconds", "Time since the last checkpoint.", lambda figures: figures.checkpoint_age_s),
    _gauge("razorfs_recovery_duration_seconds", "Time that opening the image took at the mount.",
           lambda figures: figures.recovery_s),
    _gauge("razorfs_recovered_transactions", "Transactions that the mount replayed.",
           lambda figures: figures.recovered_transactions),
    _gauge("razorfs_recovered_entries", "Entries of the journal that the mount replayed.",
           lambda figures: figures.recovered_entries),
    _gauge("razorfs_recovery_discarded_transactions", "Transactions, never acknowledged, whose data had not arrived.",
           lambda figures: figures.recovered_discarded),
    # Compression
    _by(CounterMetricFamily, "razorfs_compression_records", "Records stored, by what became of them.", "verdict",
        _compression(lambda verdict, figures: figures.compression[verdict].record_count)),
    _by(CounterMetricFamily, "razorfs_compression_raw_bytes", "Bytes of these records before compression.", "verdict",
        _compression(lambda verdict, figures: figures.compression[verdict].raw_bytes)),
    _by(CounterMetricFamily, "razorfs_compression_stored_bytes", "Bytes of these records as stored.", "verdict",
        _compression(lambda verdict, figures: figures.compression[verdict].stored_bytes)),
    _by(CounterMetricFamily, "razorfs_compression_seconds", "Time spent compressing them, by all threads.", "verdict",
        _compression(lambda verdict, figures: figures.compression[verdict].took_s)),
    _gauge("razorfs_resting_files", "Files that may be stored anew, harder, once they have rested.",
           lambda figures: figures.resting_files),
    _counter("razorfs_resting_dropped_files", "Files that are not stored anew, because too many others were resting already.",
             lambda figures: figures.resting_dropped),
    _counter("razorfs_recompressed_records", "Records that had rested and were stored anew, harder.",
             lambda figures: figures.recompressed_records),
    _counter("razorfs_recompressed_saved_bytes", "Bytes of the image that this has saved.",
             lambda figures: figures.recompressed_saved_bytes),
    _by(CounterMetricFamily, "razorfs_decompression_raw_bytes", "Bytes that reading records gave, decompressed.", "algorithm",
        _decompression(lambda one: one.raw_bytes)),
    _by(CounterMetricFamily, "razorfs_decompression_seconds", "Time spent decompressing them, by all threads.", "algorithm",
        _decompression(lambda one: one.took_s)),
    _by(CounterMetricFamily, "razorfs_type_raw_bytes", "Bytes of stored records before compression, by type of file.", "type",
        _types(lambda one: one.raw_bytes)),
    _by(CounterMetricFamily, "razorfs_type_stored_bytes", "Bytes of these records as stored.", "type",
        _types(lambda one: one.stored_bytes)),
    # Space and contents
    _gauge("razorfs_size_bytes", "Size of the image.", lambda figures: figures.volume.block_count * figures.volume.block_bytes),
    _gauge("razorfs_free_bytes", "Bytes that new data may take.",
           lambda figures: figures.volume.free_blocks * figures.volume.block_bytes),
    _gauge("razorfs_inodes", "Inodes in use.", lambda figures: figures.volume.inode_count),
    _gauge("razorfs_directories", "Directories among the inodes.", lambda figures: figures.volume.directory_count),
    _gauge("razorfs_names", "Strings in the string table.", lambda figures: figures.volume.name_count),
    _gauge("razorfs_data_raw_bytes", "Data in blocks, before compression.", lambda figures: figures.volume.raw_bytes),
    _gauge("razorfs_data_stored_bytes", "Data in blocks, as stored.",
           lambda figures: figures.volume.data_blocks * figures.volume.block_bytes),
    # Integrity
    _counter("razorfs_corrupt_requests", "Requests refused because what they needed failed its check.",
             lambda figures: figures.corrupt_requests),
    _counter("razorfs_failed_requests", "Requests refused because the device failed.", lambda figures: figures.failed_requests),
    _counter("razorfs_healed_copies", "Damaged copies of nodes that were replaced by good ones.",
             lambda figures: figures.volume.healed_nodes),
    _gauge("razorfs_errors_seen", "Errors seen since the last full check.", lambda figures: figures.volume.error_count),
    _gauge("razorfs_last_check_timestamp_seconds", "When the image was last checked in full; 0: never.",
           lambda figures: figures.volume.checked_at_ns / 1e9),
    _gauge("razorfs_last_fsck_timestamp_seconds", "When razorfsck last noted what it had found; 0: never.",
           lambda figures: figures.volume.fsck_at_ns / 1e9),
    _by(GaugeMetricFamily, "razorfs_fsck_findings", "Problems that this razorfsck found.", "severity", _fsck_findings),
    _gauge("razorfs_fsck_problems_left", "Problems that it left in the image.", lambda figures: figures.volume.fsck_left),
    _gauge("razorfs_generation", "Checkpoints since the image was made.", lambda figures: figures.volume.generation),
    # The mount
    _gauge("razorfs_read_only", "1 if changes are refused.", lambda figures: figures.volume.read_only),
    _gauge("razorfs_has_failed", "1 if the mount has turned read-only by itself.", lambda figures: bool(figures.volume.failure)),
    _gauge("razorfs_mounted_seconds", "How long it has been mounted.", lambda figures: figures.mounted_age_s),
    _by(GaugeMetricFamily, "razorfs_build_info", "The version that serves it.", ("version", "mount_point"),
        lambda figures: [((figures.version, figures.mount_point), 1)]),
)  # fmt: skip


Gauge = tuple[str, str, Sequence[tuple[str, float]]]  # name, meaning, and a value for each image


class _Families(Collector):
    """Hands over what has been put together."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


def page(told: Sequence[MountFigures], gauges: Iterable[Gauge] = ()) -> str:
    """Return the metrics of some mounts in Prometheus' text format, with *gauges* of images beside them."""
    families: dict[str, Metric] = {declared.name: declared.family(told) for declared in METRICS}
    for name, meaning, values in gauges:
        family = families.setdefault(name, GaugeMetricFamily(name, meaning, labels=("image",)))
        assert isinstance(family, GaugeMetricFamily)
        for image, value in values:
            family.add_metric((label_value(image),), value)
    return rendered(family for family in families.values() if family.samples)


def number_text(number: float) -> str:
    """Return a value as the library writes it."""
    return str(floatToGoString(number))  # type: ignore[no-untyped-call]


def rendered(families: Iterable[Metric]) -> str:
    """Return metrics in Prometheus' text format, as its library writes them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry).decode()
