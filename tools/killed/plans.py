"""What the workers intend: each role makes its steps from a seed and from what its directory holds.

Everything is pure. A worker changes its own directory only, so its steps have one order; it syncs whatever it likes. All or
nothing is promised for one request of the kernel. That passes a write of up to WRITE_BYTES_MAX on as one, with an exception: when
the write starts within a page that the kernel has not cached, this page's part is a request of its own.
"""

import random
from collections.abc import Callable, Iterator

from razortools.units import KIB
from tools.killed.load import Step, contents

Tree = dict[str, bytes | None]  # path -> contents, None: a directory

PAGE_BYTES = 4 * KIB
WRITE_BYTES_MAX = 60 * KIB  # the kernel cuts at 32 pages; an offset within a page takes one more
FILE_BYTES_MAX = 300 * KIB  # three records
FILES_MAX = 14  # of one worker
TARGETS = 6


def apply(tree: Tree, step: Step) -> tuple[str, ...]:
    """Do *step* on *tree*; return the paths that it touched."""
    path, other = step.path, step.other
    if step.is_sync:
        return ()
    if step.kind == "create":
        tree[path] = b""
    elif step.kind == "mkdir":
        tree[path] = None
    elif step.kind in ("unlink", "unlink-open", "rmdir"):
        del tree[path]
    elif step.kind == "rename":
        tree[other] = tree.pop(path)
        return path, other
    elif step.kind == "exchange":
        tree[path], tree[other] = tree[other], tree[path]
        return path, other
    else:
        tree[path] = _changed(tree[path] or b"", step)
    return (path,)


def part(tree: Tree, step: Step) -> bytes | None:
    """Return what the file of *step* holds when the first of two requests was served; None: the step is one request."""
    cut = PAGE_BYTES - step.offset % PAGE_BYTES
    if step.kind != "write" or cut == PAGE_BYTES or step.length <= cut:
        return None
    return _written(tree[step.path] or b"", step.offset, contents(step.seed, step.length)[:cut])


def _changed(before: bytes, step: Step) -> bytes:
    if step.kind == "truncate":
        return before[: step.offset].ljust(step.offset, b"\0")
    assert step.kind == "write", step.kind
    return _written(before, step.offset, contents(step.seed, step.length))


def _written(before: bytes, offset: int, data: bytes) -> bytes:
    return before[:offset].ljust(offset, b"\0") + data + before[offset + len(data) :]


