"""A mount, watched: what happened between two looks, as sections of rows for a screen. Pure but for asking.

Invariants: a rate is what two figures of one daemon differ by, over the time between them; the first look shows what has happened
since the mount, and says so.
"""

from collections.abc import Callable, Mapping, Sequence

from razortools.engine.health import Thresholds, Verdict, worst
from razortools.engine.store.durations import quantile_s
from razortools.service import wellness
from razortools.service.figures import Compressed, MountFigures, Spread
from razortools.units import format_duration, format_size

Section = tuple[str, Sequence[Sequence[str]]]  # title, rows
OPERATIONS_SHOWN = 10
SHARES = (0.5, 0.99, 0.999)


class Watcher:
    """Looks again and again."""

    def __init__(
        self, ask: Callable[[], MountFigures | None], clock: Callable[[], tuple[float, int]], thresholds: Thresholds
    ) -> None:
        """*ask* tells the figures, None when there are none any more; *clock* seconds that only rise, and ns since 1970."""
        self._ask = ask
        self._clock = clock
        self._thresholds = thresholds
        self._before: tuple[float, MountFigures] | None = None
        self.verdict = Verdict.UNKNOWN
        self.looks = 0

    def look(self) -> list[Section] | None:
        """Return what there is to see now; None if nobody tells any more."""
        now = self._ask()
        if now is None:
            return None
        at_s, now_ns = self._clock()
        reasons = wellness.judge(now, now_ns, self._thresholds)
        self.verdict = worst([reason.verdict for reason in reasons])
        self.looks += 1
        before, self._before = self._before, (at_s, now)
        rows = [(reason.verdict.name, f"{reason.subject}: {reason.text}") for reason in reasons]
        seen = sections(now, None, 0.0) if before is None else sections(now, before[1], at_s - before[0])
        return [(f"{now.image}: {self.verdict.name}", rows), *seen]


def sections(now: MountFigures, before: MountFigures | None, seconds: float) -> list[Section]:
    """Return what happened in the *seconds* between two looks; without a look before, since the mount."""
    if before is None or seconds <= 0:
        before, seconds, since = None, now.mounted_age_s or 1.0, "since the mount"
    else:
        since = f"in {seconds:.1f} s"
    return [
        (f"Requests {since}", _requests(now, before, seconds)),
        (f"Data {since}", _data(now, before, seconds)),
        (f"Caches {since}", _caches(now, before)),
        (f"Journal {since}", _journal(now, before, seconds)),
        ("Compression since the mount", _compression("verdict", now.compression)),
        ("Decompression since the mount", _compression("algorithm", now.decompression)),
        ("Types of file since the mount", _compression("type", now.compression_types)),
    ]


def _requests(now: MountFigures, before: MountFigures | None, seconds: float) -> list[Sequence[str]]:
    found = [(name, _since(spread, before.requests.get(name) if before else None)) for name, spread in now.requests.items()]
    busy = sorted((one for one in found if one[1].count), key=lambda one: -one[1].count)[:OPERATIONS_SHOWN]
    head: list[Sequence[str]] = [("operation", "a second", *(f"p{100 * share:g}" for share in SHARES))]
    return head + [(name, f"{spread.count / seconds:,.0f}", *_quantiles(spread)) for name, spread in busy]


def _data(now: MountFigures, before: MountFigures | None, seconds: float) -> list[Sequence[str]]:
    read = now.read_bytes - (before.read_bytes if before else 0)
    written = now.written_bytes - (before.written_bytes if before else 0)
    waits = [
        f"{phase} {waited - (before.waited_s.get(phase, 0.0) if before else 0.0):.2f} s" for phase, waited in now.waited_s.items()
    ]
    return [
        ("read by programs", f"{format_size(int(read / seconds))}/s"),
        ("written by programs", f"{format_size(int(written / seconds))}/s"),
        ("dirty", format_size(now.volume.dirty_bytes)),
        ("requests waited for", ", ".join(waits)),
    ]


def _caches(now: MountFigures, before: MountFigures | None) -> list[Sequence[str]]:
    volume, earlier = now.volume, before.volume if before else None
    hits = volume.record_hits - (earlier.record_hits if earlier else 0)
    misses = volume.record_misses - (earlier.record_misses if earlier else 0)
    walks = volume.node_walks - (earlier.node_walks if earlier else 0)
    nodes = volume.node_misses - (earlier.node_misses if earlier else 0)
    limits = now.limits_bytes
    return [
        ("cache", "hits", "in use", "limit"),
        ("data records", _percent(hits, hits + misses), format_size(volume.record_cache_bytes), format_size(limits["records"])),
        ("metadata", _percent(walks - nodes, walks), format_size(volume.metadata_cache_bytes), format_size(limits["metadata"])),
    ]


def _journal(now: MountFigures, before: MountFigures | None, seconds: float) -> list[Sequence[str]]:
    commits = _since(now.commits, before.commits if before else None)
    checkpoints = _since(now.checkpoints, before.checkpoints if before else None)
    rows: list[Sequence[str]] = [
        ("in use", f"{wellness.journal_percent(now):.0f} % of {format_size(now.volume.journal_bytes)}"),
        ("commits", f"{commits.count / seconds:,.1f}/s", *_quantiles(commits)),
        ("checkpoints", f"{checkpoints.count}", *_quantiles(checkpoints)),
    ]
    if now.flushes is not None:
        flushes = _since(now.flushes, before.flushes if before else None)
        rows.append(("flushes", f"{flushes.count / seconds:,.1f}/s", *_quantiles(flushes)))
    return [*rows, ("last commit", f"{format_duration(now.commit_age_s)} ago")]


def _compression(heading: str, told: Mapping[str, Compressed]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [(heading, "records", "ratio", "speed")]
    for name, one in sorted(told.items(), key=lambda item: -item[1].raw_bytes)[:OPERATIONS_SHOWN]:
        ratio = f"{one.raw_bytes / one.stored_bytes:.2f}:1" if one.stored_bytes else "-"
        speed = f"{format_size(int(one.raw_bytes / one.took_s))}/s" if one.took_s > 0 and one.stored_bytes else "-"
        rows.append((name, str(one.record_count), ratio, speed))
    return rows


def _since(now: Spread, before: Spread | None) -> Spread:
    """Return what has come since *before*."""
    if before is None:
        return now
    counts = tuple(after - earlier for after, earlier in zip(now.counts, before.counts, strict=True))
    return Spread(counts, now.total_s - before.total_s)


def _quantiles(spread: Spread) -> tuple[str, ...]:
    return tuple(_short(quantile_s(spread.counts, share)) for share in SHARES)


def _short(took_s: float | None) -> str:
    """Return a duration in the unit that fits."""
    if took_s is None:
        return "-"
    if took_s < 1e-3:
        return f"{1e6 * took_s:.0f} us"
    return f"{1e3 * took_s:.1f} ms" if took_s < 1 else f"{took_s:.1f} s"


def _percent(part: int, whole: int) -> str:
    return f"{100 * max(part, 0) / whole:.0f} %" if whole else "-"
