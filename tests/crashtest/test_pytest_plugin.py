"""The pytest plugin tells programs that save their files well from those that do not, with a story that says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from razortools import pytest_plugin
from razortools.debug.crashtest.disks import Base
from razortools.debug.crashtest.oracle import opened
from razortools.debug.crashtest.programs import Mark, Tree, check_program, cuts
from razortools.engine import files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recording import Event, Kind, RecordingDevice, read_recording
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, DeviceFailed, NotAnImage
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB
from tests.mount.mounts import Mounted, can_mount

IMAGE_BYTES = 1 * MIB
HEAD_BYTES = 16

needs_fuse = pytest.mark.skipif(not can_mount(), reason="/dev/fuse cannot be used here")

# Programs that save a file, and what each promises. All are run by themselves, as any program in any language would be.

SAVE_WELL = """
import os, sys
folder, text = sys.argv[1:]
with open(folder + "/settings.new", "w") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
os.rename(folder + "/settings.new", folder + "/settings")
descriptor = os.open(folder, os.O_RDONLY)
os.fsync(descriptor)
os.close(descriptor)
"""
SAVE_IN_PLACE = """
import sys
folder, text = sys.argv[1:]
with open(folder + "/settings", "w") as file:
    file.write(text)
"""
SAVE_IN_PLACE_AND_SYNC = SAVE_IN_PLACE + "    file.flush()\n    __import__('os').fsync(file.fileno())\n"
SAVE_TWO_THAT_MUST_AGREE = """
import os, sys
folder, text = sys.argv[1:]
for name in ("settings", "checksum"):
    with open(folder + "/" + name + ".new", "w") as file:
        file.write(text)
        os.fsync(file.fileno())
    os.rename(folder + "/" + name + ".new", folder + "/" + name)
descriptor = os.open(folder, os.O_RDONLY)
os.fsync(descriptor)
"""

TEST = """
import subprocess, sys

PROGRAM = {program!r}

def save(folder, text):
    subprocess.run([sys.executable, "-c", PROGRAM, str(folder), text], check=True)

def test_saving(crash_mount):
    save(crash_mount.path, "old" * 1000)
    crash_mount.mark("saved old")
    save(crash_mount.path, "new" * 1000)
    crash_mount.mark("saved new")

    def verify(tree, marks):
        {verify}

    done = crash_mount.check(verify)
    assert done.states >= done.verified > 3
    print("checked", done.states)
"""
OLD_OR_NEW = """
        if "saved new" in marks:
            assert tree["settings"] == b"new" * 1000
        elif "saved old" in marks:
            assert tree.get("settings") in (b"old" * 1000, b"new" * 1000), "neither the old nor the new settings"
"""
AGREE = """
        if marks:
            assert tree["settings"] == tree["checksum"], "settings and checksum disagree"
