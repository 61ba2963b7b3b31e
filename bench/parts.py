"""The parts of docs/BENCHMARKS.md: which script measures each, and how much of it is asked for.

A part writes the section of its own name. All are programs of their own: one that dies takes nothing with it, and none finds the
memory of another. *scale* makes a run shorter (1: in full), *rounds* says how often what is compared is done.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A section of the page, and the program (a module, and its arguments by scale and rounds) that writes it."""

    name: str
    module: str
    arguments: Callable[[float, int], list[str]]
    needs_root: bool = False
    takes_peers: bool = False  # whether it understands --peer and --unmount
    is_usual: bool = True  # else it is made only when it is asked for


def at_least(least: int, amount: float) -> str:
    """Return an amount of work as an argument."""
    return str(max(least, round(amount)))


PARTS = (
    Part(
        "mounts", "bench.mounts", lambda scale, rounds: ["--if-here", f"--scale={scale:g}", f"--rounds={rounds}"],
        needs_root=True, takes_peers=True,
    ),
    Part("folios", "bench.folios", lambda scale, rounds: ["--if-here", "--mib", at_least(8, 64 * scale)], needs_root=True),
    Part("space", "bench.space", lambda scale, rounds: ["--if-here"], needs_root=True),
    Part(
        "growth", "bench.growth",
        lambda scale, rounds: ["--files", at_least(1000, 1_000_000 * scale), "--file-mib", at_least(1, 65_536 * scale)],
    ),
    Part("journaling", "bench.journaling", lambda scale, rounds: ["--rounds", at_least(2, (2 * rounds + 1) * min(1, 2 * scale))]),
    Part(
        "engine_share", "bench.engine_share",
        lambda scale, rounds: ["--files", at_least(500, 20_000 * scale), "--rounds", str(rounds)],
    ),
    Part(
        "metering", "bench.metering",
        lambda scale, rounds: ["--rounds", str(5 * rounds), "--requests", at_least(400, 4000 * scale)],
    ),
    Part("requests", "bench.requests", lambda scale, rounds: ["--count", at_least(50, 2000 * scale)], needs_root=True),
    Part(
        "wakefulness", "bench.wakefulness",
        lambda scale, rounds: ["--count", at_least(50, 2000 * scale), "--rounds", str(rounds)],
        needs_root=True,
    ),
    Part("waiting", "bench.waiting", lambda scale, rounds: ["--seconds", at_least(1, 10 * scale)], needs_root=True),
    Part("stalls", "bench.stalls", lambda scale, rounds: ["--files", at_least(500, 100_000 * scale)], needs_root=True),
    Part(
        "crowd", "bench.crowd",
        lambda scale, rounds: ["--writers", at_least(20, 300 * scale), "--rounds", str(rounds)],
        needs_root=True,
    ),
    Part("check", "bench.check", lambda scale, rounds: ["--data", at_least(16, 1024 * scale), "--rounds", str(rounds)]),
    Part("check_inodes", "bench.check", lambda scale, rounds: ["--inodes", at_least(1000, 1_000_000 * scale)]),
    Part("recovering", "bench.recovering", lambda scale, rounds: ["--journal", at_least(4, 256 * scale)]),
    Part("scaling", "bench.scaling", lambda scale, rounds: ["--sizes", at_least(100, 1000 * scale), at_least(800, 8000 * scale)]),
    Part("micro", "bench.micro", lambda scale, rounds: ["--seconds", f"{max(0.1, scale):g}"], is_usual=False),
)  # fmt: skip
