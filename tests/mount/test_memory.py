"""Memory: limits hold for what is resident, fit into the control group, and sink while the kernel tells that memory is short."""

import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine import files, namespace
from razortools.engine.limits import Limits
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from razortools.service import memory, memory_room
from razortools.service.committer import Committer
from razortools.service.memory import CALM_S, PAUSE_S, Memory, fitted, squeezed
from razortools.service.operations import Operations
from razortools.service.options import MountOptions
from razortools.service.settled import Settled
from razortools.service.urgent import conditions
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import assert_memory_adds_up, new_file
from tests.engine.volumes import new_volume
from tests.mount.mounts import Mounted
from tools import memory_group as groups_made
from tools.confined import confined
from tools.daemon_figures import figures_of
from tools.memory_group import NoGroup, memory_group

LIMITS = ("record_cache_bytes", "metadata_cache_bytes", "dirty_bytes")
OPTIONS = st.builds(MountOptions, **{name: st.integers(1 * MIB, 1024 * MIB) for name in LIMITS})


def limits(options: MountOptions | Limits) -> list[int]:
    return [getattr(options, name) for name in LIMITS]


# What fits


@given(OPTIONS, st.integers(0, 4096 * MIB), st.integers(0, 2))
def test_less_memory_never_means_higher_limits_and_always_enough_to_go_on(
    options: MountOptions, allowed: int, steps: int
) -> None:
    within = squeezed(fitted(options, allowed), steps)
    least = (memory.CACHE_BYTES_MIN, memory.CACHE_BYTES_MIN, memory.DIRTY_BYTES_MIN)
    for now, wanted, enough in zip(limits(within), limits(options), least, strict=True):
        assert min(wanted, enough) <= now <= wanted
    assert fitted(options, None) == squeezed(options, 0) == options


@given(OPTIONS, st.integers(128 * MIB, 4096 * MIB))
def test_the_limits_leave_room_for_the_daemon_itself_and_as_much_again(options: MountOptions, allowed: int) -> None:
    floors = 2 * memory.CACHE_BYTES_MIN + memory.DIRTY_BYTES_MIN
    assert sum(limits(fitted(options, allowed))) <= (allowed - memory.DAEMON_BYTES) // 2 + floors


def groups(tmp_path: Path, kind: str, own: str, files_: dict[str, str], root: str = "/") -> Path:
    """Return a process whose control groups are made of *files_*, seen from *root*."""
    top, proc = tmp_path / "top", tmp_path / "proc"
    proc.mkdir()
    for name, text in files_.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (proc / "cgroup").write_text(f"3:cpuset:/elsewhere\n{own}\n")
    (proc / "mountinfo").write_text(
        f"20 1 0:5 / /proc rw - proc proc rw\n31 23 0:28 {root} {top} rw,relatime shared:9 - {kind}\n"
    )
    return proc


V2, V1 = "cgroup2 cgroup2 rw", "cgroup cgroup rw,memory"


@pytest.mark.parametrize(
    ("kind", "own", "files_", "root", "allowed"),
    [
        (V2, "0::/a/b", {"a/b/memory.max": "max\n", "a/b/memory.high": "max\n"}, "/", None),
        (V2, "0::/a/b", {"a/b/memory.max": "500\n", "a/b/memory.high": "400\n"}, "/", 400),
        (V2, "0::/a/b", {"a/b/memory.max": "500\n", "a/memory.max": "300\n"}, "/", 300),
        (V2, "0::/a/b", {"memory.max": "200\n"}, "/a/b", 200),  # what a container sees
        (V2, "0::/../b", {"memory.max": "200\n"}, "/", 200),  # moved out of its namespace: what can be seen counts
        (V2, "0::/other", {"memory.max": "200\n"}, "/a", None),  # not our group
        (V2, "0::/a", {}, "/", None),
        (V1, "4:memory:/a/b", {"a/b/memory.limit_in_bytes": "9223372036854771712\n", "a/memory.limit_in_bytes": "7\n"}, "/", 7),
        (V1, "4:memory:/a/b", {"a/b/memory.limit_in_bytes": "9223372036854771712\n"}, "/", None),
        ("cgroup cgroup rw,cpu", "4:cpu:/a", {"a/memory.limit_in_bytes": "7\n"}, "/", None),
    ],
)
def test_the_tightest_limit_from_the_own_group_upwards_counts(
    tmp_path: Path, kind: str, own: str, files_: dict[str, str], root: str, allowed: int | None
) -> None:
    assert memory_room.allowed_bytes(groups(tmp_path, kind, own, files_, root)) == allowed


