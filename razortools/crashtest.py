"""razorfs-debug crashtest: prove on this machine that no power cut loses what was promised.

It makes images in memory only. Contract: man/razorfs-debug-crashtest.8.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import deeds, render
from razortools.cli.app import DebugFlag, JsonFlag, QuietFlag, VersionFlag
from razortools.cli.documents import OneDocument
from razortools.debug.crashtest import story
from razortools.debug.crashtest.campaign import Plan, Result, run
from razortools.debug.crashtest.explorer import Depth, Explorer
from razortools.debug.crashtest.operations import parse, text_of
from razortools.debug.crashtest.playing import GROUNDS, ground
from razortools.debug.crashtest.repair_campaign import RepairResult, run_repairs
from razortools.debug.crashtest.repairs import RepairDepth
from razortools.debug.crashtest.workloads import numbered
from razortools.errors import UsageError

NAME = "razorfs-debug crashtest"
JOBS_MAX = 256
LENGTH_MAX = 3
LENGTH = 2  # operations of the workloads that are all tried, unless something else is asked for
TOLD_EVERY_S = 10.0  # a line of progress where nobody sees a bar

CAMPAIGN, WORKLOAD, REPAIRS = "a campaign", "--workload", "--repairs"
GOES_WITH: deeds.Table = {
    CAMPAIGN: frozenset(("--length", "--random", "--states", "--seconds", "--jobs", "--ground")),
    WORKLOAD: frozenset((WORKLOAD, "--crash", "--ground")),
    REPAIRS: frozenset((REPAIRS, "--seconds")),
}  # --seed, --depth and --compound go with all of it

app = cli.new_app()


@app.command(
    help="Explore what power cuts may leave of a RAZORFS image, in memory, and judge every state.",
    epilog="Exit: 0 no violation, 4 a promise was broken, 1 refused or failed, 2 usage.",
)
def crashtest(
    context: typer.Context,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="What all that is chosen at random follows from.")] = 1,
    length: Annotated[
        int, typer.Option("--length", metavar="N", help="Try all workloads of up to N operations, 1 to 3; 0: none.")
    ] = LENGTH,
    random_count: Annotated[
        int | None, typer.Option("--random", metavar="N", help="Then try N workloads at random.", show_default=False)
    ] = None,
    states: Annotated[
        int | None,
        typer.Option("--states", metavar="N", help="Go on with workloads at random until N distinct states.", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="N", help="Stop after N seconds at the latest.", show_default=False)
    ] = None,
    depth: Annotated[
        int, typer.Option("--depth", metavar="N", help="States to try between two flushes; all if there are fewer.")
    ] = 64,
    second: Annotated[
        int, typer.Option("--compound", metavar="N", help="States of each workload from which a second power cut is tried.")
    ] = 2,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", help="Processes; by default one a processor.", show_default=False)
    ] = None,
    ground_name: Annotated[
        str | None,
        typer.Option("--ground", metavar="NAME", help="Start only from this image: plain, single, full, wrapping, paged."),
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option("--workload", metavar="TEXT", help="Explore only this workload: 'create /n; fsync /n'.", show_default=False),
    ] = None,
    crash: Annotated[
        str | None,
        typer.Option("--crash", metavar="TEXT", help="With --workload: only these power cuts, as a violation shows them."),
    ] = None,
    repairs: Annotated[
        int | None,
        typer.Option(
            "--repairs",
            metavar="N",
            show_default=False,
            help="Instead: damage N images at random, repair each as razorfsck does, and let the power fail inside of that.",
        ),
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Run a campaign, or one workload, and show the verdict."""
    document: OneDocument | None = context.obj if as_json else None
    given = {
        "--length": length != LENGTH, "--random": random_count is not None, "--states": states is not None,
        "--jobs": jobs is not None, "--ground": ground_name is not None, "--workload": workload is not None,
        "--crash": crash is not None, "--seconds": seconds is not None, "--repairs": repairs is not None,
    }  # fmt: skip
    words = [option for option, is_given in given.items() if is_given]
    deeds.judge(_deed_of(words), words, GOES_WITH)
    if not 0 <= length <= LENGTH_MAX:
        raise UsageError(f"--length {length}: give 0 to {LENGTH_MAX}; of longer workloads there are too many to try all")
    if seconds is not None and not seconds > 0:  # nan, too
        raise UsageError(f"--seconds {seconds:g}: give more than 0")
    names = GROUNDS if ground_name is None else (ground_name,)
    if names[0] not in GROUNDS:
        raise UsageError(f"--ground {ground_name}: choose one of {', '.join(GROUNDS)}")
    depth_of_search = Depth(states_per_flush=_at_least(depth, 1, "--depth"), second_crashes=_at_least(second, 0, "--compound"))
    if repairs is not None:
        repair_depth = RepairDepth(states_per_flush=depth_of_search.states_per_flush, undo_from=second, again_from=second)
        count = _at_least(repairs, 1, "--repairs")
        with render.progress("repairing", count, quiet=quiet or as_json) as advance:
            found = run_repairs(count, seed, repair_depth, seconds, lambda result: advance(1))
        _show_repairs(found, seed, document, quiet=quiet)
        return 4 if found.violations else 0
    if workload is not None:
        result = _explore_one(workload, crash, names[0], seed, depth_of_search)
    else:
        if random_count is None and states is None:
            random_count = 0
        if not length and not random_count and states is None:
            raise UsageError("--length 0 tries nothing; give --random or --states with it")
        plan = Plan(
            seed=seed, depth=depth_of_search, grounds=names, exhaustive_length=length,
            random_count=None if random_count is None else _at_least(random_count, 0, "--random"),
            states_max=None if states is None else _at_least(states, 1, "--states"), seconds_max=seconds, jobs=_jobs(jobs),
        )  # fmt: skip
        with _telling(states, quiet=quiet or as_json) as tell:
            result = run(plan, tell)
    _show(result, depth_of_search, document, quiet=quiet)
    return 4 if result.violations else 0


