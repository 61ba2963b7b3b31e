"""What may be there after a kill, and what is: the law of the prefix, for each worker and across them.

Laws, for the state that is found:
1. each worker's directory is as it was after some number of its steps: step n is there only if step n - 1 is;
2. whatever anybody's call had acknowledged before an acknowledged sync (of anything, by anybody) began, is there; so is what was
   written through O_SYNC and acknowledged;
3. if a step is there, then so is every step of every worker that had been acknowledged before it began.
Law 3 is what makes the state a prefix of one common history. It follows the order in which lines came through the pipe.
A number of steps that ends in .5 means that of the next one, which the kernel cut in two requests, the first is there.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor

from tools.killed.load import Step
from tools.killed.plans import Tree, apply, part


@dataclass(slots=True)
class History:
    """What one worker intended, and what it said about it; a position counts the lines of all workers."""

    name: str
    before: Tree
    steps: Sequence[Step]
    begun: list[int] = field(default_factory=list)  # position of each step that began
    done: list[int] = field(default_factory=list)  # position of each step that was acknowledged

    def acknowledged_before(self, position: int) -> int:
        """Return how many steps had been acknowledged before *position*."""
        return bisect_left(self.done, position)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison came to."""

    violations: tuple[str, ...]
    kept: tuple[float, ...]  # steps of each worker that are there
    promised: tuple[int, ...]  # of these, what a sync had covered
    lost: int  # steps that were acknowledged, not synced, and are not there: what a crash may take


def judge(histories: Sequence[History], found: Sequence[Tree]) -> Verdict:
    """Compare what was *found* in the directory of each worker with its history."""
    promised = tuple(promised_steps(histories))
    fitting = [fitting_steps(history, tree) for history, tree in zip(histories, found, strict=True)]
    violations: list[str] = []
    for history, tree, fits, least in zip(histories, found, fitting, promised, strict=True):
        if not any(number >= least for number in fits):
            violations.append(_no_state(history, tree, fits, least))
    if violations:
        return Verdict(tuple(violations), promised, promised, 0)
    kept: list[float] = [min(number for number in fits if number >= least) for fits, least in zip(fitting, promised, strict=True)]
    violations += _close(histories, fitting, kept)
    lost = sum(
        sum(not step.is_sync for step in history.steps[floor(fits[-1]) : len(history.done)])
        for history, fits in zip(histories, fitting, strict=True)
    )
    return Verdict(tuple(violations), tuple(kept), promised, lost)


def promised_steps(histories: Sequence[History]) -> list[int]:
    """Return how many steps of each worker must be there by law 2."""
    last = -1
    own = [0] * len(histories)
    for worker, history in enumerate(histories):
        for number, begun in enumerate(history.begun[: len(history.done)]):
            if history.steps[number].promises:
                last = max(last, begun)
                own[worker] = number + 1
    return [max(mine, history.acknowledged_before(last)) for mine, history in zip(own, histories, strict=True)]


def fitting_steps(history: History, found: Tree) -> list[float]:
    """Return after how many of its steps the worker's directory was as it was *found*, rising."""
    tree = dict(history.before)
    absent = object()
    different = {path for path in tree.keys() | found.keys() if tree.get(path, absent) != found.get(path, absent)}
    fits: list[float] = [] if different else [0]
    for number, step in enumerate(history.steps[: len(history.begun)], start=1):
        if different <= {step.path} and (first := part(tree, step)) is not None and first == found.get(step.path, absent):
            fits.append(number - 0.5)
        for path in apply(tree, step):
            if tree.get(path, absent) == found.get(path, absent):
                different.discard(path)
            else:
                different.add(path)
        if not different:
            fits.append(number)
    return fits


def _close(histories: Sequence[History], fitting: Sequence[Sequence[float]], kept: list[float]) -> list[str]:
    """Raise *kept* to the smallest choice that satisfies law 3; return why there is none.

    What a worker must have grows with what the others have, so going up from the least finds the least common choice.
    """
    grown = True
    while grown:
        grown = False
        for one, cause in enumerate(histories):
            last = ceil(kept[one])
            began = cause.begun[last - 1] if last else 0
            for other, history in enumerate(histories):
                wanted = history.acknowledged_before(began)
                if kept[other] >= wanted:
                    continue
                fits = fitting[other]
                at = bisect_left(fits, wanted)
                if at == len(fits):
                    return [
                        f"{cause.name}: step {last} ({_words(cause.steps[last - 1])}) is there, but of {history.name}, "
                        f"which had {wanted} steps acknowledged before that began, only {fits[-1]} are"
                    ]
                kept[other] = fits[at]
                grown = True
    return []


def _words(step: Step) -> str:
    """Return *step* for a reader."""
    words = f"{step.kind} {step.path}"
    if step.other:
        words += f" {step.other}"
    if step.kind == "write":
        words += f" at {step.offset}, {step.length} bytes" + ", O_SYNC" * step.is_synced
    return words + (f" to {step.offset}" if step.kind == "truncate" else "")


def _no_state(history: History, found: Tree, fits: Sequence[float], least: int) -> str:
    """Tell that no state from *least* steps on is the one that was found, and how it differs from the nearest."""
    tree = dict(history.before)
    states: list[tuple[int, int]] = []
    for number, step in enumerate([None, *history.steps[: len(history.begun)]]):
        if step is not None:
            apply(tree, step)
        if number >= least:
            states.append((len(_differences(tree, found)), -number))
    nearest = -min(states)[1]
    tree = dict(history.before)
    for step in history.steps[:nearest]:
        apply(tree, step)
    older = f"; it is the state after {fits[-1]} steps, which is too old" if fits else ""
    lines = [
        f"{history.name}: {len(history.begun)} steps begun, {len(history.done)} acknowledged, {least} covered by an acknowledged "
        f"sync; what is there is the state after none of the steps from {least} to {len(history.begun)}{older}",
        f"  nearest: after step {nearest}. " + "; ".join(_differences(tree, found)[:5]),
        *(
            f"  step {number}: {_words(history.steps[number - 1])}" + " (not acknowledged)" * (number > len(history.done))
            for number in range(max(1, nearest - 5), min(len(history.begun), nearest + 5) + 1)
        ),
    ]
    return "\n".join(lines)


def _differences(tree: Tree, found: Tree) -> list[str]:
    """Return in words how *found* differs from *tree*."""
    return [
        f"{path}: {_thing(found, path)} there, {_thing(tree, path)} expected{_where(tree, found, path)}"
        for path in sorted(tree.keys() | found.keys())
        if path not in tree or path not in found or tree[path] != found[path]
    ]


def _thing(tree: Tree, path: str) -> str:
    if path not in tree:
        return "nothing"
    data = tree[path]
    return "a directory" if data is None else f"{len(data)} bytes"


def _where(tree: Tree, found: Tree, path: str) -> str:
    one, other = tree.get(path), found.get(path)
    if not one or not other:
        return ""
    pairs = enumerate(zip(one, other, strict=False))
    return f", equal up to byte {next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))}"