@pytest.mark.parametrize("name", [b"a\xffb", b"a\rb", b"a\x0cb", b"a\xc2\x85b", b"a\xc2\xa0b"])
def test_an_odd_name_of_another_mount_does_not_hide_the_limit(tmp_path: Path, name: bytes) -> None:
    """Any user can make such a mount. The daemon took the whole machine's memory to be its own then, and said nothing."""
    proc = groups(tmp_path, V2, "0::/a", {"a/memory.max": "500\n"})
    table = (proc / "mountinfo").read_bytes()
    (proc / "mountinfo").write_bytes(b"19 1 0:5 / /mnt/" + name + b" rw - tmpfs " + name + b" rw\n" + table)
    assert memory_room.allowed_bytes(proc) == 500


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_room.allowed_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("limit", "available", "is_short"),
    [("max", 900, False), ("max", 100, True), ("max", 125, False), ("5000", 900, True)],
)
def test_a_neighbour_that_lacks_memory_is_no_reason_while_the_machine_has_plenty(
    tmp_path: Path, limit: str, available: int, is_short: bool
) -> None:
    proc = groups(tmp_path, V2, "0::/a", {"a/memory.max": limit})
    (tmp_path / "meminfo").write_text(f"MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable: {available} kB\n")
    assert memory_room.is_short(proc, tmp_path / "meminfo") is is_short


# What the kernel tells


def test_triggers_are_set_on_the_machine_and_on_the_own_group(tmp_path: Path) -> None:
    proc = groups(tmp_path, V2, "0::/a/b", {"a/b/memory.pressure": "", "a/memory.pressure": ""})
    (tmp_path / "machine").write_text("")
    triggers = memory_room.open_triggers(proc, tmp_path / "machine")
    for descriptor in triggers:
        os.close(descriptor)
    assert len(triggers) == 2
    for path in (tmp_path / "machine", tmp_path / "top/a/b/memory.pressure"):
        assert path.read_bytes() == memory_room.TRIGGER
    assert (tmp_path / "top/a/memory.pressure").read_bytes() == b""
    assert memory_room.open_triggers(tmp_path / "nobody", tmp_path / "nothing") == []


def test_the_kernel_takes_the_trigger() -> None:
    if not memory_room.PRESSURE.exists():
        pytest.skip("this kernel does not measure memory pressure")
    for descriptor in memory_room.open_triggers():
        os.close(descriptor)
    descriptor = os.open(memory_room.PRESSURE, os.O_RDWR)
    try:
        assert os.write(descriptor, memory_room.TRIGGER) == len(memory_room.TRIGGER)
    finally:
        os.close(descriptor)


def test_each_urgent_condition_is_told_and_the_descriptors_go_in_the_end() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
            theirs, _ = server.accept()
            descriptor = theirs.detach()
            told = conditions(descriptor)
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    ours.send(b"!", socket.MSG_OOB)  # what poll(2) calls urgent
                    await anext(told)
                    socket.socket(fileno=os.dup(descriptor)).recv(1, socket.MSG_OOB)
                nursery.start_soon(anext, told)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            ours.settimeout(60)
            with suppress(ConnectionResetError):  # closed by the thread that was the last to use it
                assert ours.recv(1) == b""

    trio.run(scenario)


# What is done about it


