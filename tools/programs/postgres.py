"""PostgreSQL on a mount: a cluster with checksums, pgbench for a while, and its books must balance, after a remount too."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mount.mounts import Mounted
from tools.programs.jobs import Job, WentWrong, call, outcome_of

USER = "postgres"  # the server refuses to run as root
SCALE = 10
CLIENTS = 4
PORT = 54_321  # names the socket; nothing listens on the network

# Each transaction of pgbench moves one amount on three tables and notes it in a fourth.
BOOKS = """
    SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
           (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
"""


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def program() -> str | None:
    """Return what is missing, if anything."""
    return None if _programs() else "install the package postgresql"


def jobs(seconds: int) -> Iterator[Job]:
    """Yield what is done, in this order."""
    yield Job("initdb with checksums", outcome_of(_make))
    yield Job(f"pgbench, {CLIENTS} clients", outcome_of(lambda mounted: _bench(mounted, seconds)))
    yield Job("the server killed and recovered", outcome_of(_kill))
    yield Job("books and checksums, remounted", outcome_of(_look_again))


def _tool(name: str) -> Path:
    programs = _programs()
    assert programs is not None
    return programs / name


def _cluster(mounted: Mounted) -> Path:
    return mounted.path / "cluster"


def _make(mounted: Mounted) -> str:
    mounted.path.chmod(0o777)
    call([_tool("initdb"), "--data-checksums", "-A", "trust", "-D", _cluster(mounted)], user=USER, cwd=Path("/"))
    return ""


@contextmanager
def _server(mounted: Mounted, stop: str = "fast") -> Iterator[list[str]]:
    """Run the server; yields the words that lead its clients to it."""
    with tempfile.TemporaryDirectory(prefix="razorfs-socket.") as socket:
        Path(socket).chmod(0o777)
        control: list[str | Path] = [_tool("pg_ctl"), "-D", _cluster(mounted), "-w", "-s"]
        settings = f"-c listen_addresses= -c unix_socket_directories={socket} -c port={PORT} -c shared_buffers=32MB"
        log = _cluster(mounted) / "log of the server"
        call([*control, "-l", log, "-o", settings, "start"], user=USER, cwd=Path("/"))
        try:
            yield ["-h", socket, "-p", str(PORT), "-U", USER]
        finally:
            call([*control, "-m", stop, "stop"], user=USER, cwd=Path("/"))


def _check_books(where: list[str]) -> int:
    """Return the amount on which all four tables agree."""
    sums = call([_tool("psql"), *where, "-At", "-F", " ", "-c", BOOKS, USER]).split()
    if len(set(sums)) != 1:
        raise WentWrong(f"the books do not balance: {sums}")
    call([_tool("pg_amcheck"), *where, "--install-missing", "--heapallindexed", USER])
    return int(sums[0])


def _bench(mounted: Mounted, seconds: int) -> str:
    with _server(mounted) as where:
        call([_tool("pgbench"), *where, "-q", "-i", "-s", str(SCALE), USER])
        said = call([_tool("pgbench"), *where, "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), USER])
        _check_books(where)
    rate = re.search(r"tps = ([\d.]+)", said)
    failed = re.search(r"failed transactions: (\d+)", said)
    if rate is None or (failed is not None and int(failed[1])):
        raise WentWrong(said)
    return f"{float(rate[1]):.0f} transactions/s"


def _kill(mounted: Mounted) -> str:
    """Stop without a checkpoint: the next start has to recover from the log, as after a crash of the server."""
    with _server(mounted, stop="immediate") as where:
        call([_tool("pgbench"), *where, "-n", "-c", str(CLIENTS), "-T", "3", USER])  # -n: the history stays
        amount = _check_books(where)
    with _server(mounted) as where:
        if _check_books(where) != amount:
            raise WentWrong("acknowledged transactions are missing after the recovery")
    return f"the books stand at {amount}"


def _look_again(mounted: Mounted) -> str:
    with _server(mounted) as where:
        amount = _check_books(where)
    mounted.remount()
    said = call([_tool("pg_checksums"), "--check", "-D", _cluster(mounted)], user=USER, cwd=Path("/"))
    with _server(mounted) as where:
        if _check_books(where) != amount:
            raise WentWrong("the books are others after a remount")
    blocks = re.search(r"Blocks scanned: +(\d+)", said)
    return f"{blocks[1]} blocks verified" if blocks else said
