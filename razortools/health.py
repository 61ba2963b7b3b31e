"""razorfs-health: is it well? For people, for scripts, for Nagios and for Prometheus."""

import os
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import DebugFlag, JsonFlag, VersionFlag
from razortools.engine.health import Figures, Health, Reason, Thresholds, Verdict, about_failure, examine, worst
from razortools.engine.store.device import open_image
from razortools.errors import ImageBusy, RazorError, UsageError

NAME = "razorfs-health"
FILESYSTEM_TYPE = "fuse.razorfs"
MOUNTS = Path("/proc/self/mounts")
PATIENCE_S = 5.0  # for the daemon to tell how it is: it answers between two requests
_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.CRITICAL: "bold red", Verdict.UNKNOWN: "magenta"}
_NORMAL = Thresholds()

app = cli.new_app()


@app.command(help="Tell whether a RAZORFS image is well. Without an argument: every mounted one.")
def health(
    target: Annotated[
        str | None, typer.Argument(metavar="[IMAGE | MOUNTPOINT]", help="Image, or where it is mounted.", show_default=False)
    ] = None,
    as_json: JsonFlag = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Print metrics in Prometheus' text format.")] = False,
    nagios: Annotated[bool, typer.Option("--nagios", help="Print one line for Nagios and its kin.")] = False,
    space_warning: Annotated[
        float, typer.Option(metavar="PERCENT", help="Warn when so much space is used.")
    ] = _NORMAL.space_warning,
    space_critical: Annotated[
        float, typer.Option(metavar="PERCENT", help="Critical when so much space is used.")
    ] = _NORMAL.space_critical,
    journal_warning: Annotated[
        float, typer.Option(metavar="PERCENT", help="Warn when so much of the journal is used.")
    ] = _NORMAL.journal_warning,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Examine and show. The exit code is the verdict: 0 ok, 1 warning, 2 critical, 3 unknown."""
    if as_json + prometheus + nagios > 1:
        raise UsageError("choose one of --json, --prometheus and --nagios")
    thresholds = Thresholds(space_warning=space_warning, space_critical=space_critical, journal_warning=journal_warning)
    found = [_examine(image, thresholds) for image in _images(target)]
    verdict = worst([one.verdict for one in found])
    if as_json:
        render.document(_document(found, verdict))
    elif prometheus:
        render.out("\n".join(_metrics(found)))
    elif nagios:
        render.out(_nagios_line(found, verdict, thresholds))
    else:
        _show(found, named=target is None)
    return int(verdict)


def _images(target: str | None) -> list[str]:
    """Return the images to examine. Raises UsageError if a directory is given where nothing is mounted."""
    mounted = dict(_mounts())
    if target is None:
        return sorted(set(mounted.values()))
    if Path(target).is_dir():
        place = os.path.realpath(target)
        if place not in mounted:
            raise UsageError(f"{target}: no RAZORFS is mounted there; name an image or a mount point")
        return [mounted[place]]
    return [target]


def _mounts() -> Iterator[tuple[str, str]]:
    """Yield (mount point, image) of every mounted RAZORFS, as the kernel tells."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        source, place, kind = line.split()[:3]
        if kind == FILESYSTEM_TYPE:
            yield _unescaped(place), _unescaped(source)


def _unescaped(field: str) -> str:
    """Return a field of /proc/mounts with its octal escapes undone."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field


def _examine(image: str, thresholds: Thresholds) -> Health:
    """Return the health of *image*; what keeps us from knowing it is an answer too."""
    in_use = False
    live: tuple[Reason, ...] = ()
    try:
        try:
            device = open_image(image, writable=False)
        except ImageBusy:
            in_use = True
            live = _live(image)
            device = open_image(image, writable=False, lock=False)
        with device:
            return examine(device, time.time_ns(), thresholds, in_use=in_use, live=live)
    except (RazorError, OSError) as failure:
        reasons = (*live, Reason(Verdict.UNKNOWN, "Image", cli.sentence(failure)))
        return Health(image, worst([reason.verdict for reason in reasons]), reasons, None)


def _live(image: str) -> tuple[Reason, ...]:
    """Return what the mount of *image* says of itself; nothing if it is well, or if something else than a mount has it open."""
    from razortools.service import mountpoints  # late: only an image that is in use needs it
    from razortools.service.control import Waiter

    wanted = os.path.realpath(image)
    for mount in mountpoints.mounts():
        if mount.filesystem != FILESYSTEM_TYPE:
            continue
        try:
            waiter = Waiter(mount.device, PATIENCE_S)
        except OSError as silent:
            if os.fsdecode(mount.source) == wanted:
                text = f"the process that serves {os.fsdecode(mount.path)} does not say how it is: {silent}"
                return (Reason(Verdict.UNKNOWN, "Mount", text),)
            continue
        waiter.close()
        if waiter.greeting.image == wanted:
            return about_failure(waiter.greeting.failure)
    return ()


def _show(found: list[Health], *, named: bool) -> None:
    """Show the reasons for people, a line each."""
    if not found:
        render.out("UNKNOWN  Mounts: no RAZORFS is mounted here; name an image")
    for one in found:
        if named:
            render.out(f"{one.image}: {one.verdict.name}")
        for reason in one.reasons:
            render.styled(f"{reason.verdict.name:<8} {reason.subject}: {reason.text}", _STYLES[reason.verdict])


def _document(found: list[Health], verdict: Verdict) -> dict[str, object]:
    """Return the JSON document."""
    return {
        "verdict": verdict.name.lower(),
        "exit_code": int(verdict),
        "images": [
            {
                "image": one.image,
                "verdict": one.verdict.name.lower(),
                "reasons": [
                    {"verdict": reason.verdict.name.lower(), "subject": reason.subject, "text": reason.text}
                    for reason in one.reasons
                ],
                "figures": one.figures,
            }
            for one in found
        ],
    }


def _nagios_line(found: list[Health], verdict: Verdict, thresholds: Thresholds) -> str:
    """Return the line of a monitoring plugin: verdict, what is wrong, then performance data behind a bar."""
    wrong = [
        f"{one.image}: {reason.subject}: {reason.text}"
        for one in found
        for reason in one.reasons
        if reason.verdict is not Verdict.OK
    ]
    data = [
        f"'{name} space'={one.figures.used_percent}%;{thresholds.space_warning};{thresholds.space_critical}"
        f" '{name} journal'={one.figures.journal_used_percent}%;{thresholds.journal_warning}"
        for one in found
        if one.figures and (name := os.path.basename(one.image))
    ]
    text = "; ".join(wrong) or ("all is well" if found else "no RAZORFS is mounted")
    line = f"RAZORFS {verdict.name} - {text.replace('|', '/')}"
    return f"{line} | {' '.join(data)}" if data else line


_METRICS = {  # metric: (figure, meaning)
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
    "razorfs_generation": ("generation", "Checkpoints since the image was made."),
}


def _metrics(found: list[Health]) -> Iterator[str]:
    """Yield the lines of Prometheus' text format."""
    yield from _metric("razorfs_health", "0 ok, 1 warning, 2 critical, 3 unknown.", [(one, int(one.verdict)) for one in found])
    for name, (figure, meaning) in _METRICS.items():
        yield from _metric(name, meaning, [(one, getattr(one.figures, figure)) for one in found if one.figures])


def _metric(name: str, meaning: str, values: list[tuple[Health, int]]) -> Iterator[str]:
    """Yield one metric with a value for each image."""
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} gauge"
    for one, value in values:
        image = one.image.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        yield f'{name}{{image="{image}"}} {value}'


def main() -> NoReturn:
    """Run the command."""
    cli.run(app, NAME, cli.HEALTH_CODES)


assert {figure for figure, _ in _METRICS.values()} <= {field.name for field in fields(Figures)}

if __name__ == "__main__":
    main()
