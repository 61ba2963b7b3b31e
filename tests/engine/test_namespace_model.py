"""The engine's namespace does what a plain model of POSIX does: results, refusals and attributes agree, across crashes too."""

import copy
import stat
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from razortools.debug.crashtest.reference import File, Model, Refused
from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.create import create, plan_create
from razortools.engine.namespace import RENAME_EXCHANGE, RENAME_NOREPLACE, AttributeChange
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import PosixError
from razortools.format.compression import parse_policy
from razortools.format.keys import HASH_MIN
from razortools.units import KIB, MIB
from tests.engine.tree_rules import check_rules

IMAGE_BYTES = 8 * MIB  # small nodes, so that the tree gets some height
COMPRESSION = xattrs.COMPRESSION

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"\xff\xfe", b"n" * 255])
ODD_NAMES = st.sampled_from([b"", b".", b"..", b"a/b", b"a\0", b"n" * 256])
ANY_NAMES = NAMES | NAMES | NAMES | NAMES | ODD_NAMES
WHICH = st.sampled_from(range(1000))  # evenly: plain integers would mean the root most of the time
MODES = st.sampled_from([0o644, 0o755, 0o1700, 0o2775, 0o6755, 0o6744])
CHOICES = st.tuples(WHICH, ANY_NAMES)
OWNERS = st.sampled_from([0, 1000, 4_000_000_000])
VALUES = st.sampled_from([b"", b"small", b"v" * 300, b"w" * 3000, bytes(range(256)) * 256, b"x" * 65537])
XATTR_NAMES = st.sampled_from([b"user.a", b"user.b", b"trusted.c", b"user." + b"n" * 250, b"odd.d", b"", b"user." + b"n" * 251])
TARGETS = st.sampled_from([b"target", b"/" * 600, b"t" * 4095, b""])
TIMES = st.integers(-(1 << 62), 1 << 62)


