"""What the micro-benchmarks share: each is measured by `measure`, which gives its row the name that its docstring says."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.journaling import IMAGE_BYTES
from razortools.engine import collector
from razortools.engine.create import create, plan_create
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume

Measure = Callable[..., Any]


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> Measure:
    """Give the function that times work(), in which *each* things are done to so many bytes.

    With *fresh*, its value is handed to work(), made anew and outside of the time for each call.
    """
    benchmark.extra_info["row"] = (request.function.__doc__ or request.node.name).splitlines()[0].rstrip(".")

    def timed(
        work: Callable[..., object], *, each: int = 1, size_bytes: int = 0, fresh: Callable[[], object] | None = None
    ) -> None:
        benchmark.extra_info |= {"each": each, "bytes": size_bytes}
        if fresh is None:
            benchmark(work)
        else:
            benchmark.pedantic(work, setup=lambda: ((fresh(),), {}), rounds=20, warmup_rounds=2)

    return timed


@pytest.fixture
def volume() -> Iterator[Volume]:
    """A volume in memory, so that no disk is measured."""
    collector.calm()
    device = MemoryDevice(IMAGE_BYTES)
    create(device, plan_create(IMAGE_BYTES, uuid=bytes(range(16)), hash_seed=bytes(16)))
    with open_volume(device) as opened:
        yield opened