def _deed_of(given: Collection[str]) -> str:
    """Return what the options *given* ask for."""
    return next((word for word in (REPAIRS, WORKLOAD) if word in given), CAMPAIGN)


def _at_least(value: int, least: int, option: str) -> int:
    """Return *value*. Raises UsageError if it is below *least*."""
    if value < least:
        raise UsageError(f"{option} {value}: give {least} or more")
    return value


def _jobs(asked: int | None) -> int:
    """Return how many processes explore: as *asked*, or one a processor. Raises UsageError for a number that cannot be."""
    if asked is None:
        return min(len(os.sched_getaffinity(0)), JOBS_MAX)
    if not 1 <= asked <= JOBS_MAX:
        raise UsageError(f"--jobs {asked}: give 1 to {JOBS_MAX}")
    return asked


def _explore_one(text: str, crash: str | None, name: str, seed: int, depth: Depth) -> Result:
    """Explore one workload, or one chain of power cuts in it."""
    explorer = Explorer(ground(name), seed, depth)
    workload = parse(text)
    started = time.monotonic()
    if crash is not None:
        violation = story.repeat(explorer, text_of(workload), story.parse_cuts(crash))
        explorer.tally.workload_count += 1
        explorer.tally.violations += [violation] if violation else []
    else:
        explorer.explore(numbered(text_of(workload)))
    result = Result(seed)
    result.add(explorer.tally)
    result.seconds = time.monotonic() - started
    return result


@contextmanager
def _telling(states_max: int | None, *, quiet: bool) -> Iterator["_Teller"]:
    """Yield what shows the progress: a bar on a terminal, elsewhere a line now and then."""
    with render.progress("exploring", states_max, quiet=quiet) as advance:
        yield _Teller(advance, quiet=quiet)


