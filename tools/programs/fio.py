"""fio with verification on a mount: every block that is read back must be the one that was written, by every way of writing."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.mount.mounts import Mounted
from tools.programs.jobs import Job, WentWrong, call, outcome_of

# Name -> options. Two processes write two files of 8 MiB each, at random unless said otherwise; each block has its checksum.
WAYS: dict[str, tuple[str, ...]] = {
    "sync, 4K": ("--ioengine=sync", "--bs=4k"),
    "psync, 512 to 64K": ("--ioengine=psync", "--bsrange=512-64k", "--bs_unaligned=1"),
    "psync, direct": ("--ioengine=psync", "--bs=4k", "--direct=1"),
    "psync, fsync of every 8th": ("--ioengine=psync", "--bs=16k", "--fsync=8"),
    "psync, fdatasync of every 5th": ("--ioengine=psync", "--bs=4k", "--fdatasync=5"),
    "pvsync, 128K in order": ("--ioengine=pvsync", "--bs=128k", "--rw=write"),
    "pvsync2, O_SYNC": ("--ioengine=pvsync2", "--bs=32k", "--sync=1"),
    "mmap": ("--ioengine=mmap", "--bs=4k"),
    "mmap, msync of every 16th": ("--ioengine=mmap", "--bs=8k", "--fsync=16"),
    "libaio, 16 deep": ("--ioengine=libaio", "--bs=4k", "--iodepth=16"),
    "libaio, direct, 16 deep": ("--ioengine=libaio", "--bs=4k", "--iodepth=16", "--direct=1"),
    "posixaio, 8 deep": ("--ioengine=posixaio", "--bs=8k", "--iodepth=8"),
    "io_uring, 16 deep": ("--ioengine=io_uring", "--bs=4k", "--iodepth=16"),
    "8 files at once, mixed": ("--ioengine=psync", "--bssplit=512/20:4k/40:64k/40", "--nrfiles=8", "--file_service_type=random"),
    "contents that shrink": ("--ioengine=psync", "--bs=64k", "--buffer_compress_percentage=70", "--refill_buffers=1"),
}
USUAL = (
    "--rw=randrw", "--rwmixread=30", "--size=16m", "--nrfiles=2", "--numjobs=2", "--verify=crc32c", "--verify_fatal=1",
    "--verify_dump=1", "--verify_backlog=512", "--do_verify=1", "--end_fsync=1", "--fallocate=none", "--randseed=20",
    "--output-format=json",
)  # fmt: skip


def program() -> str | None:
    """Return what is missing, if anything."""
    return None if shutil.which("fio") else "install the package fio"


def jobs(seconds: int) -> Iterator[Job]:
    """Yield a job for each way. None is cut off before its blocks are verified: from 40 *seconds* on each is done twice."""
    loops = 2 if seconds >= 40 else 1
    for name, options in WAYS.items():
        yield Job(name, outcome_of(partial(_write_and_verify, options=options, loops=loops)))
    yield Job("verified again, remounted", outcome_of(_verify_again))


def _write_and_verify(mounted: Mounted, *, options: tuple[str, ...], loops: int) -> str:
    folder = mounted.path / "fio"
    folder.mkdir(exist_ok=True)
    moved = _fio(folder, (*USUAL, *options, f"--loops={loops}"))
    shutil.rmtree(folder)
    return moved


def _verify_again(mounted: Mounted) -> str:
    """Write, remount, and only verify: nothing comes from a cache."""
    folder = mounted.path / "kept"
    folder.mkdir()
    wish = ("--ioengine=psync", "--bs=4k", "--rw=randwrite")
    _fio(folder, (*USUAL, *wish))
    mounted.remount()
    return _fio(folder, (*USUAL, *wish, "--verify_only=1"))


def _fio(folder: Path, options: tuple[str, ...]) -> str:
    said = call(["fio", "--name=job", f"--directory={folder}", *options], cwd=folder)
    result = json.loads(said[said.index("{") : said.rindex("}") + 1])
    if any(job["error"] for job in result["jobs"]):
        raise WentWrong(said[-4000:])
    read, written = (sum(job[way]["io_bytes"] for job in result["jobs"]) >> 20 for way in ("read", "write"))
    if not read:
        raise WentWrong(f"nothing was verified:\n{said[-4000:]}")
    return f"{written} MiB written, {read} MiB read"
