"""razorfs-health: is it well? For people, for scripts, for Nagios and for Prometheus."""

import math
import os
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import health_words, render
from razortools.cli.app import DebugFlag, JsonFlag, VersionFlag
from razortools.cli.documents import OneDocument
from razortools.engine.health import Thresholds, Verdict, worst
from razortools.errors import UsageError
from razortools.service import examination

if TYPE_CHECKING:
    from razortools.service.asking import Asker

NAME = "razorfs-health"
INTERVAL_S = 2.0
INTERVAL_MAX_S = 86_400  # a day
PROFILE_S = 10
_NORMAL = Thresholds()

app = cli.new_app()


@app.command(
    help="Tell whether a RAZORFS image is well. Without an argument: every mounted one. "
    "IMAGE 'profile' followed by a mount point draws where its daemon spends its time."
)
def health(
    context: typer.Context,
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
    forms = _given({"--json": as_json, "--prometheus": prometheus, "--nagios": nagios, "--watch": watch})
    if len(forms) > 1:
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
        return _profile(profiled, forms, PROFILE_S if seconds is None else seconds, output or "flame.svg")
    if target == "profile" and not os.path.exists(target):
        raise UsageError("profile takes the mount point whose daemon is to be looked at")
    if profiled is not None:
        raise UsageError(f"one image at a time; what is '{profiled}'?")
    if watch:
        return int(_watch(target, thresholds, INTERVAL_S if interval is None else interval, frames or 0))
    found = examination.examined(target, thresholds, for_programs=as_json or prometheus or nagios)
    verdict = worst([one.verdict for one in found])
    if as_json:
        document: OneDocument = context.obj
        document.print(health_words.document(found, verdict))
    elif prometheus:
        from razortools.service.health_page import page  # late: few ask for it

        render.out(page(found))
    elif nagios:
        render.out(health_words.nagios_line(found, verdict, thresholds, examination.fill_percents))
    else:
        health_words.show(found, named=target is None)
    return int(verdict)


def _given(options: dict[str, bool]) -> list[str]:
    return [option for option, is_given in options.items() if is_given]


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

    images = examination.images(target)
    if len(images) != 1:
        raise UsageError(f"--watch shows one mount, and there are {len(images)}; name its mount point")
    with closing(_asker(images[0])) as asker, render.screen() as (show, is_enough):
        watcher = watching.Watcher(asker.figures, lambda: (time.monotonic(), time.time_ns()), thresholds)
        while (sections := watcher.look()) is not None:
            show(sections)
            if watcher.looks == frames or is_enough(interval_s):
                break
    if not watcher.looks:
        raise UsageError(f"{images[0]}: {examination.UNTOLD}")
    return watcher.verdict


def _asker(image: str) -> "Asker":
    """Return a connection to the daemon that serves *image*. Raises UsageError if there is none."""
    from razortools.service.asking import Silent, connection

    try:
        asker = connection(image, examination.PATIENCE_S)
    except Silent as silent:
        raise UsageError(str(silent)) from None
    if asker is None:
        raise UsageError(f"{image}: is not mounted, so no process serves it that could be looked at")
    return asker


def _profile(mount_point: str, forms: list[str], seconds: int, output: str) -> int:
    """Draw where a mount's daemon spends its time, and tell what requests waited for meanwhile. *forms*: other ones asked for."""
    if forms:
        raise UsageError(f"{forms[0]} means nothing to profile, which draws a graph")
    if seconds < 1:
        raise UsageError("--seconds takes a number from 1")
    from razortools.service import profile, watching

    (image,) = examination.images(mount_point)
    with closing(_asker(image)) as asker:
        before, started_s = asker.figures(), time.monotonic()
        profile.record(asker.greeting.pid, seconds, output)
        now, took_s = asker.figures(), time.monotonic() - started_s
    if before is not None and now is not None:
        render.show_sections(watching.sections(now, before, took_s)[:2])
    render.message(f"{NAME}: {output}: {seconds} s of process {asker.greeting.pid}; open it in a browser")
    return 0


def main() -> NoReturn:
    """Run the command."""
    cli.run(app, NAME, cli.HEALTH_CODES)


if __name__ == "__main__":
    main()
