"""razorfs-health: is it well? For people, for scripts, for Nagios and for Prometheus."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import DebugFlag, JsonFlag, VersionFlag
from razortools.engine.health import Health, Reason, Thresholds, Verdict, about_failure, examine, worst
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.mounts import mounts
from razortools.engine.store.undo_place import default_undo_file, has_undo_file
from razortools.errors import ImageBusy, RazorError, UsageError
from razortools.service import mountpoints

if TYPE_CHECKING:
    from razortools.service.asking import Asker

NAME = "razorfs-health"
INTERVAL_S = 2.0
INTERVAL_MAX_S = 86_400  # a day
PROFILE_S = 10
PATIENCE_S = 5.0  # for the daemon to tell how it is: it answers between two requests
CHECKPOINTS_TRIED = 3
_UNTOLD = "is served, and tells more only to root and to whoever has mounted it; this is its last checkpoint"
_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.CRITICAL: "bold red", Verdict.UNKNOWN: "magenta"}
_NORMAL = Thresholds()

app = cli.new_app()


@app.command(
    help="Tell whether a RAZORFS image is well. Without an argument: every mounted one. "
    "IMAGE 'profile' followed by a mount point draws where its daemon spends its time."
)
def health(
    target: Annotated[
        str | None, typer.Argument(metavar="[IMAGE | MOUNTPOINT]", help="Image, or where it is mounted.", show_default=False)
    ] = None,
    profiled: Annotated[
        str | None, typer.Argument(metavar="[MOUNTPOINT]", help="With 'profile': the mount.", show_default=False)
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
    cache_target: Annotated[
        float, typer.Option(metavar="PERCENT", help="Of a mount: warn when a full cache has fewer hits.")
    ] = _NORMAL.cache_target,
    memory_warning: Annotated[
        float, typer.Option(metavar="PERCENT", help="Of a mount: warn when its memory takes so much of the limits.")
    ] = _NORMAL.memory_warning,
    commit_age_warning: Annotated[
        float, typer.Option(metavar="SECONDS", help="Of a mount: warn when a commit is so much later than its interval.")
    ] = _NORMAL.commit_age_warning_s,
    full_warning: Annotated[
        float, typer.Option(metavar="DAYS", help="Of a mount: warn when it is full in fewer days, at the rate of a day at least.")
    ] = _NORMAL.full_warning_days,
    watch: Annotated[bool, typer.Option("--watch", help="Show a mount live; q or Ctrl-C ends it.")] = False,
    interval: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --watch: between two looks, usually 2.", show_default=False)
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help="With --watch: leave after so many looks; usually never, 0.", show_default=False),
    ] = None,
    seconds: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="With 'profile': how long to look, usually 10.", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="With 'profile': the graph, usually flame.svg.", show_default=False),
    ] = None,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Examine and show. The exit code is the verdict: 0 ok, 1 warning, 2 critical, 3 unknown."""
    if as_json + prometheus + nagios + watch > 1:
        raise UsageError("choose one of --json, --prometheus, --nagios and --watch")
    if not watch and (interval is not None or frames is not None):
        raise UsageError("--interval and --frames go with --watch")
    if profiled is None and (seconds is not None or output is not None):
        raise UsageError("--seconds and --output go with 'profile' and a mount point")
    thresholds = Thresholds(
        space_warning=space_warning,
        space_critical=space_critical,
        journal_warning=journal_warning,
        cache_target=cache_target,
        memory_warning=memory_warning,
        commit_age_warning_s=commit_age_warning,
        full_warning_days=full_warning,
    )
    _judge(thresholds)
    if target == "profile" and profiled is not None:
        return _profile(profiled, PROFILE_S if seconds is None else seconds, output or "flame.svg")
    if profiled is not None:
        raise UsageError(f"one image at a time; what is '{profiled}'?")
    if watch:
        return int(_watch(target, thresholds, INTERVAL_S if interval is None else interval, frames or 0))
    found = _examined(target, thresholds, for_programs=as_json or prometheus or nagios)
    verdict = worst([one.verdict for one in found])
    if as_json:
        render.document(_document(found, verdict))
    elif prometheus:
        from razortools.service.health_page import page  # late: few ask for it

        render.out(page(found))
    elif nagios:
        render.out(_nagios_line(found, verdict, thresholds))
    else:
        _show(found, named=target is None)
    return int(verdict)


