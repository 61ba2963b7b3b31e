"""The page of razorfs-health for Prometheus: what images and mounts tell, each name once.

What no daemon serves is told as of its last checkpoint, by fewer metrics; what both know has one name. Needs prometheus_client
only if something is mounted.
"""

from collections.abc import Iterator
from dataclasses import fields

from razortools.engine.health import Figures, Health
from razortools.service.figures import MountFigures
from razortools.service.label_values import label_value

METRICS = {  # metric: (figure, meaning)
    "razorfs_size_bytes": ("total_bytes", "Size of the image."),
    "razorfs_free_bytes": ("free_bytes", "Bytes that new data may take."),
    "razorfs_inodes": ("inodes", "Inodes in use."),
    "razorfs_directories": ("directories", "Directories among the inodes."),
    "razorfs_names": ("names", "Strings in the string table."),
    "razorfs_data_raw_bytes": ("raw_bytes", "Data in blocks, before compression."),
    "razorfs_data_stored_bytes": ("stored_bytes", "Data in blocks, as stored."),
    "razorfs_journal_size_bytes": ("journal_bytes", "Size of the journal."),
    "razorfs_journal_used_bytes": ("journal_used_bytes", "Bytes of the journal that a mount would replay."),
    "razorfs_superblock_copies_invalid": ("superblock_copies_invalid", "Superblock copies that do not verify."),
    "razorfs_errors_seen": ("error_count", "Errors seen since the last full check."),
    "razorfs_fsck_problems_left": ("fsck_left", "Problems that it left in the image."),
    "razorfs_generation": ("generation", "Checkpoints since the image was made."),
}
ONLY_OF_IMAGES = ("razorfs_superblock_copies_invalid",)  # a mount does not look for them
assert {figure for figure, _ in METRICS.values()} <= {field.name for field in fields(Figures)}

_VERDICT = ("razorfs_health", "0 ok, 1 warning, 2 critical, 3 unknown.")


def page(found: list[Health]) -> str:
    """Return the page, without the last newline."""
    live = [MountFigures.from_document(one.live) for one in found if one.live is not None]
    gauges = list(_gauges(found))
    if not live:
        return "\n".join(line for gauge in gauges for line in _lines(*gauge))
    from razortools.service import metrics  # late: prometheus_client takes a tenth of a second

    return metrics.page(live, gauges).rstrip("\n")


def _gauges(found: list[Health]) -> Iterator[tuple[str, str, list[tuple[str, float]]]]:
    """Yield (name, meaning, values by image) of what the images tell, and a mount does not."""
    yield (*_VERDICT, [(one.image, int(one.verdict)) for one in found])
    for name, (figure, meaning) in METRICS.items():
        told = [one for one in found if one.figures and (one.live is None or name in ONLY_OF_IMAGES)]
        yield name, meaning, [(one.image, getattr(one.figures, figure)) for one in told]


def _lines(name: str, meaning: str, values: list[tuple[str, float]]) -> Iterator[str]:
    """Yield one metric with a value for each image."""
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} gauge"
    for image, value in values:
        escaped = label_value(image).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        yield f'{name}{{image="{escaped}"}} {value}'
