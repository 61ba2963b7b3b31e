"""One client of the stress: a process that does steps until it has done enough or is told to end.

It needs nothing but the standard library (`python -S -m tools.stressing.client`). Its progress stands in a file outside of the
mount that all clients and the watchdog map into memory: so a client that hangs can still be seen, with the name of what it does.
What it has done stands in a file of its own when it ends; `--compare` compares the mount with that.
"""

import argparse
import errno
import json
import mmap
import os
import random
import struct
import sys
import traceback
from collections.abc import Callable

import tools.stressing.own as own_module
from tools.stressing.own import Own, Wrong, found_in
from tools.stressing.shared import Shared

SLOT = struct.Struct("<QQ24s")  # signs of life, steps done, name of the step under way
STOP_BYTES = 32  # in front of the slots; the first byte not 0: end
SHARED_SHARE = 0.25
RARE_SHARE = 0.004


class Board:
    """The progress of all clients, in memory that all processes share."""

    def __init__(self, path: str, client_count: int = 0) -> None:
        """Open the board at *path*; with a *client_count*, make it."""
        if client_count:
            with open(path, "xb") as file:
                file.truncate(STOP_BYTES + client_count * SLOT.size)
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def tell(self, client: int, count: int, doing: str) -> None:
        """Say what a client does now."""
        alive, _, _ = self.read(client)
        SLOT.pack_into(self._memory, STOP_BYTES + client * SLOT.size, alive + 1, count, doing.encode())

    def pulse(self, client: int) -> None:
        """Say that a client gets on with what it does."""
        self.tell(client, *self.read(client)[1:])

    def read(self, client: int) -> tuple[int, int, str]:
        """Return (signs of life, steps done, name of the step under way)."""
        alive, count, doing = SLOT.unpack_from(self._memory, STOP_BYTES + client * SLOT.size)
        return alive, count, doing.rstrip(b"\0").decode()

    def stop(self) -> None:
        """Tell all to end after their step."""
        self._memory[0] = 1

    @property
    def is_stopped(self) -> bool:
        """Whether all are to end."""
        return self._memory[0] != 0


def work(folder: str, client: int, seed: int, operations: int, board: Board, *, may_be_full: bool) -> dict[str, object]:
    """Do steps; return what was done, as judge() and compare() want it. Raises Wrong, OSError.

    *may_be_full*: whoever finds no space deletes all that is its own. Nothing is mapped then: what a mapping has changed and no
    space is left for is lost, on any filesystem that does not reserve it.
    """
    source = random.Random(f"stress {seed} {client}")
    root = f"{folder}/client-{client}"
    os.mkdir(root)
    own = Own(root, source, is_dense=may_be_full, pulse=lambda: board.pulse(client))
    shared = Shared(f"{folder}/shared", client, source)
    if may_be_full:
        own_module.may_be_short = True
        own.steps = [step for step in own.steps if step != own.map]
        own.rare_steps.remove(own.killed)  # it could not tell
    count = refused = 0
    while count != operations and not board.is_stopped:
        kind = source.random()
        steps = own.rare_steps if kind < RARE_SHARE else shared.steps if kind < SHARED_SHARE else own.steps
        step = source.choice(steps)
        board.tell(client, count, step.__name__)
        try:
            step()
        except OSError as failed:
            if failed.errno != errno.ENOSPC or not may_be_full:
                raise
            refused += 1
            board.tell(client, count, "start over")
            own.start_over()
        count += 1
    board.tell(client, count, "compare")
    own.close()
    compare(root, own.summary(), lambda: board.pulse(client))
    board.tell(client, count, "end")
    return {"root": root, "own": own.summary(), "count": count, "refused": refused, **shared.summary()}


def compare(root: str, wanted: dict[str, object], pulse: Callable[[], None] = lambda: None) -> None:
    """Raise Wrong unless *root* holds what is *wanted*."""
    found = found_in(root, pulse)
    for path in sorted(found.keys() | wanted.keys()):
        if found.get(path) != wanted.get(path):
            raise Wrong(f"{path}: is {found.get(path)}, expected {wanted.get(path)}")


def main() -> int:
    """Do what the command line says; 1 and a story on stderr if the mount did not do what it should."""
    parser = argparse.ArgumentParser()
    parser.add_argument("done", help="where to write what was done")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--folder", default="")
    parser.add_argument("--client", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operations", type=int, default=-1)
    parser.add_argument("--board", default="")
    parser.add_argument("--may-be-full", action="store_true")
    chosen = parser.parse_args()
    try:
        if chosen.compare:
            with open(chosen.done, encoding="utf-8") as file:
                done = json.load(file)
            compare(done["root"], done["own"])
        else:
            board = Board(chosen.board)
            limits = (chosen.folder, chosen.client, chosen.seed, chosen.operations)
            done = work(*limits, board, may_be_full=chosen.may_be_full)
            with open(chosen.done, "w", encoding="utf-8") as file:
                json.dump(done, file)
    except (Wrong, OSError):
        sys.stderr.write(traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
