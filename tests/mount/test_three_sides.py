"""The mount, the engine alone and the host's filesystem are asked the same, thousands of times, and say the same.

What is compared: each answer and errno, what ls shows of the file that a step was about, and now and then everything there is.
Reading a directory in pieces cannot be compared, for each filesystem has an order of its own: there the law is that no name comes
twice and none is missed that was there all the time. For other steps than the usual: --hypothesis-profile=explore.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from razortools.engine.limits import Limits
from razortools.engine.namespace import RENAME_EXCHANGE, RENAME_NOREPLACE
from razortools.units import KIB, MIB
from tests.engine.data_volumes import new_volume
from tests.mount.engine_side import EngineSide
from tests.mount.kernel_side import KernelSide
from tests.mount.mounts import FSCK, Mounted, run
from tests.mount.sidebyside import ISLANDS

pytestmark = pytest.mark.mount

CALLS_PER_RUN_MIN = 5000
CALLS_PER_LOOK = 15
SMALL = Limits(dirty_bytes=1 * MIB, record_cache_bytes=1 * MIB)
HOST_FILE_END = ISLANDS[-1] + 600 * KIB  # ext4 ends a little behind this
LONGEST, TOO_LONG = "n" * 255, "n" * 256
FILE_SLOTS, STREAM_SLOTS = range(4), range(4, 7)

NAMES = ["a", "b", "c", "d"]
BELOW = [f"{one}/{two}" for one in NAMES for two in NAMES]
PATHS = NAMES * 8 + BELOW * 2 + [f"{one}/{two}" for one in BELOW for two in NAMES]
ODD_PATHS = [
    LONGEST, f"a/{LONGEST}", TOO_LONG, f"b/{TOO_LONG}", "", "/", ".", "..", "/a", "/b/c", "a/", "b//", "a/b/", "a/.", "b/..",
    "a/../b", "./" * 2047 + "a", "./" * 2047 + "ab", "\udcff\udcfe", "new\nline",
]  # fmt: skip
ANY_PATH = st.sampled_from(PATHS + ODD_PATHS)
WHICH = st.integers(0, 1000)
OLD = WHICH | WHICH | WHICH | ANY_PATH  # a number: one of the files that there are
NEW = st.tuples(WHICH, st.sampled_from([*NAMES, *NAMES, LONGEST])) | ANY_PATH  # a number: one of the directories
A_FOLDER = st.tuples(WHICH) | st.tuples(WHICH) | st.tuples(WHICH) | ANY_PATH
# With two wrong names at once, kernels before 6.15 judge the second one first.
NOT_TOO_LONG = [path for path in PATHS + ODD_PATHS if TOO_LONG not in path]
A_TARGET = WHICH | WHICH | st.sampled_from(NOT_TOO_LONG) | st.tuples(WHICH, st.sampled_from([*NAMES, LONGEST]))
Choice = str | int | tuple[int, ...] | tuple[int, str]
A_SYMLINK = st.sampled_from([*NAMES, *BELOW, "../a", "..", "/", "/b", "../b/", "x" * 4095, "x" * 4096, ""])
A_MODE = st.sampled_from([0o644, 0o755, 0o777, 0o600, 0o2775, 0o4711, 0o6755, 0o000])
FLAGS = st.sampled_from([
    os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC,
    os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_NOFOLLOW, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, os.O_RDONLY | os.O_DIRECTORY,
    os.O_RDWR | os.O_CREAT | os.O_DSYNC,
])  # fmt: skip
NOISE = random.Random(4).randbytes(131_073)
TEXTS = {"x": b"x", "": b"", "lines": b"line\n" * 900, "zeros": bytes(70_000), "noise": NOISE[:5000], "much noise": NOISE,
         "text": b"zw" * 65_536}  # fmt: skip
A_TEXT = st.sampled_from(list(TEXTS))
AN_OFFSET = st.sampled_from([island + near for near in (0, 1, 4095, 70_000, 131_071, 131_072) for island in ISLANDS])
A_LENGTH = st.sampled_from([0, 1, 4096, 70_000, 140_000])
A_SIZE = st.sampled_from([0, 1, 4096, 5000, 131_072, 131_073, 270_000, ISLANDS[1] + 7, ISLANDS[2], ISLANDS[2] + 131_072])
AN_ATTRIBUTE = st.sampled_from(["user.a", "user.b", "user." + "n" * 250])
A_VALUE = st.sampled_from([b"", b"small", b"large" * 180])
A_JUMP = st.tuples(AN_OFFSET, st.just(os.SEEK_SET)) | st.tuples(
    st.sampled_from([0, -1, 1, 4096, -5000]), st.sampled_from([os.SEEK_CUR, os.SEEK_END, os.SEEK_SET])
)
AN_OWNER = st.sampled_from([0, 1000, 4_000_000_000])
A_TIME = st.integers(0, 1 << 62)


@dataclass
class Stream:
    """A directory that is being read in pieces, on the mount and on the engine."""

    throughout: set[str]  # there since the beginning without interruption
    ever: set[str]  # there at some time since the beginning
    given: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: {"mount": [], "engine": []})

    def check(self, whose: str, *, at_end: bool) -> None:
        """See that no name came twice, none out of nowhere, and none is missing in the end."""
        names = [name for name, _ in self.given[whose]]
        assert len(set(names)) == len(names), f"{whose}: a name came twice: {sorted(names)}"
        assert set(names) <= self.ever | {".", ".."}, f"{whose}: {sorted(set(names) - self.ever)} never was there"
        if at_end:
            assert self.throughout <= set(names), f"{whose}: {sorted(self.throughout - set(names))} did not come"


class ThreeSides(RuleBasedStateMachine):
    """A step is done on all sides."""

    def __init__(
        self,
        mount: KernelSide,
        host: KernelSide,
        engine: EngineSide,
        count_call: Callable[[], None],
        make_kernel_forget: Callable[[], None],
    ) -> None:
        super().__init__()
        self.make_kernel_forget = make_kernel_forget
        self.mount, self.host, self.engine = mount, host, engine
        self.sides = (mount, host, engine)
        self.agree = True
        self.calls_since_look = 0
        self.chains = 0
        self.streams: dict[int, Stream] = {}
        self.count_call = count_call

    def path(self, choice: Choice) -> str:
        """Return the path that a choice means now: a number one that exists, (number, name) a name in a directory that exists."""
        if isinstance(choice, str):
            return choice
        found = self.engine.paths(directories_only=isinstance(choice, tuple))
        if isinstance(choice, int):
            path = found[choice % len(found)]
        else:
            path = "/".join([found[choice[0] % len(found)], *map(str, choice[1:])])
        note(f"path: {path!r}")
        return path

    def alike(self, ask: Callable[[KernelSide | EngineSide], object]) -> object:
        """Ask all sides and return what all of them answer; note which names those who read directories must see."""
        ours, theirs, engines = (ask(side) for side in self.sides)
        self.count_call()
        self.calls_since_look += 1
        for slot, stream in self.streams.items():
            names = set(os.listdir(self.host.slots[slot]))
            stream.throughout &= names
            stream.ever |= names
        self.agree = ours == theirs == engines
        assert self.agree, f"\nmount:  {ours!r:.500}\nhost:   {theirs!r:.500}\nengine: {engines!r:.500}"
        return ours

    def step(self, call: str, *words: object, about: str = "") -> None:
        """Do one call with paths, and look at the file it was *about*."""
        self.alike(lambda side: side.call(call, *words))
        if about:
            self.alike(lambda side: side.call("status", about))

    def on(self, which: int, call: str, *words: object) -> None:
        """Do one call on an open file, and look at it."""
        slots = sorted(self.host.slots)
        slot = slots[which % len(slots)]
        self.alike(lambda side: side.on(slot, call, *words))
        self.alike(lambda side: side.on(slot, "fstat"))

    def a_file_is_open(self) -> bool:
        return bool(self.host.slots)

    def a_directory_is_read(self) -> bool:
        return bool(self.streams)

    @initialize()
    def start_with_a_tree(self) -> None:
        for path in ("a", "b", "a/a", "b/a", "b/a/c"):
            self.mkdir(path, 0o755)
        for path in ("c", "a/b", "a/a/a", "b/a/c/d"):
            self.open(0, path, os.O_CREAT | os.O_RDWR, 0o644)
            self.write(0, "lines")

    # Names

    @rule(path=NEW, mode=A_MODE)
    def mkdir(self, path: Choice, mode: int) -> None:
        path = self.path(path)
        self.step("mkdir", path, mode, about=path)

    @rule(path=OLD)
    def rmdir(self, path: Choice) -> None:
        path = self.path(path)
        self.step("rmdir", path)

    @rule(path=OLD)
    def unlink(self, path: Choice) -> None:
        path = self.path(path)
        self.step("unlink", path, about=path)

    @rule(old=OLD, new=A_TARGET, flags=st.sampled_from([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]))
    def rename(self, old: Choice, new: Choice, flags: int) -> None:
        old, new = self.path(old), self.path(new)
        self.step("rename", old, new, flags, about=new)

    @rule(old=OLD, new=NEW)
    def link(self, old: Choice, new: Choice) -> None:
        old, new = self.path(old), self.path(new)
        self.step("link", old, new, about=new)

    @rule(leads_to=A_SYMLINK, path=NEW)
    def symlink(self, leads_to: str, path: Choice) -> None:
        path = self.path(path)
        self.step("symlink", leads_to, path, about=path)

    @rule(path=OLD)
    def readlink(self, path: Choice) -> None:
        path = self.path(path)
        self.step("readlink", path)

    @precondition(lambda self: self.chains < 2)
    @rule(levels=st.sampled_from([15, 14, 1]))
    def paths_as_long_as_can_be(self, levels: int) -> None:
        """Directories below one another, up to a path of 4095 bytes, and gone again."""
        self.chains += 1
        chain = [("m" * 255 + "/") * level for level in range(1, levels + 1)]
        for path in chain:
            self.step("mkdir", path, 0o755)
        room = 4095 - len(chain[-1])
        for length in (min(room, 255), min(room, 255) + 1):
            self.step("symlink", "x", chain[-1] + "f" * length, about=chain[-1] + "f" * length)
        self.step("unlink", chain[-1] + "f" * min(room, 255))
        for path in reversed(chain):
            self.step("rmdir", path)

    # Attributes

    @rule(path=OLD, mode=A_MODE)
    def chmod(self, path: Choice, mode: int) -> None:
        path = self.path(path)
        self.step("chmod", path, mode, about=path)

    @rule(path=OLD, uid=AN_OWNER, gid=AN_OWNER, call=st.sampled_from(["chown", "lchown"]))
    def chown(self, path: Choice, uid: int, gid: int, call: str) -> None:
        path = self.path(path)
        self.step(call, path, uid, gid, about=path)

    @rule(path=OLD, atime_ns=A_TIME, mtime_ns=A_TIME)
    def utimens(self, path: Choice, atime_ns: int, mtime_ns: int) -> None:
        path = self.path(path)
        self.step("set_times", path, atime_ns, mtime_ns)

    @rule(path=OLD, size=A_SIZE)
    def truncate(self, path: Choice, size: int) -> None:
        path = self.path(path)
        self.step("truncate", path, size, about=path)

    @rule(path=OLD, name=AN_ATTRIBUTE, value=A_VALUE, flags=st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE]))
    def setxattr(self, path: Choice, name: str, value: bytes, flags: int) -> None:
        path = self.path(path)
        for _ in range(2):  # the second time it is there, if it can be
            self.step("setxattr", path, name, value, flags)
        self.step("getxattr", path, name)
        self.step("listxattr", path)

    @rule(path=OLD, name=AN_ATTRIBUTE)
    def removexattr(self, path: Choice, name: str) -> None:
        path = self.path(path)
        self.step("removexattr", path, name)
        self.step("listxattr", path)

    # Open files

    @rule(slot=st.sampled_from(FILE_SLOTS), path=OLD | NEW, flags=FLAGS, mode=A_MODE)
    def open(self, slot: int, path: Choice, flags: int, mode: int) -> None:
        path = self.path(path)
        self.close(slot)
        self.alike(lambda side: side.open(slot, path, flags, mode))
        self.step("status", path)

    def close(self, slot: int) -> None:
        if slot in self.host.slots:
            for side in self.sides:
                side.close(slot)
        self.streams.pop(slot, None)

    @rule(slot=st.sampled_from(FILE_SLOTS), path=OLD | NEW, mode=A_MODE)
    def open_and_unlink(self, slot: int, path: Choice, mode: int) -> None:
        """A file that lives on by its descriptor only."""
        path = self.path(path)
        self.open(slot, path, os.O_CREAT | os.O_RDWR, mode)
        self.unlink(path)

    @precondition(a_file_is_open)
    @rule(which=WHICH)
    def close_one(self, which: int) -> None:
        slots = sorted(self.host.slots)
        self.close(slots[which % len(slots)])

    @precondition(a_file_is_open)
    @rule(which=WHICH, text=A_TEXT)
    def write(self, which: int, text: str) -> None:
        if self.is_below_the_hosts_end(which):
            self.on(which, "write", TEXTS[text])

    @precondition(a_file_is_open)
    @rule(which=WHICH, text=A_TEXT, offset=AN_OFFSET)
    def pwrite(self, which: int, text: str, offset: int) -> None:
        if self.is_below_the_hosts_end(which):
            self.on(which, "pwrite", TEXTS[text], offset)

    def is_below_the_hosts_end(self, which: int) -> bool:
        """Whether the host's file can take more where appending or the position would put it."""
        slots = sorted(self.host.slots)
        descriptor = self.host.slots[slots[which % len(slots)]]
        return max(os.fstat(descriptor).st_size, os.lseek(descriptor, 0, os.SEEK_CUR)) < HOST_FILE_END

    @precondition(a_file_is_open)
    @rule(which=WHICH, length=A_LENGTH)
    def read(self, which: int, length: int) -> None:
        self.on(which, "read", length)

    @precondition(a_file_is_open)
    @rule(which=WHICH, length=A_LENGTH, offset=AN_OFFSET)
    def pread(self, which: int, length: int, offset: int) -> None:
        self.on(which, "pread", length, offset)

    @precondition(a_file_is_open)
    @rule(which=WHICH, jump=A_JUMP)
    def lseek(self, which: int, jump: tuple[int, int]) -> None:
        slots = sorted(self.host.slots)
        if not os.path.isdir(self.host.slots[slots[which % len(slots)]]):  # positions in directories are the filesystem's own
            self.on(which, "lseek", *jump)

    @precondition(a_file_is_open)
    @rule(which=WHICH, size=A_SIZE)
    def ftruncate(self, which: int, size: int) -> None:
        self.on(which, "ftruncate", size)

    @precondition(a_file_is_open)
    @rule(which=WHICH, mode=A_MODE)
    def fchmod(self, which: int, mode: int) -> None:
        self.on(which, "fchmod", mode)

    @precondition(a_file_is_open)
    @rule(which=WHICH)
    def fsync(self, which: int) -> None:
        self.on(which, "fsync")

    # Directories read in pieces while they change

    @rule(path=A_FOLDER, kind=st.sampled_from("fg"), count=st.integers(1, 40))
    def fill(self, path: Choice, kind: str, count: int) -> None:
        path = self.path(path)
        for number in range(count):
            self.alike(lambda side, name=f"{path}/{kind}{number:02}": side.call("symlink", "x", name))

    @rule(path=A_FOLDER, kind=st.sampled_from("fg"), first=st.integers(0, 5), every=st.integers(1, 5))
    def thin_out(self, path: Choice, kind: str, first: int, every: int) -> None:
        path = self.path(path)
        for number in range(first, 40, every):
            self.alike(lambda side, name=f"{path}/{kind}{number:02}": side.call("unlink", name))

    @rule(slot=st.sampled_from(STREAM_SLOTS), path=A_FOLDER)
    def begin_to_list(self, slot: int, path: Choice) -> None:
        path = self.path(path)
        self.close(slot)
        if self.alike(lambda side: side.open(slot, path, os.O_RDONLY | os.O_DIRECTORY)) == "opened":
            names = set(os.listdir(self.host.slots[slot]))
            self.streams[slot] = Stream(set(names), set(names))

    @precondition(a_directory_is_read)
    @rule(which=WHICH, room_bytes=st.sampled_from([300, 300, 600, 2000]))
    def list_on(self, which: int, room_bytes: int) -> None:
        slot, _ = self.stream(which)
        for whose, side in (("mount", self.mount), ("engine", self.engine)):
            self.list_some(whose, side, slot, room_bytes)

    def list_some(self, whose: str, side: KernelSide | EngineSide, slot: int, room_bytes: int) -> bool:
        """Read a piece and judge what has come so far; return whether that was all."""
        found = side.entries(slot, room_bytes)
        assert isinstance(found, list), f"{whose}: {found}"
        self.streams[slot].given[whose] += found
        self.streams[slot].check(whose, at_end=not found)
        return not found

    @precondition(a_directory_is_read)
    @rule(which=WHICH)
    def list_to_the_end(self, which: int) -> None:
        slot, _ = self.stream(which)
        for whose, side in (("mount", self.mount), ("engine", self.engine)):
            at_end = False
            while not at_end:
                at_end = self.list_some(whose, side, slot, 500)

    @precondition(a_directory_is_read)
    @rule(which=WHICH, where=WHICH)
    def seek_back(self, which: int, where: int) -> None:
        """Go back to where some entry had been given, as seekdir does with what telldir said."""
        slot, stream = self.stream(which)
        for whose, side in (("mount", self.mount), ("engine", self.engine)):
            given = stream.given[whose]
            del given[where % (len(given) + 1) :]
            side.seek(slot, given[-1][1] if given else 0)

    def stream(self, which: int) -> tuple[int, Stream]:
        slots = sorted(self.streams)
        slot = slots[which % len(slots)]
        return slot, self.streams[slot]

    # Everything

    @precondition(lambda self: self.calls_since_look > CALLS_PER_LOOK)
    @rule()
    def look(self) -> None:
        self.calls_since_look = 0
        self.alike(lambda side: side.call("picture"))

    @rule(path=A_FOLDER)
    def listdir(self, path: Choice) -> None:
        path = self.path(path)
        self.step("listdir", path)

    @rule(path=A_FOLDER)
    def the_kernel_forgets_and_lists(self, path: Choice) -> None:
        """What is opened after this, the kernel knows from a listing, if from anywhere."""
        path = self.path(path)
        self.make_kernel_forget()
        self.step("listdir", path)

    @rule()
    def statvfs(self) -> None:
        for side in (self.mount, self.engine):
            figures = side.statvfs()
            if isinstance(side, KernelSide):
                assert figures.f_frsize == figures.f_bsize == 4096 and figures.f_namemax == 255
                assert 0 < figures.f_bavail <= figures.f_bfree < figures.f_blocks < (64 * MIB) // 4096
                assert 0 < figures.f_favail <= figures.f_ffree < figures.f_files
            else:
                held = {file.ino for file in side.slots.values()}
                nameless = sum(side.volume.inodes.get(ino).link_count == 0 for ino in held)
                assert figures.inode_count == nameless + side.inode_count()
                assert 0 < figures.available_blocks <= figures.free_blocks < figures.block_count

    @rule(what=st.sampled_from(["commit", "checkpoint", "forget"]))
    def upkeep_of_the_engine(self, what: str) -> None:
        """What a mount's timers and memory do by themselves."""
        volume = self.engine.volume
        if what == "forget":
            volume.inodes.forget_copies()
            volume.names.forget_all()
        else:
            getattr(volume, what)()

    def teardown(self) -> None:
        try:
            if self.agree:
                self.look()
        finally:
            for side in self.sides:
                side.leave()
            for side in (self.mount, self.host):
                shutil.rmtree(side.folder)


