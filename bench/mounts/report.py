"""From results to tables, and to a document for programs."""

import statistics
from collections.abc import Iterator
from dataclasses import asdict

from bench.mounts.marks import judge
from bench.mounts.peers import CLIENT_ALONE, RAZORFS
from bench.mounts.results import Results
from bench.mounts.rows import ROWS

Table = list[list[str]]


def shown(value: float) -> str:
    """Return *value* with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"


def rate_table(results: Results) -> Table:
    """Return the rates, a row each."""
    table = [["row", *(f"{peer} (client alone)" if peer == CLIENT_ALONE else peer for peer in results.peers)]]
    for row in results.rows:
        unit = ROWS[row][1]
        rates = [results.rate(row, peer) for peer in results.peers]
        cells = ["failed" if rate is None else shown(rate / unit.divisor) for rate in rates]
        table.append([f"{row} ({unit.name})" if unit.name else row, *cells])
    return table


def ratio_table(results: Results) -> Table:
    """Return how many times as fast razorfs is as each peer, a row each."""
    table = [["row, razorfs / peer", *results.compared]]
    for row in results.rows:
        ratios = [results.ratio(row, peer) for peer in results.compared]
        table.append([row, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)])
    return table


def profile_table(results: Results) -> Table:
    """Return of each row what one thing (or MiB) takes on razorfs, and how much of that the daemon's processor time is."""
    table = [["row", "us each", "us of the daemon", "share"]]
    for row in results.rows:
        watched = [taken for taken in results.taken.get((row, RAZORFS), {}).values() if taken.daemon_s is not None]
        if watched:
            each_us = 1e6 * ROWS[row][1].divisor
            wall_us = statistics.median(taken.wall_s / taken.count for taken in watched) * each_us
            daemon_us = statistics.median((taken.daemon_s or 0.0) / taken.count for taken in watched) * each_us
            table.append([row, shown(wall_us), shown(daemon_us), f"{100 * daemon_us / wall_us:.0f} %"])
    return table


def mark_table(results: Results) -> Table:
    """Return what was asked for, what was found, and whether that is enough."""
    table = [["row", "at least", "found", ""]]
    return table + [[mark.row, mark.asked, mark.found, mark.word] for mark in judge(results)]


def verdicts(results: Results) -> Iterator[str]:
    """Yield a sentence for each peer: on how many rows razorfs is ahead, and where it is not."""
    for peer in results.compared:
        ratios = {row: ratio for row in results.rows if (ratio := results.ratio(row, peer)) is not None}
        ahead = [row for row, ratio in ratios.items() if ratio > 1]
        well = [row for row, ratio in ratios.items() if ratio >= 1.5]
        behind = [row for row in ratios if row not in ahead]
        sentence = f"Ahead of {peer} on {len(ahead)} of {len(ratios)} rows, 1.5 times or more on {len(well)}"
        yield sentence + (f"; not on {'; '.join(behind)}." if behind and len(behind) <= len(ratios) // 2 else ".")


def layout(table: Table) -> str:
    """Return *table* as markdown that can be read as it is."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in (table[0], rule, *table[1:])
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(results: Results) -> str:
    """Return everything that the benchmark has to say."""
    amount = "" if results.scale == 1 else f" at {results.scale:g} of the usual amount of work"
    noise = f" The usual distance between the slowest and the fastest round of a row is {results.spread_percent:.0f} %."
    parts = [f"{results.machine}; median of {results.rounds} rounds{amount}.{noise if results.rounds > 1 else ''}\n"]
    if results.left_out:
        parts.append(f"Left out: {', '.join(results.left_out)}.\n")
    parts.append("In a second:\n")
    parts.append(layout(rate_table(results)))
    if results.compared:
        parts.append("How many times as fast razorfs is:\n")
        parts.append(layout(ratio_table(results)))
        parts.append("".join(f"- {sentence}\n" for sentence in verdicts(results)))
    if RAZORFS in results.peers:
        parts.append("What was asked for, and what this run says:\n")
        parts.append(layout(mark_table(results)))
    profile = profile_table(results)
    if len(profile) > 1:
        parts.append("Where the time of razorfs goes:\n")
        parts.append(layout(profile))
    if results.failures:
        parts.append("Failed:\n\n" + "".join(f"- {failure}\n" for failure in results.failures))
    return "\n".join(parts)


def document(results: Results) -> dict[str, object]:
    """Return the same for programs, with each round's rate: counts or bytes a second."""
    return {
        "machine": results.machine,
        "scale": results.scale,
        "rounds": results.rounds,
        "peers": results.peers,
        "left_out": results.left_out,
        "rows": {
            row: {
                peer: {
                    "rates": results.rates(row, peer),
                    "seconds": [taken.wall_s for taken in results.taken.get((row, peer), {}).values()],
                    "razorfs_times_as_fast": results.ratio(row, peer) if peer in results.compared else None,
                }
                for peer in results.peers
            }
            for row in results.rows
        },
        "marks": [asdict(mark) for mark in judge(results)] if RAZORFS in results.peers else [],
        "failures": results.failures,
    }