def _judge(thresholds: Thresholds) -> None:
    """Raise UsageError for a threshold that could never mean anything."""
    percents = {
        "--space-warning": thresholds.space_warning,
        "--space-critical": thresholds.space_critical,
        "--journal-warning": thresholds.journal_warning,
        "--cache-target": thresholds.cache_target,
    }
    for option, percent in percents.items():
        if not 0 <= percent <= 100:  # nan, too
            raise UsageError(f"{option} {percent:g}: give 0 to 100 percent")
    others = {
        "--memory-warning": thresholds.memory_warning,
        "--commit-age-warning": thresholds.commit_age_warning_s,
        "--full-warning": thresholds.full_warning_days,
    }
    for option, number in others.items():
        if not math.isfinite(number):
            raise UsageError(f"{option} {number:g}: give a number")
    if thresholds.space_critical < thresholds.space_warning:
        raise UsageError(
            f"--space-critical {thresholds.space_critical:g} is below --space-warning {thresholds.space_warning:g}, so there "
            f"would never be a warning; give both"
        )


def _watch(target: str | None, thresholds: Thresholds, interval_s: float, frames: int) -> Verdict:
    """Show a mount live until it is unmounted or somebody has seen enough; return its last verdict."""
    if not 0 < interval_s <= INTERVAL_MAX_S or frames < 0:
        raise UsageError(f"--interval takes a number of seconds above 0, up to {INTERVAL_MAX_S}, --frames a number from 0")
    from razortools.service import watching  # late: few ask for it

    images = _images(target)
    if len(images) != 1:
        raise UsageError(f"--watch shows one mount, and there are {len(images)}; name its mount point")
    with closing(_asker(images[0])) as asker, render.screen() as (show, is_enough):
        watcher = watching.Watcher(asker.figures, lambda: (time.monotonic(), time.time_ns()), thresholds)
        while (sections := watcher.look()) is not None:
            show(sections)
            if watcher.looks == frames or is_enough(interval_s):
                break
    if not watcher.looks:
        raise UsageError(f"{images[0]}: {_UNTOLD}")
    return watcher.verdict


def _asker(image: str) -> "Asker":
    """Return a connection to the daemon that serves *image*. Raises UsageError if there is none."""
    from razortools.service.asking import Silent, connection

    try:
        asker = connection(image, PATIENCE_S)
    except Silent as silent:
        raise UsageError(str(silent)) from None
    if asker is None:
        raise UsageError(f"{image}: is not mounted, so no process serves it that could be looked at")
    return asker


def _profile(mount_point: str, seconds: int, output: str) -> int:
    """Draw where a mount's daemon spends its time, and tell what requests waited for meanwhile."""
    if seconds < 1:
        raise UsageError("--seconds takes a number from 1")
    from razortools.service import profile, watching

    (image,) = _images(mount_point)
    with closing(_asker(image)) as asker:
        before, started_s = asker.figures(), time.monotonic()
        profile.record(asker.greeting.pid, seconds, output)
        now, took_s = asker.figures(), time.monotonic() - started_s
    if before is not None and now is not None:
        render.show_sections(watching.sections(now, before, took_s)[:2])
    render.message(f"{NAME}: {output}: {seconds} s of process {asker.greeting.pid}; open it in a browser")
    return 0


def _examined(target: str | None, thresholds: Thresholds, *, for_programs: bool) -> list[Health]:
    """Return the health of the images that are asked for. Programs get an answer also for a directory with no mount: unknown.

    Raises UsageError for people.
    """
    try:
        images = _images(target)
    except UsageError as refused:
        if target is None or not for_programs:
            raise
        return [Health(target, Verdict.UNKNOWN, (Reason(Verdict.UNKNOWN, "Image", str(refused)),), None, None)]
    return [_examine(image, thresholds) for image in images]


def _images(target: str | None) -> list[str]:
    """Return the images to examine. Raises UsageError if a directory is given that is no mount, or one that does not answer."""
    if target is None:
        return _mounted_images()
    mount = mountpoints.mount_at(target)  # asks nothing of the mount itself, whose daemon may have died
    if mount is not None and mount.is_fuse:
        from razortools.service.asking import Silent, image_at  # late: only a mount needs it

        try:
            image = image_at(mount, PATIENCE_S)
        except Silent as silent:
            raise UsageError(str(silent)) from None
        if image is not None:
            return [image]
    if Path(target).is_dir():
        raise UsageError(f"{target}: no RAZORFS is mounted there; name an image or a mount point")
    return [target]


def _mounted_images() -> list[str]:
    """Return the images that are mounted in this namespace. Of one whose daemon says nothing, what the mount table calls it."""
    from razortools.service.asking import Silent, image_at  # late: only a mount needs it

    found = set()
    for mount in mounts():
        if mount.is_fuse:
            try:
                image = image_at(mount, PATIENCE_S)
            except Silent:
                image = os.fsdecode(mount.source)
            if image is not None:
                found.add(image)
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Live:
    """What a mount says of itself, judged, and as it said it."""

    reasons: tuple[Reason, ...] = ()
    document: Mapping[str, object] | None = None