class _Teller:
    """Tells how a campaign goes."""

    def __init__(self, advance: Callable[[int], object], *, quiet: bool) -> None:
        self._advance = advance
        self._quiet = quiet
        self._states = 0
        self._told_s = 0.0

    def __call__(self, result: Result) -> None:
        self._advance(len(result.states) - self._states)
        self._states = len(result.states)
        if not self._quiet and result.seconds - self._told_s >= TOLD_EVERY_S:
            self._told_s = result.seconds
            render.message(
                f"{result.seconds:.0f} s: {result.workload_count:,} workloads, {len(result.states):,} distinct states, "
                f"{len(result.violations)} violations"
            )


def _show(result: Result, depth: Depth, document: OneDocument | None, *, quiet: bool) -> None:
    """Show what was found."""
    told: list[str] = []
    if result.violations:
        where = result.violations[0].ground
        explorer = Explorer(ground(where), result.seed, depth)
        violation = story.smallest([one for one in result.violations if one.ground == where], explorer)
        told = story.tell(violation, explorer.ground, result.seed)
    figures = {
        "verdict": "violation" if result.violations else "no violation",
        "seed": result.seed,
        "workloads": result.workload_count,
        "states": len(result.states),
        "compound_states": len(result.compound),
        "tried": result.tried_count,
        "recovered_in_full": result.judged_count,
        "seconds": round(result.seconds, 1),
        "states_per_second": round(result.states_per_second),
    }
    heading = f"VIOLATION, the smallest of {len(result.violations)}:"
    _show_verdict(figures, len(result.violations), heading, told, document, quiet=quiet)


def _show_repairs(result: RepairResult, seed: int, document: OneDocument | None, *, quiet: bool) -> None:
    """Show what was found in repairs."""
    told: list[str] = []
    for violation in result.violations:
        told += [*violation.story, "found:", *(f"  {reason}" for reason in violation.reasons)]
        told.append(f"repeat: {NAME} --repairs 1 --seed {violation.seed}")
    figures = {
        "verdict": "violation" if result.violations else "no violation",
        "seed": seed,
        "images": result.image_count,
        "repairs": result.repaired_count,
        "states": result.state_count,
        "tried_in_repairs": result.tried_count,
        "judged_in_full": result.judged_count,
        "seconds": round(result.seconds, 1),
        "states_per_second": round(result.state_count / result.seconds) if result.seconds else 0,
    }
    _show_verdict(figures, len(result.violations), "VIOLATION:", told, document, quiet=quiet)


def _show_verdict(
    figures: Mapping[str, object],
    violation_count: int,
    heading: str,
    told: list[str],
    document: OneDocument | None,
    *,
    quiet: bool,
) -> None:
    """Show the figures and the story of what was found, if anything was."""
    if document is not None:
        document.print({**figures, "violations": violation_count, "story": told})
        return
    if not quiet:
        render.pairs(_in_words(figures))
    if told:
        render.out(heading)
        for line in told:
            render.out(line)
    elif not quiet:
        render.styled("no violation", "green")


def _in_words(figures: Mapping[str, object]) -> list[tuple[str, str]]:
    labels = {
        "images": "images, damaged at random",
        "repairs": "of them repaired",
        "tried_in_repairs": "states tried, in all repairs",
        "judged_in_full": "looked at in full, the others read the same",
        "seed": "seed",
        "workloads": "workloads",
        "states": "distinct states",
        "compound_states": "of them after several power cuts",
        "tried": "states tried, in all workloads",
        "recovered_in_full": "recovered in full, the others read the same",
        "seconds": "seconds",
        "states_per_second": "distinct states a second",
    }
    return [(labels[key], f"{value:,}") for key, value in figures.items() if key in labels]


def main(arguments: list[str]) -> NoReturn:
    """Run the command with the words behind its name."""
    cli.run(app, NAME, cli.CRASHTEST_CODES, arguments)