def test_while_memory_is_short_less_is_kept_and_more_again_when_it_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    options = MountOptions(record_cache_bytes=16 * MIB, metadata_cache_bytes=16 * MIB, dirty_bytes=16 * MIB)
    monkeypatch.setattr(memory_room, "allowed_bytes", lambda: None)
    monkeypatch.setattr(memory_room, "is_short", lambda: is_short)
    relieved, was_relieved = trio.open_memory_channel[None](8)
    monkeypatch.setattr(Memory, "_give_back", lambda self: relieved.send(None))
    clock, is_short = trio.testing.MockClock(), True

    async def scenario() -> None:
        nonlocal is_short
        volume = new_volume()
        committer = Committer(volume, options)
        watched = Memory(volume, committer, options)
        tell, signals = trio.open_memory_channel[None](8)
        ino = new_file(volume)
        for number in range(96):
            volume.records.keep(InodeNo(1000 + number), RecordNo(0), bytes(128 * KIB))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            nursery.start_soon(watched.follow, signals)
            await trio.testing.wait_all_tasks_blocked()
            files.write(volume, ino, 0, b"dirty")
            assert volume.records.clean.total_bytes > 12 * MIB and volume.records.dirty_bytes

            await tell.send(None)
            await was_relieved.receive()
            await trio.testing.wait_all_tasks_blocked()
            assert 3 * MIB < volume.records.clean.total_bytes <= 4 * MIB
            assert volume.records.dirty_bytes == 0 and volume.store.tree.dirty_count == 0
            assert limits(volume.limits) == [4 * MIB, 4 * MIB, 4 * MIB]
            assert files.read(volume, ino, 0, 10) == b"dirty"

            is_short = False
            clock.jump(PAUSE_S)
            await tell.send(None)  # somebody else's
            await trio.testing.wait_all_tasks_blocked()
            assert watched.signal_count == 1
            is_short = True
            clock.jump(PAUSE_S)
            await tell.send(None)
            await was_relieved.receive()
            await trio.testing.wait_all_tasks_blocked()
            assert watched.signal_count == 2 and volume.records.clean.total_bytes <= 1 * MIB

            for wanted in (4 * MIB, 16 * MIB, 16 * MIB):  # a quarter, all, and no more than all
                clock.jump(CALM_S)
                await trio.testing.wait_all_tasks_blocked()
                assert volume.limits.record_cache_bytes == wanted
            assert_memory_adds_up(volume)
            nursery.cancel_scope.cancel()

    trio.run(scenario, clock=clock)


def test_a_remount_while_memory_is_short_does_not_end_the_shortness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_room, "allowed_bytes", lambda: 256 * MIB)
    volume = new_volume()
    watched = Memory(volume, Committer(volume, MountOptions()), MountOptions())
    assert sum(limits(volume.limits)) <= 96 * MIB
    watched._steps = 1
    watched.take(MountOptions(record_cache_bytes=8 * MIB, metadata_cache_bytes=8 * MIB, dirty_bytes=8 * MIB))
    assert volume.limits.record_cache_bytes == 2 * MIB


def test_requests_that_wait_may_hold_as_much_as_may_be_dirty_and_8_mib_at_least() -> None:
    volume, options = new_volume(), MountOptions()
    operations = Operations(volume, Committer(volume, options), Settled(volume, lambda ino: None), options)
    for dirty_mib, held_mib in ((64, 64), (9, 9), (1, 8)):  # also when memory is short, and after a remount
        volume.set_limits(Limits(dirty_bytes=dirty_mib * MIB))
        assert operations.waiting_bytes_max() == held_mib * MIB


def test_dropping_stops_when_others_are_to_be_served() -> None:
    volume = new_volume()
    for number in range(100):
        volume.records.keep(InodeNo(1000 + number), RecordNo(0), bytes(4 * KIB))
    volume.set_limits(Limits(record_cache_bytes=64 * KIB))
    assert volume.records.clean.shrink(10) and len(volume.records.clean) == 90
    assert not volume.records.clean.shrink(1000) and 0 < volume.records.clean.total_bytes <= 64 * KIB
    assert volume.records.is_in_memory(InodeNo(1099), RecordNo(0)), "what was used last stays"


# What is resident

TINY = {"cache": 1, "metadata_cache": 1, "dirty": 4}
SLACK_BYTES = 16 * MIB  # heap between objects, requests under way, buffers of the compressor


def read_records(mounted: Mounted) -> None:
    """Read far more than the cache may hold."""
    data = os.urandom(1 * MIB)
    with (mounted.path / "large").open("wb", buffering=0) as file:
        for _ in range(96):
            file.write(data)
        os.fsync(file.fileno())
    with (mounted.path / "large").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the kernel has it, too
        while file.read(1 * MIB):
            pass


