"""Operations that do not wait for the device: what they lack is fetched outside, then they run again, and nobody can tell."""

import random
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.check import runner
from razortools.engine import attributes, directories, files, namespace, xattrs
from razortools.engine.limits import Limits
from razortools.engine.namespace import AtimePolicy, AttributeChange
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.residence import NotResident
from razortools.engine.stored import unpacking_threads
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, PosixError
from razortools.format.compression import Algorithm, Policy
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB, InodeNo
from tests.cold import ColdDisk, Tried, drive, forget, forget_all
from tests.engine.data_volumes import assert_memory_adds_up, data_records
from tests.engine.tree_rules import check_rules
from tests.engine.volumes import Clock, clock_of
from tests.workload import everything, formatted

IMAGE_BYTES = 8 * MIB  # small nodes: some two hundred files make a tree of three levels
FOLDERS, FILES = 4, 40
LIMITS = Limits(record_cache_bytes=64 * KIB, dirty_bytes=256 * KIB)
NAMES = [b"name %d " % number + b"x" * 40 for number in range(FILES + 5)]
Work = Callable[[Volume], object]


@cache
def populated() -> MemoryDevice:
    device = MemoryDevice(IMAGE_BYTES)
    formatted(device, record_bytes=8 * KIB)
    volume = open_volume(device, clock=Clock())
    content = random.Random(1)
    for folder in range(FOLDERS):
        parent = namespace.mkdir(volume, ROOT_INODE, NAMES[folder], 0o755, 0, 0)
        for number in range(FILES):
            ino = namespace.create(volume, parent, NAMES[number], 0o644, 0, 0)
            files.write(volume, ino, 0, content.randbytes(content.choice([0, 100, 3000, 20_000])))
            if number % 9 == 0:
                xattrs.set(volume, ino, b"user.large", content.randbytes(6000))
    volume.close()
    return device


def opened(device: MemoryDevice, limits: Limits = LIMITS) -> Volume:
    volume = open_volume(device, clock=Clock(), limits=limits)
    volume.default_policy = Policy(Algorithm.ZSTD, 1)
    return volume


def inode_numbers() -> st.SearchStrategy[InodeNo]:
    return st.integers(1, FOLDERS * (FILES + 1) + 12).map(InodeNo)


def folders() -> st.SearchStrategy[InodeNo]:
    first = ROOT_INODE + 1
    return st.sampled_from([ROOT_INODE, *(InodeNo(first + number * (FILES + 1)) for number in range(FOLDERS))])


def works() -> st.SearchStrategy[Work]:
    """One request of any kind, often about something that exists."""
    names, offsets = st.sampled_from(NAMES), st.integers(0, 40_000)
    modes, targets = st.integers(0, 0o777), st.sampled_from([b"t", b"u" * 4000])
    sizes = st.sampled_from([1, 900, 9000, 30_000])
    data = st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 99), sizes)
    return st.one_of(
        st.builds(lambda d, n: lambda v: namespace.create(v, d, n, 0o644, 1, 2), folders(), names),
        st.builds(lambda d, n: lambda v: namespace.mkdir(v, d, n, 0o755, 1, 2), folders(), names),
        st.builds(lambda d, n, t: lambda v: namespace.symlink(v, d, n, t, 1, 2), folders(), names, targets),
        st.builds(lambda i, d, n: lambda v: namespace.link(v, i, d, n), inode_numbers(), folders(), names),
        st.builds(lambda d, n: lambda v: namespace.unlink(v, d, n), folders(), names),
        st.builds(lambda d, n: lambda v: namespace.unlink(v, d, n), folders(), names),
        st.builds(lambda d, n: lambda v: namespace.rmdir(v, d, n), folders(), names),
        st.builds(
            lambda d, n, e, m, f: lambda v: namespace.rename(v, d, n, e, m, f),
            folders(), names, folders(), names, st.sampled_from([0, 0, 1, 2]),
        ),
        st.builds(lambda i, m: lambda v: bool(namespace.setattr(v, i, AttributeChange(mode=m))), inode_numbers(), modes),
        st.builds(lambda i, s: lambda v: files.truncate(v, i, s), inode_numbers(), offsets),
        st.builds(lambda i, o, b: lambda v: files.write(v, i, o, b), inode_numbers(), offsets, data),
        st.builds(lambda i, o: lambda v: files.read(v, i, o, 20_000), inode_numbers(), offsets),
        st.builds(lambda i: lambda v: namespace.touch_atime(v, i, AtimePolicy.RELATIVE), inode_numbers()),
        st.builds(lambda i: lambda v: namespace.readlink(v, i), inode_numbers()),
        st.builds(lambda i: lambda v: [name for _, name, _ in directories.entries(v, i)], folders()),
        st.builds(lambda i: lambda v: directories.paths(v, i), inode_numbers()),
        st.builds(lambda i, b: lambda v: xattrs.set(v, i, b"user.large", b), inode_numbers(), data),
        st.builds(lambda i: lambda v: xattrs.get(v, i, b"user.large"), inode_numbers()),
        st.builds(lambda i: lambda v: xattrs.remove(v, i, b"user.large"), inode_numbers()),
    )  # fmt: skip


