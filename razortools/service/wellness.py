"""Is a mount well? What its daemon tells, judged: one verdict for each part, with its reason and what to do. Pure.

Invariants: what is judged was told, never guessed; a rate is only told of a time that was watched, and an hour of it at least; a
share of few events is no reason to warn.
"""

from razortools.engine.health import (
    Reason,
    Thresholds,
    Verdict,
    about_checks,
    about_contents,
    about_failure,
    about_problems_left,
    about_space,
)
from razortools.format.data import RECORD_BYTES_MAX
from razortools.service.figures import MountFigures
from razortools.units import format_duration, format_size, plural

LOOKUPS_MIN = 1000  # before a share of hits means something
FULL_SHARE = 0.9  # a cache that is not full has no use for more room; a record may be too large for the rest of a small one
WATCHED_MIN_S = 3600.0
WATCHED_TO_WARN_S = 24 * 3600.0  # an hour's copying must not wake anybody
_DAY_S = 24 * 3600.0


def judge(figures: MountFigures, now_ns: int, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Return the verdict's parts, in the order in which an operator reads them."""
    return (
        _about_mount(figures),
        _about_journal(figures, thresholds),
        _about_persistence(figures, thresholds),
        _about_memory(figures, thresholds),
        _about_cache(figures, thresholds),
        _about_space(figures, thresholds),
        _about_contents(figures),
        _about_requests(figures),
        _about_integrity(figures, now_ns),
    )


def hit_percent(figures: MountFigures) -> float | None:
    """Return how many of the data records that were wanted were in memory; None: none was wanted."""
    hits, misses = figures.volume.record_hits, figures.volume.record_misses
    return 100 * hits / (hits + misses) if hits + misses else None


def used_bytes(figures: MountFigures) -> int:
    """Return what new data cannot take."""
    return (figures.volume.block_count - figures.volume.free_blocks) * figures.volume.block_bytes


def used_percent(figures: MountFigures) -> float:
    """Return `used_bytes` as a share of the image."""
    return round(100 * used_bytes(figures) / (figures.volume.block_count * figures.volume.block_bytes), 2)


def journal_percent(figures: MountFigures) -> float:
    """Return how full the journal is."""
    return round(100 * figures.volume.journal_used_bytes / figures.volume.journal_bytes, 2)


def days_until_full(figures: MountFigures) -> tuple[float, float] | None:
    """Return (days until the image is full, seconds watched) at the rate since the mount, a week at most; None: nobody can tell.

    None as well if it has not grown.
    """
    if not figures.space_history:
        return None
    watched_s, before = figures.space_history[0]
    grown = used_bytes(figures) - before
    if watched_s < WATCHED_MIN_S or grown <= 0:
        return None
    free = figures.volume.free_blocks * figures.volume.block_bytes
    return free / (grown / watched_s) / _DAY_S, watched_s


def _about_mount(figures: MountFigures) -> Reason:
    failed = about_failure(figures.volume.failure)
    if failed:
        return failed[0]
    mode = "read-only, " if figures.volume.read_only else ""
    text = f"{mode}served by pid {figures.pid} at {figures.mount_point} for {format_duration(figures.mounted_age_s)}"
    return Reason(Verdict.OK, "Mount", text)


def _about_journal(figures: MountFigures, thresholds: Thresholds) -> Reason:
    percent = journal_percent(figures)
    entries = plural(figures.volume.journal_entries, "entry")
    text = f"{entries}, {percent:.0f} % of {format_size(figures.volume.journal_bytes)} full"
    if percent >= thresholds.journal_warning:
        text += "; checkpoints do not keep up: lower checkpoint=, or make a larger journal next time"
        return Reason(Verdict.WARNING, "Journal", text)
    return Reason(Verdict.OK, "Journal", text)


def _about_persistence(figures: MountFigures, thresholds: Thresholds) -> Reason:
    if figures.volume.read_only:
        return Reason(Verdict.OK, "Persistence", "read-only: there is nothing to make durable")
    ages = f"last commit {format_duration(figures.commit_age_s)} ago"
    ages += f", last checkpoint {format_duration(figures.checkpoint_age_s)} ago"
    if figures.commit_age_s > figures.commit_interval_s + thresholds.commit_age_warning_s:
        text = f"{ages}, although commit={figures.commit_interval_s:g}; the disk does not keep up: see the log, and the host's"
        return Reason(Verdict.WARNING, "Persistence", text)
    return Reason(Verdict.OK, "Persistence", ages)


def _about_memory(figures: MountFigures, thresholds: Thresholds) -> Reason:
    volume, limit = figures.volume, sum(figures.limits_bytes.values())
    used = volume.record_cache_bytes + volume.metadata_cache_bytes + volume.dirty_bytes
    text = f"{format_size(used)} of {format_size(limit)}"
    if 100 * used > thresholds.memory_warning * limit:
        text += "; more than the limits: much is dirty or in use at once; if it stays so, raise metadata_cache= or dirty="
        return Reason(Verdict.WARNING, "Memory", text)
    return Reason(Verdict.OK, "Memory", text)


def _about_cache(figures: MountFigures, thresholds: Thresholds) -> Reason:
    percent = hit_percent(figures)
    if percent is None:
        return Reason(Verdict.OK, "Cache", "no data has been asked for yet")
    volume, limit = figures.volume, figures.limits_bytes["records"]
    if percent >= thresholds.cache_target:
        return Reason(Verdict.OK, "Cache", f"hit rate {percent:.0f} %")
    text = f"hit rate {percent:.0f} %, target {thresholds.cache_target:.0f} %"
    if limit - volume.record_cache_bytes >= max((1 - FULL_SHARE) * limit, RECORD_BYTES_MAX):
        text += f"; first reads: {format_size(volume.record_cache_bytes)} of {format_size(limit)} are used"
        return Reason(Verdict.OK, "Cache", text)
    if volume.record_hits + volume.record_misses < LOOKUPS_MIN:
        return Reason(Verdict.OK, "Cache", f"{text}, of few reads")
    return Reason(Verdict.WARNING, "Cache", f"{text}. Working set is larger than cache={_option_size(limit)}")


def _about_space(figures: MountFigures, thresholds: Thresholds) -> Reason:
    volume = figures.volume
    free, total = volume.free_blocks * volume.block_bytes, volume.block_count * volume.block_bytes
    reason = about_space(used_percent(figures), total, free, thresholds)
    found = days_until_full(figures)
    if found is None:
        return reason
    days, watched_s = found
    rate = "this week's rate" if watched_s >= 6.5 * _DAY_S else f"the rate of the last {format_duration(watched_s)}"
    text = f"{reason.text}, full in {days:.0f} days at {rate}"
    if reason.verdict is Verdict.OK and days < thresholds.full_warning_days and watched_s >= WATCHED_TO_WARN_S:
        return Reason(Verdict.WARNING, "Space", f"{text}; plan for more room")
    return Reason(reason.verdict, "Space", text)


def _about_contents(figures: MountFigures) -> Reason:
    volume = figures.volume
    stored_bytes = volume.data_blocks * volume.block_bytes
    return about_contents(volume.inode_count, volume.directory_count, volume.raw_bytes, stored_bytes)


def _about_requests(figures: MountFigures) -> Reason:
    if figures.failed_requests:
        text = f"{figures.failed_requests} were refused because the device failed; see the log, and look at the host's disk"
        return Reason(Verdict.WARNING, "Requests", text)
    count = sum(spread.count for spread in figures.requests.values())
    return Reason(Verdict.OK, "Requests", f"{count} answered, {figures.waiting_requests} waiting")


def _about_integrity(figures: MountFigures, now_ns: int) -> Reason:
    volume = figures.volume
    if figures.corrupt_requests:
        text = f"{plural(figures.corrupt_requests, 'request')} met data that failed its check, or cannot be read; "
        text += "the log names it. Unmount it and run razorfsck"
        return Reason(Verdict.CRITICAL, "Integrity", text)
    checked = about_checks(volume.checked_at_ns, now_ns)
    if volume.healed_nodes:
        text = f"{volume.healed_nodes} damaged copies of nodes were replaced by good ones since mount: watch the disk; {checked}"
        return Reason(Verdict.WARNING, "Integrity", text)
    if volume.fsck_left:
        return about_problems_left(volume.fsck_left)
    return Reason(Verdict.OK, "Integrity", f"0 checksum errors since mount, {checked}")


def _option_size(size: int) -> str:
    """Return *size* as a mount option takes it."""
    for unit, power in (("G", 30), ("M", 20), ("K", 10)):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return str(size)
