"""The porch: a request through the pump, with a pair of sockets in the kernel's place."""

import time
from typing import Any, cast

from bench.metering import CHUNK, Rig, requests
from bench.micro.conftest import Measure
from razortools.engine import files, namespace
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.service.wire import HEAD
from razortools.units import KIB


def answered(measure: Measure, volume: Volume, name: str) -> None:
    """Measure one of the metering benchmark's requests: received, answered, counted."""
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, b"x" * 64 * KIB)
    rig = Rig(volume)
    opcode, node, body = requests(ino)[name]
    message = HEAD.pack(HEAD.size + len(body), opcode, 1, node, 0, 0, 1, 0, 0) + body
    pump, receive, nursery = rig.pumps["with"], rig.channel.receive, cast(Any, None)  # nothing here becomes a task

    def send() -> None:
        for _ in range(CHUNK):
            rig.kernel.send(message)

    def serve(_: object) -> None:
        looked = time.perf_counter_ns()
        for _ in range(CHUNK):
            looked = pump._answer(receive(), looked, nursery)
        for _ in range(CHUNK):
            rig.kernel.recv(64 * KIB)

    measure(serve, each=CHUNK, fresh=send)


def test_getattr(measure: Measure, volume: Volume) -> None:
    """Answer GETATTR."""
    answered(measure, volume, "GETATTR")


def test_lookup(measure: Measure, volume: Volume) -> None:
    """Answer LOOKUP of an absent name."""
    answered(measure, volume, "LOOKUP of an absent name")


def test_read(measure: Measure, volume: Volume) -> None:
    """Answer READ of 4 KiB."""
    answered(measure, volume, "READ of 4 KiB")


def test_write(measure: Measure, volume: Volume) -> None:
    """Answer WRITE of 4 KiB."""
    answered(measure, volume, "WRITE of 4 KiB")