def outcome(work: Callable[[], object]) -> object:
    """Return what *work* returns, or the number of the error that refuses it."""
    try:
        return work()
    except PosixError as refused:
        return ("refused", refused.mount_errno)


def side_by_side(requests: list[Work], seed: int, share: float) -> Tried:
    """Do *requests* on a volume that waits and on one that forgets and does not wait; they must not differ."""
    chance, tried = random.Random(seed), Tried()
    patient = opened(populated().copy())
    cold = opened(ColdDisk.holding(populated()))
    for number, request in enumerate(requests):
        for volume in (patient, cold):
            clock_of(volume).now += 1000
            if number % 7 == 6:
                volume.commit()
        forget(cold, chance, share)
        expected = outcome(lambda: request(patient))  # noqa: B023
        assert outcome(lambda: drive(cold, tried, request, cold)) == expected  # noqa: B023
    assert everything(cold) == everything(patient)
    assert_memory_adds_up(cold)
    check_rules(cold)
    cold.close()
    assert not runner.check_quietly(cold.store.device).findings
    return tried


@settings(max_examples=40)
@given(requests=st.lists(works(), min_size=15, max_size=40), seed=st.integers(0, 1 << 32), share=st.sampled_from([0.2, 0.6, 1.0]))
def test_a_volume_that_forgets_and_does_not_wait_equals_one_that_waits(requests: list[Work], seed: int, share: float) -> None:
    side_by_side(requests, seed, share)


def test_an_operation_that_meets_a_cold_node_late_is_taken_back_and_run_again() -> None:
    cold = opened(ColdDisk.holding(populated()))
    parent = namespace.lookup(cold, ROOT_INODE, NAMES[1])
    ino = namespace.lookup(cold, parent, NAMES[3])
    cold.inodes.get(ino)
    inodes, names = cold.inodes.forget_copies, cold.names.forget_all
    cold.inodes.forget_copies = cold.names.forget_all = lambda: None  # type: ignore[method-assign]
    forget_all(cold)  # nodes only: what is known of inodes and names lets the operation get far
    cold.inodes.forget_copies, cold.names.forget_all = inodes, names  # type: ignore[method-assign]
    tried = Tried()
    drive(cold, tried, namespace.unlink, cold, parent, NAMES[3])
    assert tried.taken_back > 0
    with pytest.raises(PosixError):
        namespace.lookup(cold, parent, NAMES[3])
    check_rules(cold)


def stored_file(limits: Limits = LIMITS, record_count: int = 5) -> tuple[Volume, InodeNo, bytes]:
    """Return (volume on a cold disk, a file of 8 KiB records that do not shrink, its contents)."""
    volume = opened(ColdDisk.holding(populated()), limits)
    data = random.Random(4).randbytes(record_count * 8 * KIB)
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, data)
    volume.checkpoint()
    forget_all(volume)
    return volume, ino, data


def test_all_that_a_read_lacks_is_told_at_once() -> None:
    volume, ino, data = stored_file()
    tried = Tried()
    drive(volume, tried, volume.inodes.get, ino)
    drive(volume, tried, volume.records.find_item, ino, 0)
    with pytest.raises(NotResident) as told:
        volume.store.residence.attempt({}, files.read, volume, ino, 100, len(data))
    assert len(told.value.missing) == 5
    before = tried.rounds
    assert drive(volume, tried, files.read, volume, ino, 100, len(data)) == data[100:]
    assert tried.rounds == before + 1