def _examine(image: str, thresholds: Thresholds) -> Health:
    """Return the health of *image*; what keeps us from knowing it is an answer too."""
    live = Live()
    try:
        try:
            device = open_image(image, writable=False)
        except ImageBusy:
            live = _live(image, thresholds)
            return _in_use(image, live, thresholds)
        with device:
            return examine(device, time.time_ns(), thresholds, live=[*_dead_mounts(image), *_cut_off(device)])
    except (RazorError, OSError) as failure:
        reasons = (*live.reasons, Reason(Verdict.UNKNOWN, "Image", cli.sentence(failure)))
        return Health(image, worst([reason.verdict for reason in reasons]), reasons, None, live.document)


def _dead_mounts(image: str) -> list[Reason]:
    """Return what to say of the mount points of *image*, which nobody has open: whoever uses them gets errors only."""
    sources = {os.fsencode(image), os.fsencode(os.path.realpath(image))}
    mounted = [os.fsdecode(mount.path) for mount in mounts() if mount.is_fuse and mount.source in sources]
    places = [place for place in mounted if mountpoints.is_dead(place)]
    text = "the daemon that served it at {} has died, and programs get errors there; to go on: mount.razorfs {} {}"
    return [Reason(Verdict.CRITICAL, "Mount", text.format(place, image, place)) for place in places]


def _cut_off(device: Device) -> list[Reason]:
    """Return what to say of changes that were cut off before they took effect."""
    if not has_undo_file(device.name):
        return []
    from razortools.check.repair.cut_off import about_unfinished  # late: it loads slowly, and hardly ever is there one

    told = about_unfinished(device, default_undo_file(device.name)).removeprefix(f"{device.name}: ")
    return [Reason(Verdict.WARNING, "Changes", told)] if told else []


def _in_use(image: str, live: Live, thresholds: Thresholds) -> Health:
    """Return the health of an image that somebody has open: what he says, and for the rest what its last checkpoint shows."""
    for tries_left in reversed(range(CHECKPOINTS_TRIED)):
        with open_image(image, writable=False, lock=False) as device:
            found = examine(device, time.time_ns(), thresholds, in_use=True)
        # It may have been written over while it was looked at. A daemon that tells how it is would have met true damage.
        if found.figures is not None or not tries_left:
            break
    told = {reason.subject for reason in live.reasons}
    reasons = (*live.reasons, *(reason for reason in found.reasons if reason.subject not in told))
    return Health(image, worst([reason.verdict for reason in reasons]), reasons, found.figures, live.document)


def _live(image: str, thresholds: Thresholds) -> Live:
    """Return what the mount of *image* says of itself; nothing if something else than a mount has it open."""
    from razortools.service import wellness  # late: only an image that is in use needs it
    from razortools.service.asking import Silent, connection

    try:
        waiter = connection(image, PATIENCE_S)
    except Silent as silent:
        return Live((Reason(Verdict.UNKNOWN, "Mount", str(silent)),))
    if waiter is None:
        return Live()
    with closing(waiter):
        figures = waiter.figures()
    if figures is None:
        return Live(about_failure(waiter.greeting.failure) or (Reason(Verdict.OK, "Mount", _UNTOLD),))
    return Live(wellness.judge(figures, time.time_ns(), thresholds), figures.document())


def _show(found: list[Health], *, named: bool) -> None:
    """Show the reasons for people, a line each."""
    if not found:
        render.out("UNKNOWN  Mounts: no RAZORFS is mounted here; name an image")
    for one in found:
        if named:
            render.out(render.on_one_line(f"{one.image}: {one.verdict.name}"))
        for reason in one.reasons:
            text = render.on_one_line(f"{reason.verdict.name:<8} {reason.subject}: {reason.text}")
            render.styled(text, _STYLES[reason.verdict])


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
                "live": one.live,
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
        f"'{name} space'={space}%;{thresholds.space_warning};{thresholds.space_critical}"
        f" '{name} journal'={journal}%;{thresholds.journal_warning}"
        for one in found
        if (name := os.path.basename(one.image))
        for space, journal in _fill_percents(one)
    ]
    text = "; ".join(wrong) or ("all is well" if found else "no RAZORFS is mounted")
    line = f"RAZORFS {verdict.name} - {text.replace('|', '/')}"
    return render.on_one_line(f"{line} | {' '.join(data)}" if data else line)


def _fill_percents(one: Health) -> Iterator[tuple[float, float]]:
    """Yield how full an image and its journal are, if that is known."""
    if one.live is not None:
        from razortools.service import wellness
        from razortools.service.figures import MountFigures

        live = MountFigures.from_document(one.live)
        yield wellness.used_percent(live), wellness.journal_percent(live)
    elif one.figures is not None:
        yield one.figures.used_percent, one.figures.journal_used_percent


def main() -> NoReturn:
    """Run the command."""
    cli.run(app, NAME, cli.HEALTH_CODES)


if __name__ == "__main__":
    main()