class Namespace(RuleBasedStateMachine):
    """Both sides do each step; what they answer and what they look like afterwards must agree."""

    hash_mask = (1 << 64) - 1

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.device = MemoryDevice(IMAGE_BYTES)
        create(self.device, plan_create(IMAGE_BYTES, hash_seed=bytes(16), made_at_ns=self.now))
        self.volume = self.open(self.device)
        self.model = Model(self.now)
        self.saved = copy.deepcopy(self.model)

    def open(self, device: MemoryDevice | OverlayDevice) -> Volume:
        volume = open_volume(device, clock=lambda: self.now)
        names = volume.names
        true_hash = names.hash
        if self.hash_mask.bit_length() < 64:
            names.hash = lambda name: HASH_MIN + (true_hash(name) & self.hash_mask)  # type: ignore[method-assign]
        return volume

    def both(self, ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[object, object]:
        """Let both sides do a step; return both results, which are None if both refused it for the same reason."""
        self.now += 1000
        self.model.now = self.now
        try:
            expected: object = theirs()
        except Refused as refused:
            try:
                ours()
            except PosixError as error:
                assert error.mount_errno == refused.errno, f"{error!r} ({error.mount_errno}) instead of {refused}"
                return None, None
            raise AssertionError(f"done, but expected {refused}") from refused
        return ours(), expected

    def directory(self, which: int) -> File:
        found = self.model.directories()
        return found[which % len(found)]

    def file(self, which: int) -> File:
        found = self.model.files()
        return found[which % len(found)]

    def parent(self, which: int) -> File:
        """Return a directory, now and then something that is none."""
        return self.file(which) if which % 13 == 0 else self.directory(which)

    def old_name(self, choice: tuple[int, bytes]) -> tuple[File, bytes]:
        """Return (directory, name): mostly one that exists."""
        which, name = choice
        names = [(directory, old) for directory in self.model.directories() for old in directory.entries]
        if which % 5 == 0 or not names:
            return self.parent(which // 5), name
        return names[which // 5 % len(names)]

    def keep_number(self, made: tuple[object, object]) -> None:
        number, file = made
        if isinstance(file, File) and isinstance(number, int):
            file.number = number

    @initialize()
    def start_with_a_tree(self) -> None:
        """/a/a, /a/b/a, /b/a and a file in each directory."""
        for number, name in enumerate((b"a", b"b", b"a", b"b", b"a")):
            self.mkdir((0, 0, 1, 1, 4)[number], name, 0o755, 0, 0)
        for number in range(len(self.model.directories())):
            self.create(number, b"f", 0o644, 0, 0)
            self.write(len(self.model.files()) - 1, 5000 * (number % 2), b"line\n" * 900)

    @rule(which=WHICH, name=ANY_NAMES, mode=MODES, uid=OWNERS, gid=OWNERS)
    def create(self, which: int, name: bytes, mode: int, uid: int, gid: int) -> None:
        self.do_create(self.parent(which), name, mode, uid, gid)

    def do_create(self, parent: File, name: bytes, mode: int, uid: int, gid: int) -> None:
        self.keep_number(
            self.both(
                lambda: namespace.create(self.volume, parent.number, name, mode, uid, gid),
                lambda: self.model.make(parent, name, stat.S_IFREG | mode, uid, gid),
            )
        )

    @rule(which=WHICH, name=ANY_NAMES, mode=MODES, uid=OWNERS, gid=OWNERS)
    def mkdir(self, which: int, name: bytes, mode: int, uid: int, gid: int) -> None:
        parent = self.parent(which)
        self.keep_number(
            self.both(
                lambda: namespace.mkdir(self.volume, parent.number, name, mode, uid, gid),
                lambda: self.model.make(parent, name, stat.S_IFDIR | mode, uid, gid),
            )
        )

    @rule(which=WHICH, name=NAMES, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]), rdev=OWNERS)
    def mknod(self, which: int, name: bytes, kind: int, rdev: int) -> None:
        parent = self.parent(which)
        self.keep_number(
            self.both(
                lambda: namespace.mknod(self.volume, parent.number, name, kind | 0o600, rdev, 1, 2),
                lambda: self.model.make(parent, name, kind | 0o600, 1, 2, rdev),
            )
        )

    @rule(which=WHICH, name=ANY_NAMES, leads_to=TARGETS)
    def symlink(self, which: int, name: bytes, leads_to: bytes) -> None:
        parent = self.parent(which)
        self.keep_number(
            self.both(
                lambda: namespace.symlink(self.volume, parent.number, name, leads_to, 1, 2),
                lambda: self.model.make(parent, name, stat.S_IFLNK | 0o777, 1, 2, target=leads_to),
            )
        )

    @rule(which=WHICH, name=ANY_NAMES)
    def lookup(self, which: int, name: bytes) -> None:
        parent = self.parent(which)
        ours, theirs = self.both(
            lambda: namespace.lookup(self.volume, parent.number, name), lambda: self.model.lookup(parent, name)
        )
        assert ours == (theirs.number if isinstance(theirs, File) else None)

    @rule(which=WHICH, where=WHICH, name=ANY_NAMES)
    def link(self, which: int, where: int, name: bytes) -> None:
        file, parent = self.file(which), self.parent(where)
        self.both(
            lambda: namespace.link(self.volume, file.number, parent.number, name), lambda: self.model.link(file, parent, name)
        )

    @rule(choice=CHOICES)
    def unlink(self, choice: tuple[int, bytes]) -> None:
        self.do_unlink(*self.old_name(choice))

    def do_unlink(self, parent: File, name: bytes) -> None:
        self.both(lambda: namespace.unlink(self.volume, parent.number, name), lambda: self.model.unlink(parent, name))

    @rule(choice=CHOICES)
    def rmdir(self, choice: tuple[int, bytes]) -> None:
        self.do_rmdir(*self.old_name(choice))

    def do_rmdir(self, parent: File, name: bytes) -> None:
        self.both(lambda: namespace.rmdir(self.volume, parent.number, name), lambda: self.model.rmdir(parent, name))

    @rule(choice=CHOICES, where=WHICH, new_name=ANY_NAMES, flags=st.sampled_from([0, RENAME_NOREPLACE]))
    def rename_to_a_new_name(self, choice: tuple[int, bytes], where: int, new_name: bytes, flags: int) -> None:
        self.rename(*self.old_name(choice), self.parent(where), new_name, flags)

    @rule(choice=CHOICES, onto=CHOICES, flags=st.sampled_from([0, 0, RENAME_NOREPLACE]))
    def rename_over(self, choice: tuple[int, bytes], onto: tuple[int, bytes], flags: int) -> None:
        self.rename(*self.old_name(choice), *self.old_name(onto), flags)

    @rule(choice=CHOICES, onto=CHOICES)
    def exchange(self, choice: tuple[int, bytes], onto: tuple[int, bytes]) -> None:
        self.rename(*self.old_name(choice), *self.old_name(onto), RENAME_EXCHANGE)

    def rename(self, parent: File, name: bytes, new_parent: File, new_name: bytes, flags: int) -> None:
        self.both(
            lambda: namespace.rename(self.volume, parent.number, name, new_parent.number, new_name, flags),
            lambda: self.model.rename(
                parent, name, new_parent, new_name, noreplace=flags == RENAME_NOREPLACE, exchange=flags == RENAME_EXCHANGE
            ),
        )

    @rule(which=WHICH, name=XATTR_NAMES, value=VALUES, flags=st.sampled_from([0, 0, xattrs.XATTR_CREATE, xattrs.XATTR_REPLACE]))
    def set_xattr(self, which: int, name: bytes, value: bytes, flags: int) -> None:
        file = self.file(which)
        self.both(
            lambda: xattrs.set(self.volume, file.number, name, value, flags),
            lambda: self.model.set_xattr(
                file, name, value, create=flags == xattrs.XATTR_CREATE, replace=flags == xattrs.XATTR_REPLACE
            ),
        )

    @rule(which=WHICH, value=st.sampled_from([b"none", b"lz4", b"zstd:9", b"auto"]))
    def set_compression(self, which: int, value: bytes) -> None:
        file = self.file(which)
        self.both(
            lambda: xattrs.set(self.volume, file.number, COMPRESSION, value),
            lambda: self.model.set_xattr(file, COMPRESSION, value, create=False, replace=False),
        )

    @rule(which=WHICH, name=XATTR_NAMES | st.just(COMPRESSION))
    def remove_xattr(self, which: int, name: bytes) -> None:
        file = self.file(which)
        self.both(lambda: xattrs.remove(self.volume, file.number, name), lambda: self.model.remove_xattr(file, name))

    @rule(which=WHICH, name=XATTR_NAMES)
    def get_xattr(self, which: int, name: bytes) -> None:
        file = self.file(which)
        ours, theirs = self.both(
            lambda: xattrs.get(self.volume, file.number, name), lambda: self.model.get_xattr(file, name)
        )
        assert ours == theirs

    @rule(which=WHICH, mode=MODES)
    def chmod(self, which: int, mode: int) -> None:
        file = self.file(which)
        self.both(
            lambda: namespace.setattr(self.volume, file.number, AttributeChange(mode=mode)), lambda: self.model.chmod(file, mode)
        )

    @rule(which=WHICH, uid=OWNERS, gid=OWNERS)
    def chown(self, which: int, uid: int, gid: int) -> None:
        file = self.file(which)
        self.both(
            lambda: namespace.setattr(self.volume, file.number, AttributeChange(uid=uid, gid=gid)),
            lambda: self.model.chown(file, uid, gid),
        )

    @rule(which=WHICH, atime=TIMES, mtime=TIMES)
    def utimens(self, which: int, atime: int, mtime: int) -> None:
        file = self.file(which)
        self.both(
            lambda: namespace.setattr(self.volume, file.number, AttributeChange(atime_ns=atime, mtime_ns=mtime)),
            lambda: self.model.utimens(file, atime, mtime),
        )

    @rule(which=WHICH, offset=st.sampled_from([0, 10, 5000, 200 * KIB]), data=st.sampled_from([b"d", b"line\n" * 900]))
    def write(self, which: int, offset: int, data: bytes) -> None:
        file = self.file(which)
        self.both(
            lambda: files.write(self.volume, file.number, offset, data), lambda: self.model.write(file, offset, data)
        )

    @rule(which=WHICH, size=st.sampled_from([0, 3, 5002, 150 * KIB]))
    def truncate(self, which: int, size: int) -> None:
        file = self.file(which)
        self.both(
            lambda: namespace.setattr(self.volume, file.number, AttributeChange(size=size)),
            lambda: self.model.truncate(file, size),
        )

    @rule(which=WHICH)
    def hold(self, which: int) -> None:
        self.do_hold(self.file(which))

    def do_hold(self, file: File) -> None:
        namespace.hold(self.volume, file.number)
        self.model.hold(file)

    @rule(choice=CHOICES)
    def remove_while_held(self, choice: tuple[int, bytes]) -> None:
        parent, name = self.old_name(choice)
        file = parent.entries.get(name)
        if file is not None:
            self.do_hold(file)
            remove = self.do_rmdir if file.is_directory else self.do_unlink
            remove(parent, name)

    @rule(which=WHICH, name=NAMES)
    def create_in_what_was_removed(self, which: int, name: bytes) -> None:
        held = [file for file in self.model.held if file.is_directory and not file.links]
        if held:
            self.do_create(held[which % len(held)], name, 0o644, 0, 0)

    @rule(which=WHICH)
    def release(self, which: int) -> None:
        if self.model.held:
            file = self.model.held[which % len(self.model.held)]
            namespace.release(self.volume, file.number)
            self.model.release(file)

    @rule()
    def commit(self) -> None:
        self.volume.commit()
        self.saved = copy.deepcopy(self.model)

    @rule()
    def checkpoint(self) -> None:
        self.volume.checkpoint()
        self.saved = copy.deepcopy(self.model)

    @rule()
    def forget_caches(self) -> None:
        self.volume.inodes.forget_copies()
        self.volume.names.forget_all()

    @rule()
    def close_and_open(self) -> None:
        self.volume.close()
        self.model.forget_holds()
        self.volume = self.open(self.device)
        self.saved = copy.deepcopy(self.model)

    @rule()
    def commit_crash_and_recover(self) -> None:
        """What was committed is there after a crash; what is done after it is dropped with the overlay."""
        self.volume.commit()
        recovered = self.open(OverlayDevice(self.device))
        expected = copy.deepcopy(self.model)
        expected.forget_holds()
        compare(recovered, expected)
        self.saved = copy.deepcopy(self.model)

    @invariant()
    def both_look_the_same(self) -> None:
        compare(self.volume, self.model)


def compare(volume: Volume, model: Model) -> None:
    """Compare everything that can be seen of both."""
    check_rules(volume)
    expected = model.files()
    assert volume.counters.inode_count == len(expected)
    for file in expected:
        inode = volume.inodes.get(file.number)
        ours = (inode.mode, inode.uid, inode.gid, inode.link_count, inode.size, inode.rdev)
        assert ours == (file.mode, file.uid, file.gid, file.links, file.size, file.rdev)
        assert (inode.atime_ns, inode.mtime_ns, inode.ctime_ns) == (file.atime, file.mtime, file.ctime)
        names = xattrs.names(volume, file.number)
        assert {name: xattrs.get(volume, file.number, name) for name in names} == file.xattrs
        policy = parse_policy(file.xattrs.get(COMPRESSION, b"auto").decode())
        assert (inode.compression, inode.compression_level) == (policy.algorithm, policy.level)
        if file.is_directory:
            found = {name: entry.inode for _, name, entry in directories.entries(volume, file.number)}
            assert found == {name: child.number for name, child in file.entries.items()}
        elif stat.S_ISLNK(file.mode):
            assert namespace.readlink(volume, file.number) == file.target
        elif stat.S_ISREG(file.mode):
            assert files.read(volume, file.number, 0, file.size + 1) == file.data


class CollidingNamespace(Namespace):
    """The same where names share four hashes, so that probe windows fill, overlap and get gaps."""

    hash_mask = 3


MANY_STEPS = settings(max_examples=40, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck))
TestNamespace = Namespace.TestCase
TestNamespace.settings = MANY_STEPS
TestCollidingNamespace = CollidingNamespace.TestCase
TestCollidingNamespace.settings = MANY_STEPS