"""


def run_pytest(folder: Path, program: str, verify: str = OLD_OR_NEW) -> subprocess.CompletedProcess[str]:
    """Run a test of *program* in a pytest of its own."""
    (folder / "test_program.py").write_text(TEST.format(program=program, verify=verify))
    command = [sys.executable, "-m", "pytest", "-p", "razortools.pytest_plugin", "-p", "no:cacheprovider", "-qrA", "--color=no"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [*command, "--basetemp", str(folder / "t"), "test_program.py"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


@pytest.mark.slow
@needs_fuse
def test_a_program_that_saves_well_passes(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, SAVE_WELL)
    assert finished.returncode == 0, finished.stdout
    assert "1 passed" in finished.stdout
    assert not (tmp_path / "t" / "test_saving0" / "crash_mount" / "mnt").is_mount()


@pytest.mark.slow
@needs_fuse
@pytest.mark.parametrize(
    ("program", "verify", "told"),
    [
        (SAVE_IN_PLACE, OLD_OR_NEW, "after the mark 'saved old'"),
        (SAVE_IN_PLACE_AND_SYNC, OLD_OR_NEW, "neither the old nor the new settings"),
        (SAVE_TWO_THAT_MUST_AGREE, AGREE, "settings and checksum disagree"),
    ],
    ids=["saved before fsync", "overwrites in place", "two files that must agree"],
)
def test_a_program_that_does_not_fails_with_a_story(program: str, verify: str, told: str, tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, program, verify)
    assert finished.returncode == 1, finished.stdout
    assert told in finished.stdout
    assert "power cut after the mark 'saved old'" in finished.stdout
    assert "files after recovery:" in finished.stdout
    assert not (tmp_path / "t" / "test_saving0" / "crash_mount" / "mnt").is_mount()


@needs_fuse
def test_a_recorded_mount_that_is_read_only_answers_fsync_and_records_nothing(tmp_path: Path) -> None:
    mount = Mounted(tmp_path, IMAGE_BYTES)
    with open_image(mount.image, writable=True) as device:  # left as by a crash, so that the mount replays into an overlay
        volume = opened(device)
        namespace.mkdir(volume, ROOT_INODE, b"d", 0o755, 0, 0)
        volume.commit()
    try:
        mount.mount("ro", f"record={tmp_path / 'recording'}")
        assert os.listdir(mount.path) == ["d"]
        descriptor = os.open(mount.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        mount.umount()
    finally:
        mount.take_away()
    assert read_recording(tmp_path / "recording") == []


@needs_fuse
def test_a_recorded_mount_commits_after_every_change_and_notes_what_was_asked_for(tmp_path: Path) -> None:
    mount = Mounted(tmp_path, IMAGE_BYTES)
    recording = tmp_path / "recording"
    try:
        mount.mount(f"record={recording}", "commit=3600", "checkpoint=3600")
        before = len(read_recording(recording))
        (mount.path / "a").mkdir()
        made = [event.kind for event in read_recording(recording)[before:]]
        assert Kind.FLUSH in made and Kind.SYNC not in made
        descriptor = os.open(mount.path / "a", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        assert [event.kind for event in read_recording(recording)][-1] is Kind.SYNC
        synced = len(read_recording(recording))
        with os.fdopen(os.open(mount.path / "f", os.O_WRONLY | os.O_CREAT | os.O_SYNC), "wb", buffering=0) as file:
            file.write(b"x")
        assert any(event.kind is Kind.SYNC for event in read_recording(recording)[synced:])
        mount.umount()
    finally:
        mount.take_away()


def test_without_fuse_the_test_is_skipped_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pytest_plugin._why_no_fuse() == "" or not can_mount()
    monkeypatch.setattr(pytest_plugin, "FUSE_DEVICE", "/dev/no-such-device")
    assert "/dev/no-such-device is missing" in pytest_plugin._why_no_fuse()


def test_the_plugin_loads_nothing_of_the_engine_before_a_test_asks() -> None:
    code = "import sys, razortools.pytest_plugin; sys.exit(any(name.startswith('razortools.engine') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# The recording


class Session:
    """A volume on a recorded device in memory, and what was promised."""

    def __init__(self, folder: Path) -> None:
        disk = MemoryDevice(IMAGE_BYTES)
        create(disk, plan_create(IMAGE_BYTES, uuid=bytes(16), hash_seed=bytes(16)))
        self.image = disk.read(0, IMAGE_BYTES)
        self.path = folder / "recording"
        self.disk = disk
        self.device = RecordingDevice(disk, self.path)
        self.volume: Volume = opened(self.device)
        self.marks: list[Mark] = []

    def save(self, name: bytes, data: bytes) -> None:
        ino = namespace.create(self.volume, ROOT_INODE, name, 0o644, 0, 0)
        files.write(self.volume, ino, 0, data)

    def sync(self) -> None:
        self.volume.commit()
        self.device.note_synced()

    def mark(self, text: str) -> None:
        self.marks.append(Mark(text, self.path.stat().st_size))

    def check(self, verify: object, states_per_flush: int = 64) -> int:
        self.volume.close()
        events = read_recording(self.path)
        return check_program(self.image, events, self.marks, verify, states_per_flush=states_per_flush).verified  # type: ignore[arg-type]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


def test_a_recording_holds_every_write_and_flush_in_order_and_gives_the_disk_again(session: Session) -> None:
    session.save(b"a", b"x" * 3000)
    session.volume.close()
    disk = bytearray(session.image)
    events = read_recording(session.path)
    for event in events:
        if event.kind is Kind.WRITE:
            disk[event.offset : event.offset + len(event.data)] = event.data
    assert bytes(disk) == session.disk.read(0, IMAGE_BYTES) != session.image
    assert sum(event.kind is Kind.FLUSH for event in events) >= 3
    assert [event.end for event in events] == sorted({event.end for event in events})
    assert events[-1].end == session.path.stat().st_size


def test_each_event_is_one_write_of_the_host(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    honest = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: sizes.append(len(data)) or honest(descriptor, data))
    session.device.write(0, b"y" * 1000)
    session.device.flush()
    assert sizes == [1024, 24]


def test_what_failed_on_the_device_is_not_recorded(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise DeviceFailed("no")

    before = session.path.stat().st_size
    monkeypatch.setattr(session.disk, "write", failing)
    monkeypatch.setattr(session.disk, "flush", failing)
    with pytest.raises(DeviceFailed):
        session.device.write(0, b"y")
    with pytest.raises(DeviceFailed):
        session.device.flush()
    assert session.path.stat().st_size == before


def test_a_second_mount_records_behind_the_first(session: Session) -> None:
    session.volume.close()
    first = read_recording(session.path)
    with RecordingDevice(session.disk, session.path) as again:
        again.write(512, b"z" * 512)
    assert read_recording(session.path)[: len(first)] == first
    assert read_recording(session.path)[len(first) :] == [Event(Kind.WRITE, 512, b"z" * 512, session.path.stat().st_size)]


def test_an_event_that_was_cut_off_is_left_out_and_a_changed_one_is_damage(session: Session) -> None:
    session.volume.close()
    raw = session.path.read_bytes()
    whole = read_recording(session.path)
    for cut in (1, 19, 25, 600):
        session.path.write_bytes(raw[:-cut])
        shorter = read_recording(session.path)
        assert shorter == whole[: len(shorter)] != whole
    for at in (HEAD_BYTES, HEAD_BYTES + 3, HEAD_BYTES + 7, HEAD_BYTES + 9, HEAD_BYTES + 17, HEAD_BYTES + 40, HEAD_BYTES + 900):
        session.path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(CorruptImage, match="damaged"):
            read_recording(session.path)


def test_what_is_no_recording_of_this_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"something else")
    with pytest.raises(NotAnImage, match="is not a recording"):
        read_recording(tmp_path / "x")
    with pytest.raises(NotAnImage, match="name another file"):
        RecordingDevice(MemoryDevice(4096), tmp_path / "x")
    with pytest.raises(DeviceFailed, match="cannot be opened"):
        RecordingDevice(MemoryDevice(4096), tmp_path / "no" / "x")


# Judging


def test_a_mark_holds_from_the_moment_on_at_which_it_was_made(session: Session) -> None:
    session.save(b"a", b"1")
    session.sync()
    session.mark("a is safe")
    session.save(b"b", b"2")
    session.mark("b was written")  # nothing made it durable: to claim that would be wrong
    session.sync()
    session.mark("b is safe")
    seen: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    session.check(lambda tree, marks: seen.setdefault(marks, set()).add(tuple(sorted(tree))))
    assert seen == {
        (): {(), ("a",)},
        ("a is safe",): {("a",)},
        ("a is safe", "b was written"): {("a",), ("a", "b")},
        ("a is safe", "b was written", "b is safe"): {("a", "b")},
    }


def test_a_commit_that_nobody_asked_for_promises_nothing(session: Session) -> None:
    session.save(b"a", b"1")
    session.volume.commit()
    session.mark("a was written")
    seen = set()
    session.check(lambda tree, marks: seen.add((marks, tuple(tree))))
    assert (("a was written",), ()) in seen, "the commit might as well have come later"
    assert (("a was written",), ("a",)) in seen


def test_the_program_sees_files_directories_and_symbolic_links_and_can_change_nothing(session: Session) -> None:
    folder = namespace.mkdir(session.volume, ROOT_INODE, b"d", 0o755, 0, 0)
    ino = namespace.create(session.volume, folder, b"x", 0o644, 0, 0)
    files.write(session.volume, ino, 0, b"data")
    namespace.symlink(session.volume, ROOT_INODE, b"s", b"d/x", 0, 0)
    session.sync()
    session.mark("all")

    def verify(tree: Tree, marks: tuple[str, ...]) -> None:
        if marks:
            assert (dict(tree), tree.directories, dict(tree.symlinks)) == ({"d/x": b"data"}, {"d"}, {"s": "d/x"})
            with pytest.raises(TypeError):
                tree["d/x"] = b""  # type: ignore[index]
            with pytest.raises(TypeError):
                tree.symlinks["s"] = ""  # type: ignore[index]

    assert session.check(verify) > 1


def test_a_failed_check_tells_what_was_promised_what_arrived_and_what_was_found(session: Session) -> None:
    session.save(b"a", b"1")
    session.mark("a was written")

    def verify(tree: Tree, marks: tuple[str, ...]) -> None:
        assert not marks or tree.get("a") == b"1", "a is lost"

    with pytest.raises(AssertionError) as failed:
        session.check(verify)
    story = str(failed.value).splitlines()
    assert story[0].startswith("a is lost")
    assert any("power cut after the mark 'a was written'" in line for line in story)
    assert story[-2:] == ["files after recovery:", "  no file"]


def test_an_image_that_does_not_recover_fails_the_test_whatever_the_program_checks(session: Session) -> None:
    session.save(b"a", b"1")
    session.volume.close()
    wiped = [Event(Kind.WRITE, 0, bytes(IMAGE_BYTES), session.path.stat().st_size + 1)]
    with pytest.raises(AssertionError, match="does not recover"):
        check_program(session.image, read_recording(session.path) + wiped, [], lambda tree, marks: None, states_per_flush=8)


def test_marks_made_at_the_end_count(session: Session) -> None:
    session.volume.close()
    events = read_recording(session.path)
    last = list(cuts(Base(session.image), events, [Mark("end", session.path.stat().st_size)]))[-1]
    assert (last.marks, last.epoch.position) == (("end",), len(events))
