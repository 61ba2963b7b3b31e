"""Write the dashboard for Grafana, contrib/grafana/razorfs.json; with --check only say whether it is up to date."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "contrib" / "grafana" / "razorfs.json"
MOUNT = 'image=~"$image"'
WINDOW = "$__rate_interval"
WIDTH, HEIGHT, COLUMNS = 8, 8, 3  # of a panel, in Grafana's units; side by side


def rate(name: str, labels: str = "") -> str:
    """Return how fast a counter rises."""
    return f"rate({name}{{{MOUNT}{labels}}}[{WINDOW}])"


def quantile(share: float, name: str, by: str = "") -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({share}, sum by (le{by}) (rate({name}_bucket{{{MOUNT}}}[{WINDOW}])))"


def quantiles(name: str) -> list[tuple[str, str]]:
    """Return the queries of p50, p99 and p99.9."""
    return [(quantile(share, name), f"p{100 * share:g}") for share in (0.5, 0.99, 0.999)]


def gauge(name: str, labels: str = "") -> str:
    """Return a gauge."""
    return f"{name}{{{MOUNT}{labels}}}"


def hits(cache: str) -> str:
    """Return the share of hits of a cache."""
    labels = f', cache="{cache}"'
    found = rate("razorfs_cache_hits_total", labels)
    return f"{found} / ({found} + {rate('razorfs_cache_misses_total', labels)})"


PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [  # title, unit, queries with their legends
    ("Requests", "reqps", [(f"sum by (operation) ({rate('razorfs_request_duration_seconds_count')})", "{{operation}}")]),
    ("Latency of requests, p99", "s", [(quantile(0.99, "razorfs_request_duration_seconds", ", operation"), "{{operation}}")]),
    ("Latency of all requests", "s", quantiles("razorfs_request_duration_seconds")),
    ("Errors", "reqps", [(f"sum by (operation, error) ({rate('razorfs_request_errors_total')})", "{{operation}} {{error}}")]),
    ("Data", "Bps", [(rate("razorfs_read_bytes_total"), "read"), (rate("razorfs_written_bytes_total"), "written")]),
    ("Waiting", "s", [(rate("razorfs_request_wait_seconds_total"), "{{phase}}"),
                      (rate("razorfs_in_place_wait_seconds_total"), "all, for the device"),
                      (rate("razorfs_flight_wait_seconds_total"), "all, for a commit or checkpoint")]),
    ("Cache hits", "percentunit", [(hits("records"), "data records"), (hits("metadata"), "metadata")]),
    ("Memory", "bytes", [(gauge("razorfs_memory_bytes"), "{{component}}"),
                         (gauge("razorfs_memory_limit_bytes"), "limit of {{component}}")]),
    ("Reads in threads", "ops", [(rate("razorfs_fetches_total"), "fetches"), (gauge("razorfs_requests_waiting"), "waiting now")]),
    ("Commits", "s", quantiles("razorfs_commit_duration_seconds")),
    ("Flushes of the host", "s", quantiles("razorfs_flush_duration_seconds")),
    ("Checkpoints", "s", quantiles("razorfs_checkpoint_duration_seconds")),
    ("Journal", "bytes", [(gauge("razorfs_journal_used_bytes"), "in use"), (gauge("razorfs_journal_size_bytes"), "size")]),
    ("Age of what is durable", "s", [(gauge("razorfs_last_commit_age_seconds"), "last commit"),
                                     (gauge("razorfs_last_checkpoint_age_seconds"), "last checkpoint")]),
    ("Space", "bytes", [(gauge("razorfs_free_bytes"), "free"), (gauge("razorfs_size_bytes"), "size")]),
    ("Compression ratio", "none", [
        (f"{rate('razorfs_compression_raw_bytes_total')} / {rate('razorfs_compression_stored_bytes_total')}", "{{verdict}}")]),
    ("Compression ratio by type of file", "none", [
        (f"{rate('razorfs_type_raw_bytes_total')} / {rate('razorfs_type_stored_bytes_total')}", "{{type}}")]),
    ("Compression speed", "Bps", [
        (f"{rate('razorfs_compression_raw_bytes_total')} / {rate('razorfs_compression_seconds_total')}", "{{verdict}}")]),
    ("Decompression speed", "Bps", [
        (f"{rate('razorfs_decompression_raw_bytes_total')} / {rate('razorfs_decompression_seconds_total')}", "{{algorithm}}")]),
    ("Contents", "none", [(gauge("razorfs_inodes"), "inodes"), (gauge("razorfs_directories"), "directories"),
                          (gauge("razorfs_held_inodes"), "held by the kernel")]),
    ("Recovery at the mount", "s", [(gauge("razorfs_recovery_duration_seconds"), "took"),
                                    (gauge("razorfs_recovered_transactions"), "transactions replayed")]),
    ("Integrity", "none", [(f"increase(razorfs_corrupt_requests_total{{{MOUNT}}}[1h])", "corrupt requests in an hour"),
                           (f"increase(razorfs_failed_requests_total{{{MOUNT}}}[1h])", "failed requests in an hour"),
                           (f"increase(razorfs_healed_copies_total{{{MOUNT}}}[1h])", "healed copies in an hour"),
                           (gauge("razorfs_has_failed"), "read-only after a failure"),
                           (gauge("razorfs_fsck_findings"), "{{severity}}s that the last razorfsck found"),
                           (gauge("razorfs_fsck_problems_left"), "problems that it left")]),
]  # fmt: skip


def dashboard() -> dict[str, object]:
    """Return the dashboard as Grafana imports it."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"x": number % COLUMNS * WIDTH, "y": number // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + at), "datasource": source, "expr": query, "legendFormat": legend}
                for at, (query, legend) in enumerate(queries)
            ],
        }
        for number, (title, unit, queries) in enumerate(PANELS)
    ]
    variables = [
        {"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {
            "name": "image", "type": "query", "label": "Image", "datasource": source, "multi": True, "includeAll": True,
            "query": "label_values(razorfs_mounted_seconds, image)", "refresh": 2,
        },
    ]  # fmt: skip
    return {
        "title": "RAZORFS", "uid": "razorfs", "schemaVersion": 39, "tags": ["razorfs"], "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s", "templating": {"list": variables}, "panels": panels,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 if --check found it out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    chosen = parser.parse_args(arguments)
    wanted = json.dumps(dashboard(), indent=1) + "\n"
    if chosen.check:
        if PAGE.read_text(encoding="utf-8") != wanted:
            print(f"out of date: {PAGE.name}; run: python tools/dashboard.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
