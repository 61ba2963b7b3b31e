"""A row that is a job of fio: several processes read and write one file each, and every block that is read is verified."""

import json
import os
from collections.abc import Iterator

from bench.mounts.contents import PAGE_BYTES, SEED
from bench.mounts.place import START, Place, Taken, WrongResult, run

READ_PERCENT = 70


def fio_mixed(place: Place) -> Iterator[int | Taken]:
    """Read and write 4 KiB at random places from several processes, 7 reads to 3 writes, with a sync at the end.

    fio's own clock counts: what it takes to start, to make the files and to verify them afterwards is not part of it.
    """
    folder = place.empty("fio")
    os.mkdir(folder)
    clients = place.sizes.clients
    each_bytes = max(1, place.sizes.random_reads * 2 // clients) * PAGE_BYTES
    job = {
        "name": "mixed",
        "directory": os.fsdecode(folder),
        "rw": "randrw",
        "rwmixread": READ_PERCENT,
        "bs": PAGE_BYTES,
        "size": each_bytes,
        "numjobs": clients,
        "ioengine": "psync",
        "end_fsync": 1,
        "verify": "crc32c",
        "verify_fatal": 1,
        "verify_state_save": 0,
        "randseed": SEED,
    }
    options = [f"--{name}={value}".encode() for name, value in job.items()]
    run(b"fio", *options, b"--create_only=1")
    place.settle()
    yield START
    answer = run(b"fio", *options, b"--group_reporting", b"--output-format=json")
    yield taken_of(answer)
    for name in os.listdir(folder):
        if os.stat(os.path.join(folder, name)).st_size != each_bytes:
            raise WrongResult(f"{os.fsdecode(name)} is not as long as fio was told to make it")


def taken_of(answer: bytes) -> Taken:
    """Return what fio says it has read and written in how much time. Raises WrongResult if it met an error or did nothing."""
    (job,) = json.loads(answer)["jobs"]
    if job["error"]:
        raise WrongResult(f"fio met the error {job['error']}")
    sides = [job["read"], job["write"]]
    count, wall_s = sum(side["total_ios"] for side in sides), max(side["runtime"] for side in sides) / 1000
    if not (count and wall_s):
        raise WrongResult("fio says that it has done nothing")
    return Taken(count, wall_s)
