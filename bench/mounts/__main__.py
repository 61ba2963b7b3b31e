"""The mount beside its peers, measured through the kernel in one run.

    python -m bench.mounts [--rounds 3] [--scale 1] [--only ROW]... [--without PEER]... [--json FILE] [--write]
                           [--peer NAME=COMMAND]... [--unmount NAME=COMMAND]... [--if-here]

In each round every peer gets a fresh image, is mounted, does all rows, and is taken away before the next one comes; each round
begins with another peer. The table shows medians over the rounds; a ratio compares two peers within a round. Needs root: for loop
devices, and because the kernel's caches are dropped for the cold rows (everybody's on this machine).

--peer measures a filesystem that was built elsewhere: a shell command that mounts at {dir}, in the foreground or as a daemon.
{image} is a path where nothing is yet, {lower} an empty directory for those that only pass through. --unmount: if `umount {dir}`
is wrong for it.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from bench import plots
from bench.mounts.clients import RowFailed, measure
from bench.mounts.contents import Sizes, write_tarball
from bench.mounts.peers import PEERS, RAZORFS, UNMOUNT, Peer, PeerFailed, adopt_daemons, daemon_of, missing_tools, mounted
from bench.mounts.place import Place
from bench.mounts.report import document, page
from bench.mounts.results import Results
from bench.mounts.rows import ROWS, prepare
from bench.page import machine, publish

TARBALL = "tree.tar"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.mounts", description="Measure the mount beside its peers.")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is done (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the work, for a quick try")
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW", help="one row, by its name: " + "; ".join(ROWS))
    parser.add_argument("--without", action="append", default=[], metavar="PEER", help="leave a peer out")
    parser.add_argument("--if-here", action="store_true", help="leave out peers whose tools are missing, and say so in the table")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="another peer, by its mount command")
    parser.add_argument("--unmount", action="append", default=[], metavar="NAME=COMMAND", help="how that peer is unmounted")
    parser.add_argument("--folder", type=Path, help="where the images are made (default: the folder for temporary files)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="put the figures of all rounds into FILE")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    return parser.parse_args(arguments)


def chosen_peers(options: argparse.Namespace) -> list[Peer]:
    """Return the peers to measure. Exits with a sentence if an option names one that does not exist, or tools are missing.

    With --if-here those whose tools are missing are left out, and options.without has them.
    """
    unmounts = dict(_pair(text) for text in options.unmount)
    added = [_pair(text) for text in options.peer]
    known = [*PEERS, *(Peer(name, command, unmount=unmounts.pop(name, UNMOUNT)) for name, command in added)]
    names = [peer.name for peer in known]
    for name in [*options.without, *unmounts]:
        if name not in names:
            sys.exit(f"there is no peer {name!r} here; there are {', '.join(names)}")
    if len(set(names)) < len(names):
        sys.exit(f"two peers have the same name: {', '.join(names)}")
    peers = [peer for peer in known if peer.name not in options.without]
    missing = missing_tools(peers)
    if missing and not options.if_here:
        sys.exit("\n".join(missing.values()))
    for sentence in missing.values():
        tell(sentence)
    options.without = [*options.without, *(f"{name} (not here)" for name in missing)]
    return [peer for peer in peers if peer.name not in missing]


def _pair(text: str) -> tuple[str, str]:
    """Split NAME=COMMAND."""
    name, equals, command = text.partition("=")
    if not (name.replace("_", "").replace("-", "").replace(".", "").isalnum() and equals and command):
        sys.exit(f"{text!r} is not NAME=COMMAND")
    return name, command


def run_peer(peer: Peer, number: int, folder: Path, sizes: Sizes, results: Results) -> None:
    """Do all rows on *peer*. What fails is noted, and the others go on."""
    try:
        with mounted(peer, folder) as point:
            place = Place(point, folder / TARBALL, sizes, daemon=daemon_of(point) if peer.name == RAZORFS else None)
            for name in results.rows:
                try:
                    taken = measure(ROWS[name][0], place)
                except RowFailed as error:
                    results.failures.append(f"{peer.name}, round {number + 1}, {name}: {error}")
                    tell(results.failures[-1])
                else:
                    results.add(name, peer.name, number, taken)
                    tell(f"{peer.name}, round {number + 1}, {name}: {taken.count} in {taken.wall_s:.3f} s")
    except PeerFailed as error:
        results.failures.append(f"{peer.name}, round {number + 1}: {error}")
        tell(results.failures[-1])


def tell(text: str) -> None:
    """Say how far it has come."""
    sys.stderr.write(text + "\n")


def run(options: argparse.Namespace, peers: list[Peer], folder: Path) -> Results:
    """Measure everything."""
    sizes = Sizes().scaled(options.scale)
    prepare(sizes)
    write_tarball(folder / TARBALL, sizes)
    rows = [name for name in ROWS if not options.only or name in options.only]
    results = Results(machine(folder), options.scale, options.rounds, [peer.name for peer in peers], options.without, rows)
    for number in range(options.rounds):
        first = number * len(peers) // options.rounds  # nobody always has the place after the same other
        for peer in peers[first:] + peers[:first]:
            run_peer(peer, number, folder, sizes, results)
    return results


def main() -> int:
    """Measure, print the table, publish it if asked to. Returns 1 if something failed."""
    options = parse()
    peers = chosen_peers(options)
    if os.geteuid() != 0:
        sys.exit("this needs root: it mounts loop devices and drops the kernel's caches")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that everything is taken away
    adopt_daemons()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        results = run(options, peers, folder)
    finally:
        (folder / TARBALL).unlink(missing_ok=True)
        folder.rmdir()  # each peer has removed its own; one that could not be unmounted is still there, and this tells where
    text = page(results)
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(json.dumps(document(results), indent=1) + "\n", encoding="utf-8")
    if options.write:
        publish("mounts", text + plots.shown("mounts", lambda draw: draw.ratios(results)))
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