def stat_files(mounted: Mounted) -> None:
    """Look at all that `many_files` has made."""
    for folder in mounted.path.iterdir():
        with os.scandir(folder) as entries:
            assert sum(entry.stat().st_size == 0 for entry in entries) == 200


def many_files(image: Path) -> None:
    """Make more files than the metadata cache may hold; by the engine, which is quicker."""
    with open_volume(open_image(image, writable=True)) as volume:
        for number in range(200):
            folder = namespace.mkdir(volume, ROOT_INODE, b"%d" % number, 0o755, 0, 0)
            for name in range(200):
                namespace.create(volume, folder, b"a file with a rather long name %d" % name, 0o644, 0, 0)
            volume.commit()


def write_slowly_compressed(mounted: Mounted) -> None:
    """Write faster than it can be compressed."""
    data = b" ".join(b"%x" % number for number in random.Random(1).choices(range(5000), k=210_000))[: 1 * MIB]
    with (mounted.path / "text").open("wb", buffering=0) as file:
        for _ in range(48):
            file.write(data)


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "limit_mib", "load", "more", "in_hand_mib"),
    [
        # Filling it takes two rounds of 2 MiB as they are, compressed and padded; reading it eight records at a time, twice.
        ("cache", 24, read_records, "", 8),
        ("metadata_cache", 10, stat_files, "", 0),
        ("dirty", 12, write_slowly_compressed, "compression=zlib:9", 0),
    ],
    ids=["cache", "metadata_cache", "dirty"],
)
def test_what_is_resident_grows_by_the_limit_and_not_by_the_load(
    fuse: None, tmp_path: Path, option: str, limit_mib: int, load: Callable[[Mounted], None], more: str, in_hand_mib: int
) -> None:
    mounted = Mounted(tmp_path, 256 * MIB)
    if load is stat_files:
        many_files(mounted.image)
    words = [f"{name}={limit_mib if name == option else tiny}M" for name, tiny in TINY.items()]
    try:
        mounted.mount(*words, *filter(None, [more]))
        before = figures_of(mounted.path).resident_bytes
        load(mounted)
        grown = figures_of(mounted.path).peak_bytes - before
    finally:
        mounted.take_away()
    most = limit_mib * MIB * 5 // 4 + SLACK_BYTES + in_hand_mib * MIB
    assert limit_mib * MIB // 2 <= grown <= most, f"{grown / MIB:.0f} MiB"


@pytest.mark.mount
@pytest.mark.slow
def test_a_mount_lives_in_a_control_group_with_less_memory_than_its_options_allow(fuse: None, tmp_path: Path) -> None:
    mounted = Mounted(tmp_path, 768 * MIB)
    said: list[str] = []
    try:
        with memory_group(256 * MIB, f"razorfs-test-{os.getpid()}") as group:
            try:
                assert confined(mounted, group, 384 * MIB, (), said.append) == [], said
            finally:
                mounted.take_away()
    except NoGroup as reason:
        pytest.skip(str(reason))
    assert "the control group leaves room for" in mounted.log.read_text()
    assert mounted.complaints == []


def test_a_group_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_made, "_parents", lambda: iter([(2, tmp_path / "nowhere")]))
    with pytest.raises(NoGroup, match="nowhere/group: No such file"), memory_group(1 * MIB, "group"):
        raise AssertionError("there is a group")
    monkeypatch.setattr(groups_made, "_parents", lambda: iter(()))
    with pytest.raises(NoGroup, match="none is mounted"), memory_group(1 * MIB, "group"):
        raise AssertionError("there is a group")


@pytest.mark.parametrize(
    ("version", "name", "text"),
    [
        (2, "memory.events", "low 0\nhigh 7\nmax 5\noom 4\noom_kill 3\noom_group_kill 0\n"),
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
    ],
)
def test_who_was_killed_in_a_group_is_counted(tmp_path: Path, version: int, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / groups_made.NAMES[1][1]).write_text("4096\n")
    group = groups_made.MemoryGroup(tmp_path, version)
    assert group.kill_count == 3
    assert group.peak_bytes == (4096 if version == 1 else 0)
