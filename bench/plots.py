"""Plots for docs/BENCHMARKS.md, as SVG files beside it. matplotlib draws them; it is an extra that only this needs.

A plot adds nothing to the tables: without matplotlib the page is complete, and says where its plots are missing. The same values
make the same bytes, so that a plot changes only when what it shows does.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import page

if TYPE_CHECKING:
    from bench.mounts.results import Results

SETTINGS = {
    "svg.hashsalt": "razorfs",  # ids that do not differ from run to run
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
INCHES_A_ROW = 0.34
MARKERS = "osv^D*"


class Drawing:
    """Draws one plot into one file."""

    def __init__(self, path: Path) -> None:
        """Draw into *path*. Raises ImportError without matplotlib."""
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot

        matplotlib.rcParams.update(SETTINGS)
        self._pyplot = pyplot
        self._path = path

    def ratios(self, results: "Results") -> None:
        """Draw how many times as fast razorfs is as its peers, row by row, on a scale that shows a half and a double alike."""
        rows = list(reversed(results.rows))
        figure, axes = self._pyplot.subplots(figsize=(8, 1.2 + INCHES_A_ROW * len(rows)))
        for peer, marker in zip(results.compared, MARKERS, strict=False):
            points = [(ratio, at) for at, row in enumerate(rows) if (ratio := results.ratio(row, peer)) is not None]
            axes.plot(*zip(*points, strict=True), marker, label=peer, alpha=0.8) if points else None
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.axvline(1, color="black", linewidth=1)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("times as fast as the peer (right of 1: razorfs is ahead)")
        self._finish(figure, axes)

    def panels(self, plots: Sequence[tuple[str, str, Mapping[str, Sequence[tuple[float, float]]]]]) -> None:
        """Draw plots of (across, up, series of points) one below the other, each on two logarithmic scales."""
        size = (9, 3.5 * len(plots))
        figure, all_axes = self._pyplot.subplots(len(plots), 1, figsize=size, squeeze=False, layout="constrained")
        for axes, (across, up, series) in zip(all_axes[:, 0], plots, strict=True):
            for number, (name, points) in enumerate(series.items()):
                axes.plot(*zip(*points, strict=True), marker=MARKERS[number % len(MARKERS)], label=name, markersize=4)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set(xlabel=across, ylabel=up)
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        self._save(figure)

    def _finish(self, figure: Any, axes: Any) -> None:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=6, frameon=False)
        self._save(figure)

    def _save(self, figure: Any) -> None:
        figure.savefig(self._path, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        self._pyplot.close(figure)


def shown(name: str, draw: Callable[[Drawing], None], folder: Path | None = None) -> str:
    """Draw docs/benchmarks-NAME.svg and return the lines of the page that show it, or that say why it is not there."""
    folder = page.PAGE.parent if folder is None else folder
    path = folder / f"benchmarks-{name}.svg"
    try:
        draw(Drawing(path))
    except ImportError:
        path.unlink(missing_ok=True)  # it would show another run
        return "\nNo plot: matplotlib is not installed.\n"
    return f"\n![{name}]({path.name})\n"