@dataclass
class Run:
    """One run of the machine: where its examples work, and how many steps they took."""

    mounted: Mounted
    host: Path
    call_count: int = 0
    example_count: int = 0

    def __call__(self) -> ThreeSides:
        """Return a machine for one example, with empty sides."""
        self.example_count += 1
        folders = [home / str(self.example_count) for home in (self.mounted.path, self.host)]
        for folder in folders:
            folder.mkdir()
        umask = os.umask(0o022)
        os.umask(umask)
        engine = EngineSide(new_volume(limits=SMALL), umask)
        return ThreeSides(*map(KernelSide, folders), engine, self._count, self.mounted.make_kernel_forget)

    def _count(self) -> None:
        self.call_count += 1


@pytest.fixture
def busy(unmounted: Mounted) -> Iterator[Mounted]:
    """A mount that commits, checkpoints and flushes all the time."""
    yield unmounted.mount("commit=0.05", "checkpoint=0.3", "dirty=2M", "cache=2M")
    unmounted.umount()
    done = run(FSCK, "-n", unmounted.image)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)  # a failure is made short first, which may take five minutes
@pytest.mark.parametrize("number", [1])
def test_the_mount_the_engine_and_the_host_say_the_same(busy: Mounted, tmp_path: Path, number: int) -> None:
    host = tmp_path / "host"
    host.mkdir()
    machines = Run(busy, host)
    profile = settings.get_current_profile_name()
    many_steps = settings(
        max_examples=20 if profile == "repeatable" else settings.get_profile(profile).max_examples,
        stateful_step_count=250,
        suppress_health_check=list(HealthCheck),
    )
    factory = seed(number)(machines) if profile == "repeatable" else machines
    run_state_machine_as_test(factory, settings=many_steps)
    print(f"{machines.call_count} calls compared in {machines.example_count} examples, seed {number}")
    assert machines.call_count >= CALLS_PER_RUN_MIN