def test_a_read_larger_than_the_cache_needs_no_more_rounds() -> None:
    volume, ino, data = stored_file(Limits(record_cache_bytes=9 * KIB))
    tried = Tried()
    assert drive(volume, tried, files.read, volume, ino, 0, len(data)) == data
    assert tried.rounds <= volume.store.tree.height() + 2
    assert_memory_adds_up(volume)


def test_what_the_host_holds_is_read_at_once_if_that_is_little_work() -> None:
    device = populated().copy()
    volume = opened(device)
    parent = namespace.lookup(volume, ROOT_INODE, NAMES[1])
    numbers = [InodeNo(entry.inode) for _, _, entry in directories.entries(volume, parent)]
    wanted = [files.read(volume, ino, 0, 100_000) for ino in numbers]
    assert any(wanted)
    forget_all(volume)
    asked: list[int] = []  # of the host, for what it holds
    read_cached = device.read_cached

    def noted(offset: int, length: int) -> bytes | None:
        asked.append(offset)
        return read_cached(offset, length)

    device.read_cached = noted  # type: ignore[method-assign]
    assert [volume.store.residence.attempt({}, files.read, volume, ino, 0, 100_000) for ino in numbers] == wanted
    assert asked and volume.store.residence.late_count == 0


def test_much_work_goes_to_a_thread_even_if_the_host_holds_it() -> None:
    volume = opened(with_large_records())
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, random.Random(4).randbytes(128 * KIB))
    volume.commit()
    volume.records.forget_all()
    with pytest.raises(NotResident):
        volume.store.residence.attempt({}, files.read, volume, ino, 0, 10)


def with_large_records() -> MemoryDevice:
    device = MemoryDevice(IMAGE_BYTES)
    formatted(device)
    return device


def missing_record(volume: Volume, ino: InodeNo) -> NotResident:
    """Return what a read of the file's first record lacks when all nodes are there."""
    volume.records.find_item(ino, 0)  # type: ignore[arg-type]
    volume.inodes.get(ino)
    with pytest.raises(NotResident) as told:
        volume.store.residence.attempt({}, files.read, volume, ino, 0, 100)
    return told.value


def test_a_fetch_that_was_overtaken_fails_nobody() -> None:
    """Its blocks were freed, checkpointed and written anew before it read them: it finds other data there."""
    volume, ino, _ = stored_file()
    (missing,) = missing_record(volume, ino).missing
    (run,) = data_records(volume, ino)[0].runs(4096)
    files.write(volume, ino, 0, b"new" * 2000)
    volume.checkpoint()
    volume.store.device.write(run[0] * 4096, b"somebody else's data")
    with pytest.raises(CorruptImage) as failed:
        missing.fetch()
    volume.records.forget_all()
    handed = {missing.key: failed.value}
    with pytest.raises(NotResident) as told:
        volume.store.residence.attempt(handed, files.read, volume, ino, 0, 9)
    (other,) = told.value.missing
    assert other.key != missing.key
    handed[other.key] = other.fetch()  # type: ignore[assignment]
    assert volume.store.residence.attempt(handed, files.read, volume, ino, 0, 9) == b"newnewnew"


def test_what_arrives_late_is_not_taken_for_what_is_there_now() -> None:
    volume, ino, data = stored_file()
    (missing,) = missing_record(volume, ino).missing
    found = missing.fetch()
    assert found == data[: 8 * KIB]
    files.write(volume, ino, 0, b"new" * 2000)
    assert volume.store.residence.attempt({missing.key: found}, files.read, volume, ino, 0, 9) == b"newnewnew"
    volume.checkpoint()
    forget_all(volume)
    assert drive(volume, Tried(), files.read, volume, ino, 0, 9) == b"newnewnew"


def test_damage_is_told_to_who_needs_it_with_its_place() -> None:
    volume, ino, data = stored_file()
    (run,) = data_records(volume, ino)[1].runs(4096)[:1]
    volume.store.device.write(run[0] * 4096, b"damaged")
    with pytest.raises(CorruptImage, match=f"inode {ino}, record 1 "):
        drive(volume, Tried(), files.read, volume, ino, 0, len(data))
    assert drive(volume, Tried(), files.read, volume, ino, 0, 100) == data[:100]


