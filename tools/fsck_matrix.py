"""Write the matrix of damage into docs/FSCK-MATRIX.md: what is found, what is harmless, what is repaired and what is lost.

    python -m tools.fsck_matrix                  run the cases (some minutes) and write the tables between the marks
    python -m tools.fsck_matrix --processes N    the same in so many processes; as many as there are processors otherwise
    python -m tools.fsck_matrix --only A,B       make the rows of these structures anew, and keep the others as they stand
    python -m tools.fsck_matrix --check          only say whether the tables have a row for every class of damage there is

The cases are those of tools/fuzz.py with fixed seeds, so a second run writes the same figures.
"""

import argparse
import multiprocessing
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from razortools.format.record import CATALOGUE
from tools.fuzzing import fields
from tools.fuzzing.bases import BASES
from tools.fuzzing.campaigns import damage_outcome, field_outcome, lawful_damage, lawful_field
from tools.fuzzing.damage import DAMAGES
from tools.fuzzing.harmless import FREE, ROLES
from tools.fuzzing.histories import history
from tools.fuzzing.outcome import Outcome, Tally

PLACE = Path(__file__).resolve().parent.parent / "docs" / "FSCK-MATRIX.md"
BEGIN, END = "<!-- begin matrix: written by tools/fsck_matrix.py -->\n", "<!-- end matrix -->\n"
SEED = 5
LAW_EVERY = 41  # so many cases of the field fuzz are judged for each that is repaired; odd: right and wrong checksums take turns
DAMAGE_SEEDS = range(2000, 2024)
PARTS = 16  # of the field fuzz of an image, that processes share
UNDO_MODULE = "razortools.format.undo"  # the undo file's structures are in no image
FOUND = ("cases", "detected", "harmless", "as torn", "as before", "failed")
MENDED = ("cases", "repaired", "with loss", "refused", "failed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 if --check found a class of damage without a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    how.add_argument("--only", type=_structures, metavar="A,B")
    how.add_argument("--check", action="store_true")
    chosen = parser.parse_args(arguments)
    page = PLACE.read_text(encoding="utf-8") if PLACE.exists() else f"# Damage and repair\n\n{BEGIN}{END}"
    head, begin, rest = page.partition(BEGIN)
    table, end, tail = rest.partition(END)
    assert begin and end, f"{PLACE} has no marks for the matrix"
    if chosen.check:
        missing = [kind for kind in kinds() if f"| {kind} |" not in table]
        if missing:
            print(f"docs/FSCK-MATRIX.md has no row for {', '.join(missing)}; run: python -m tools.fsck_matrix", file=sys.stderr)
        return 1 if missing else 0
    PLACE.write_text(head + begin + text(chosen.processes, chosen.only, table) + end + tail, encoding="utf-8")
    return 0


def _structures(words: str) -> frozenset[str]:
    """Return the structures that *words* names. Raises ArgumentTypeError if there is one that nobody knows."""
    named = frozenset(words.split(","))
    if unknown := named - {record.__name__ for record in CATALOGUE}:
        raise argparse.ArgumentTypeError(f"no such structure: {', '.join(sorted(unknown))}")
    return named


def _fill(tally: Tally, table: str, only: frozenset[str]) -> None:
    """Put the rows of a table into *tally*, but for those of the structures *only*."""
    lines = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    words, *rows = [[cell.strip() for cell in line] for line in lines]
    for kind, *counts in rows:
        if kind.split(",")[0] not in only:
            numbers = (int(count.replace(",", "")) for count in counts)
            tally.counts[kind] = Counter(dict(zip(words[1:], numbers, strict=True)))


def kinds() -> list[str]:
    """Return the classes of damage, in the order of the tables."""
    structures = sorted(record.__name__ for record in CATALOGUE if record.__module__ != UNDO_MODULE)
    return [*DAMAGES, *(f"{name}, checksum {seal}" for name in structures for seal in ("wrong", "right"))]


def text(processes: int, only: frozenset[str] | None, before: str) -> str:
    """Return the tables, in Markdown; of all but the structures *only* as they stand in *before*."""
    found, mended = Tally(), Tally()
    if only is not None:
        for tally, part in zip((found, mended), before.split("## ")[1:], strict=False):
            _fill(tally, part, only)
    for judged, lawful in _cases(processes, only):
        for tally, outcome in ((found, judged), (mended, lawful)):
            for failure in tally.add([outcome] if outcome is not None else []):
                print(f"FAILED {failure.kind}: {failure.case}: {failure.failure}", file=sys.stderr, flush=True)
    parts = [
        "## What razorfsck finds\n",
        "Harmless: proven to change nothing that is seen, and the engine goes on with the image. As torn: all traces of the",
        "last transactions are gone from the journal, as a crash before them leaves it. As before: every superblock was put back",
        "to an older one. Where the damage changed nothing, nothing is counted.\n",
        _table(FOUND, found),
        "## What repair does\n",
        "Repaired: every file is bit for bit what it was before the damage. With loss: something within the reach of the damage",
        "is not; everything else is. Refused: the image was left as it was, with a sentence. Failed: a law of repair does not",
        "hold (tools/fuzzing/laws.py); the seeds are printed when the tables are made.\n",
        _table(MENDED, mended),
        "## What need not be found\n",
        "These changes are passed when their checksum is right, because any sound value means something:\n",
        *(f"- `{name}`: {freedom.reason}" for name, freedom in sorted(FREE.items())),
        *(f"- any field of the {role}: {freedom.reason}" for role, freedom in sorted(ROLES.items())),
    ]
    return "\n".join(parts) + "\n"


Judged = list[tuple[Outcome, Outcome | None]]  # found or harmless; what the repair did, if it was tried
Work = tuple[Callable[..., Judged], tuple[object, ...]]


def _cases(processes: int, only: frozenset[str] | None) -> Iterator[tuple[Outcome, Outcome | None]]:
    """Yield what came of every case, or of those of the structures *only*, always in the same order."""
    damages: list[Work] = [(_damage, (name, seed)) for name in DAMAGES for seed in DAMAGE_SEEDS if only is None]
    changes: list[Work] = [(_fields, (image, part, only)) for image in BASES for part in range(PARTS)]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for judged in pool.imap(_one, [*damages, *changes]):
            yield from judged


def _one(work: Work) -> Judged:
    function, arguments = work
    return function(*arguments)


def _damage(name: str, seed: int) -> Judged:
    past, case = history(seed // 4), f"seed {seed}"
    device = DAMAGES[name](past, random.Random(f"{seed} {name}"))
    if not device.differs():
        return []
    judged = damage_outcome(name, past, device, case)
    is_found = "detected" in judged.results
    return [(judged, lawful_damage(name, past, device, case, with_files=seed % 8 == 0) if is_found else None)]


def _fields(image: str, part: int, only: frozenset[str] | None) -> Judged:
    found: Judged = []
    for number, case in enumerate(fields.cases(image, SEED, sites_max=1)):
        if number % PARTS == part and (only is None or case.site.structure.__name__ in only):
            judged = field_outcome(case)
            is_tried = number % LAW_EVERY == 0 and "detected" in judged.results
            found.append((judged, lawful_field(case, with_files=number % (8 * LAW_EVERY) == 0) if is_tried else None))
    return found


def _table(words: Iterable[str], tally: Tally) -> str:
    columns = [word for word in words if any(counter[word] for counter in tally.counts.values())]
    lines = ["| damage | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for kind in kinds():
        counter = tally.counts.get(kind)
        if counter is not None:
            lines.append(f"| {kind} | " + " | ".join(f"{counter[word]:,}" for word in columns) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