class Planner:
    """Makes the steps of one worker in one round."""

    def __init__(self, home: str, homes: list[str], tree: Tree, source: random.Random, sync_share: float) -> None:
        """Plan for the worker whose directory is *home* and holds *tree*; it syncs after *sync_share* of what it does."""
        self.home = home
        self.homes = homes
        self.source = source
        self.sync_share = sync_share
        self.sizes = {path: None if data is None else len(data) for path, data in tree.items()}
        self._number = 0

    def steps(self, role: str, count: int) -> list[Step]:
        """Return *count* steps of *role*."""
        made: list[Step] = []
        while len(made) < count:
            made += ROLES[role](self)
        return made[:count]

    @property
    def files(self) -> list[str]:
        """Files that are there, in order."""
        return sorted(path for path, size in self.sizes.items() if size is not None)

    def often(self, share: float) -> bool:
        """Say yes in *share* of all cases."""
        return self.source.random() < share

    def fresh(self, folder: str = "") -> str:
        """Return a path that nothing has."""
        while True:
            path = f"{folder or self.home}/{self.source.randrange(1 << 24):06x}"
            if path not in self.sizes:
                return path

    def create(self, path: str) -> Step:
        """Make an empty file."""
        self.sizes[path] = 0
        return Step("create", path)

    def write(self, path: str, offset: int) -> Step:
        """Write at *offset*, mostly little."""
        length = self.source.choice((1, 100, 3000, 4096, 20_000, WRITE_BYTES_MAX))
        length = self.source.randint(max(1, length // 2), length)
        self.sizes[path] = max(self.sizes[path] or 0, offset + length)
        return Step("write", path, "", offset, length, self.source.getrandbits(48), self.often(self.sync_share / 4))

    def append(self, path: str) -> Step:
        """Write at the end; a file that is large is emptied instead."""
        size = self.sizes[path] or 0
        if size + WRITE_BYTES_MAX > FILE_BYTES_MAX:
            return self.truncate(path, 0)
        return self.write(path, size)

    def truncate(self, path: str, size: int) -> Step:
        """Set the size."""
        self.sizes[path] = size
        return Step("truncate", path, "", size)

    def unlink(self, path: str) -> Step:
        """Take a file away, at times while it is open."""
        del self.sizes[path]
        return Step("unlink-open" if self.often(0.2) else "unlink", path)

    def move(self, path: str, other: str) -> Step:
        """Rename over whatever is there."""
        self.sizes[other] = self.sizes.pop(path)
        return Step("rename", path, other)

    def syncs(self, path: str) -> Iterator[Step]:
        """Sync a file, its directory, or both, as often as this round wants it."""
        if self.often(self.sync_share):
            yield Step("fsync", path)
        if self.often(self.sync_share / 4):
            yield Step("fsyncdir", self.home)


def writer(plan: Planner) -> Iterator[Step]:
    """Create, append, overwrite, truncate."""
    files = plan.files
    if not files or (len(files) < FILES_MAX and plan.often(0.1)):
        path = plan.fresh()
        yield plan.create(path)
        yield plan.append(path)
    elif len(files) >= FILES_MAX and plan.often(0.1):
        yield plan.unlink(plan.source.choice(files))
        return
    else:
        path = plan.source.choice(files)
        size = plan.sizes[path] or 0
        if plan.often(0.1):
            yield plan.truncate(path, plan.source.randint(0, size + 5000))
        elif plan.often(0.5) and size:
            yield plan.write(path, plan.source.randrange(min(size, FILE_BYTES_MAX - WRITE_BYTES_MAX)))
        else:
            yield plan.append(path)
    yield from plan.syncs(path)


def renamer(plan: Planner) -> Iterator[Step]:
    """Write beside, sync (or not), rename over; exchange."""
    targets = [path for path in plan.files if path.rsplit("/", 1)[1].startswith("target")]
    for left in plan.files:  # from a round that ended in the middle
        if left not in targets:
            yield plan.unlink(left)
    if len(targets) > 1 and plan.often(0.2):
        path, other = plan.source.sample(targets, 2)
        plan.sizes[path], plan.sizes[other] = plan.sizes[other], plan.sizes[path]
        yield Step("exchange", path, other)
    else:
        path = plan.fresh()
        yield plan.create(path)
        for _ in range(plan.source.randint(1, 3)):
            yield plan.append(path)
        yield from plan.syncs(path)
        other = f"{plan.home}/target{plan.source.randrange(TARGETS)}"
        yield plan.move(path, other)
    if plan.often(plan.sync_share / 2):
        yield Step("fsyncdir", plan.home)


def syncer(plan: Planner) -> Iterator[Step]:
    """Append a little; sync own files, other workers' directories, the root."""
    path = f"{plan.home}/log{plan.source.randrange(3)}"
    if path not in plan.sizes:
        yield plan.create(path)
    yield plan.append(path)
    if plan.often(min(1.0, 3 * plan.sync_share)):
        yield Step("fsyncdir", plan.source.choice((*plan.homes, "."))) if plan.often(0.5) else Step("fsync", path)


def unlinker(plan: Planner) -> Iterator[Step]:
    """Fill a directory, empty it, take it away."""
    folder = plan.fresh()
    left = [path for path, size in sorted(plan.sizes.items()) if size is None]
    for path in plan.files:
        if len(plan.sizes) > FILES_MAX or plan.often(0.5):
            yield plan.unlink(path)
    for path in left:
        if not any(name.startswith(path + "/") for name in plan.sizes):
            del plan.sizes[path]
            yield Step("rmdir", path)
    plan.sizes[folder] = None
    yield Step("mkdir", folder)
    for _ in range(plan.source.randint(1, 6)):
        path = plan.fresh(folder)
        yield plan.create(path)
        if plan.often(0.7):
            yield plan.append(path)
        yield from plan.syncs(path)


ROLES: dict[str, Callable[[Planner], Iterator[Step]]] = {
    "writer": writer,
    "renamer": renamer,
    "syncer": syncer,
    "unlinker": unlinker,
}