def test_a_write_into_a_cold_record_waits_for_it_before_it_changes_anything() -> None:
    volume, ino, data = stored_file()
    tried = Tried()
    drive(volume, tried, files.write, volume, ino, 10, b"here")
    assert tried.rounds > 0
    assert files.read(volume, ino, 0, 20) == data[:10] + b"here" + data[14:20]


def test_a_record_grows_while_a_read_of_it_and_its_neighbours_waits() -> None:
    """Seen by the exerciser of contents: a waiting read kept a view of a dirty record, and a write into it failed half-way."""
    volume, ino, data = stored_file()
    files.truncate(volume, ino, 100)
    files.write(volume, ino, 8 * KIB, data[8 * KIB :])
    volume.checkpoint()
    forget_all(volume)
    files.write(volume, ino, 60, b"dirty")  # of the first record, 100 bytes long; the others stay on the disk
    with pytest.raises(NotResident) as waiting:
        volume.store.residence.attempt({}, files.read, volume, ino, 0, len(data))
    files.write(volume, ino, 200, b"longer than it was")
    assert waiting.value.missing
    found = files.read(volume, ino, 0, 250)
    assert found == data[:60] + b"dirty" + data[65:100] + bytes(100) + b"longer than it was" + bytes(32)


def test_what_the_kernel_forgets_is_not_read_for_it() -> None:
    disk = ColdDisk.holding(populated())
    volume = opened(disk)
    parent = namespace.lookup(volume, ROOT_INODE, NAMES[1])
    numbers = [InodeNo(entry.inode) for _, _, entry in directories.entries(volume, parent)]
    for ino in numbers:
        namespace.hold(volume, ino)
    forget_all(volume)
    namespace.hold(volume, numbers[0])
    namespace.release(volume, numbers[0], 2)  # reads the table of orphans
    before = volume.store.nodes.misses
    for ino in numbers[1:]:
        namespace.release(volume, ino)
    assert volume.store.nodes.misses == before


def test_readers_of_many_files_keep_the_limit_of_the_metadata_cache() -> None:
    device = MemoryDevice(64 * MIB)
    formatted(device)
    with open_volume(device, clock=Clock()) as volume:
        for folder in range(20):
            parent = namespace.mkdir(volume, ROOT_INODE, b"%d" % folder, 0o755, 0, 0)
            for number in range(1000):
                namespace.create(volume, parent, b"name %d of %d" % (number, folder), 0o644, 0, 0)
    volume = open_volume(device, limits=Limits(metadata_cache_bytes=1 * MIB), read_only=True)
    limit = 1 * MIB + 4 * 64 * KIB  # a look-up touches four leaves at most; the largest node of a kind counts 64 KiB
    chance, most = random.Random(3), 0
    folders = [namespace.lookup(volume, ROOT_INODE, b"%d" % number) for number in range(20)]
    for _ in range(20_000):
        folder, number = chance.randrange(20), chance.randrange(1000)
        volume.inodes.get(namespace.lookup(volume, folders[folder], b"name %d of %d" % (number, folder)))
        most = max(most, volume.store.nodes.cached_bytes)
    for folder_no in folders:
        for _, _, entry in directories.entries(volume, folder_no):
            volume.inodes.get(InodeNo(entry.inode))
            most = max(most, volume.store.nodes.cached_bytes)
    assert volume.store.nodes.misses > 500
    assert most <= limit


def test_an_access_time_is_no_reason_to_read_again() -> None:
    volume, ino, data = stored_file()

    def read() -> bytes:
        found = files.read(volume, ino, 0, 100)
        attributes.touch_atime(volume, ino, AtimePolicy.ALWAYS)
        return found

    clock_of(volume).now += 5
    assert drive(volume, Tried(), read) == data[:100]
    assert volume.inodes.get(ino).atime_ns == clock_of(volume).now


@pytest.mark.parametrize(("processors", "count"), [(1, 1), (2, 2), (3, 2), (8, 7)])
def test_both_of_two_processors_decompress_and_one_of_several_is_left_to_requests(processors: int, count: int) -> None:
    assert unpacking_threads(processors) == count
