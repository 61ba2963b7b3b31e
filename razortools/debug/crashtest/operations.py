"""Operations: the words that a workload is written in, and what each does to a volume and to the reference.

A workload is text, so that a failure can be told, shortened and repeated: ``create /n; write /n 0 300; fsync /n``. Data are made
from the number of the operation, so that no two writes write the same.
"""

import random
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from razortools.debug.crashtest.reference import File, Model
from razortools.engine import files, namespace, xattrs
from razortools.engine.volume import Volume
from razortools.errors import UsageError
from razortools.units import InodeNo

FILE_MODE, DIRECTORY_MODE = 0o644, 0o755
UID, GID = 1000, 100


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation with its words, and the number that its data are made from."""

    verb: str
    words: tuple[str, ...]
    number: int = 0

    def __str__(self) -> str:
        return " ".join((self.verb, *self.words))

    @property
    def covers(self) -> str:
        """What is durable when it returns: all that was done "before", what was done before the last one "begun", or nothing."""
        return VERBS[self.verb].covers


@dataclass(frozen=True, slots=True)
class Verb:
    """What a word means. *words*: how many follow it."""

    words: str
    engine: Callable[[Volume, Operation], None]
    reference: Callable[[Model, Operation], None] = lambda model, operation: None
    covers: Literal["", "before", "begun"] = ""


def parse(text: str) -> tuple[Operation, ...]:
    """Return the workload that *text* describes. Raises UsageError for words that make no sense."""
    found = []
    for number, part in enumerate(piece.strip() for piece in text.split(";") if piece.strip()):
        verb, *words = part.split()
        known = VERBS.get(verb)
        if known is None:
            raise UsageError(f"{verb}: there is no such operation; choose one of {', '.join(VERBS)}")
        if len(words) != len(known.words.split()):
            raise UsageError(f"{part}: write it as: {verb} {known.words}")
        found.append(Operation(verb, tuple(words), number))
    return tuple(found)


def text_of(workload: tuple[Operation, ...]) -> str:
    """Return a workload as it is typed."""
    return "; ".join(map(str, workload))


@lru_cache(maxsize=4096)
def payload(number: int, length: int) -> bytes:
    """Return the data of operation *number*: text that shrinks, or bytes that do not, in turn."""
    if number % 2:
        return random.Random(number).randbytes(length)
    return (b"line %d of a text that shrinks\n" % number * (length // 20 + 1))[:length]


# On a volume


def _at(volume: Volume, path: str) -> InodeNo:
    return namespace.resolve(volume, path.encode())


def _place(volume: Volume, path: str) -> tuple[InodeNo, bytes]:
    head, _, name = path.rpartition("/")
    return _at(volume, head or "/"), name.encode()


def _create(volume: Volume, operation: Operation) -> None:
    namespace.create(volume, *_place(volume, operation.words[0]), FILE_MODE, UID, GID)


def _mkdir(volume: Volume, operation: Operation) -> None:
    namespace.mkdir(volume, *_place(volume, operation.words[0]), DIRECTORY_MODE, UID, GID)


def _symlink(volume: Volume, operation: Operation) -> None:
    path, length = operation.words
    namespace.symlink(volume, *_place(volume, path), _target(operation.number, int(length)), UID, GID)


def _target(number: int, length: int) -> bytes:
    return random.Random(number).randbytes(length).hex()[:length].encode()


def _write(volume: Volume, operation: Operation) -> None:
    path, offset, length = operation.words
    files.write(volume, _at(volume, path), int(offset), payload(operation.number, int(length)))


def _append(volume: Volume, operation: Operation) -> None:
    path, length = operation.words
    ino = _at(volume, path)
    files.write(volume, ino, volume.inodes.get(ino).size, payload(operation.number, int(length)))


def _truncate(volume: Volume, operation: Operation) -> None:
    path, size = operation.words
    files.truncate(volume, _at(volume, path), int(size))


def _rename(flags: int) -> Callable[[Volume, Operation], None]:
    def rename(volume: Volume, operation: Operation) -> None:
        old, new = operation.words
        namespace.rename(volume, *_place(volume, old), *_place(volume, new), flags)

    return rename


def _link(volume: Volume, operation: Operation) -> None:
    old, new = operation.words
    namespace.link(volume, _at(volume, old), *_place(volume, new))


def _setxattr(volume: Volume, operation: Operation) -> None:
    path, name, length = operation.words
    xattrs.set(volume, _at(volume, path), name.encode(), payload(operation.number, int(length)))


def _removexattr(volume: Volume, operation: Operation) -> None:
    path, name = operation.words
    xattrs.remove(volume, _at(volume, path), name.encode())


def _chmod(volume: Volume, operation: Operation) -> None:
    path, mode = operation.words
    namespace.setattr(volume, _at(volume, path), namespace.AttributeChange(mode=int(mode, 8)))


def _begin(volume: Volume) -> None:
    """Begin a commit as a mount does, which lets it run in a thread."""
    volume.begin_commit()


def _begin_checkpoint(volume: Volume) -> None:
    """Begin a checkpoint, as a mount does after a commit that operations did not wait for."""
    volume.begin_checkpoint()


def _write_out(volume: Volume) -> None:
    """Let the thread run that writes what was begun, once it is prepared; its owner has not heard of it."""
    flight = volume.store.flights.current
    if flight is not None:
        flight.prepare()
        flight.run()


# On the reference


def _file(model: Model, path: str) -> File:
    found = model.root
    for name in path.split("/"):
        if name:
            found = model.lookup(found, name.encode())
    return found


def _slot(model: Model, path: str) -> tuple[File, bytes]:
    head, _, name = path.rpartition("/")
    return _file(model, head), name.encode()


def _make(mode: int) -> Callable[[Model, Operation], None]:
    def make(model: Model, operation: Operation) -> None:
        model.make(*_slot(model, operation.words[0]), mode, UID, GID)

    return make


def _make_link(model: Model, operation: Operation) -> None:
    path, length = operation.words
    model.make(*_slot(model, path), stat.S_IFLNK | 0o777, UID, GID, target=_target(operation.number, int(length)))


def _write_file(model: Model, operation: Operation) -> None:
    path, offset, length = operation.words
    model.write(_file(model, path), int(offset), payload(operation.number, int(length)))


def _append_file(model: Model, operation: Operation) -> None:
    path, length = operation.words
    file = _file(model, path)
    model.write(file, file.size, payload(operation.number, int(length)))


def _move(*, noreplace: bool = False, exchange: bool = False) -> Callable[[Model, Operation], None]:
    def move(model: Model, operation: Operation) -> None:
        old, new = operation.words
        model.rename(*_slot(model, old), *_slot(model, new), noreplace=noreplace, exchange=exchange)

    return move


def _set_xattr(model: Model, operation: Operation) -> None:
    path, name, length = operation.words
    data = payload(operation.number, int(length))
    model.set_xattr(_file(model, path), name.encode(), data, create=False, replace=False)


VERBS = {
    "create": Verb("PATH", _create, _make(stat.S_IFREG | FILE_MODE)),
    "mkdir": Verb("PATH", _mkdir, _make(stat.S_IFDIR | DIRECTORY_MODE)),
    "symlink": Verb("PATH LENGTH", _symlink, _make_link),
    "write": Verb("PATH OFFSET LENGTH", _write, _write_file),
    "append": Verb("PATH LENGTH", _append, _append_file),
    "truncate": Verb("PATH SIZE", _truncate, lambda model, op: model.truncate(_file(model, op.words[0]), int(op.words[1]))),
    "unlink": Verb(
        "PATH",
        lambda volume, op: namespace.unlink(volume, *_place(volume, op.words[0])),
        lambda model, op: model.unlink(*_slot(model, op.words[0])),
    ),
    "rmdir": Verb(
        "PATH",
        lambda volume, op: namespace.rmdir(volume, *_place(volume, op.words[0])),
        lambda model, op: model.rmdir(*_slot(model, op.words[0])),
    ),
    "rename": Verb("OLD NEW", _rename(0), _move()),
    "noreplace": Verb("OLD NEW", _rename(namespace.RENAME_NOREPLACE), _move(noreplace=True)),
    "exchange": Verb("OLD NEW", _rename(namespace.RENAME_EXCHANGE), _move(exchange=True)),
    "link": Verb("OLD NEW", _link, lambda model, op: model.link(_file(model, op.words[0]), *_slot(model, op.words[1]))),
    "setxattr": Verb("PATH NAME LENGTH", _setxattr, _set_xattr),
    "removexattr": Verb(
        "PATH NAME", _removexattr, lambda model, op: model.remove_xattr(_file(model, op.words[0]), op.words[1].encode())
    ),
    "chmod": Verb("PATH MODE", _chmod, lambda model, op: model.chmod(_file(model, op.words[0]), int(op.words[1], 8))),
    "hold": Verb(
        "PATH",
        lambda volume, op: namespace.hold(volume, _at(volume, op.words[0])),
        lambda model, op: model.hold(_file(model, op.words[0])),
    ),
    "fsync": Verb("PATH", lambda volume, op: files.fsync(volume, _at(volume, op.words[0])), covers="before"),
    "fsyncdir": Verb("PATH", lambda volume, op: files.fsync(volume, _at(volume, op.words[0])), covers="before"),
    "sync": Verb("", lambda volume, op: volume.commit(), covers="before"),
    "commit": Verb("", lambda volume, op: volume.commit(), covers="before"),
    "begin": Verb("", lambda volume, op: _begin(volume)),
    "begin-checkpoint": Verb("", lambda volume, op: _begin_checkpoint(volume)),
    "write-out": Verb("", lambda volume, op: _write_out(volume)),
    "settle": Verb("", lambda volume, op: volume.settle(), covers="begun"),
    "checkpoint": Verb("", lambda volume, op: volume.checkpoint(), covers="before"),
}
