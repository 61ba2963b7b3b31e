"""The benchmark of the mount beside its peers: rows do what they say and notice what is wrong, and nothing is left behind."""

import errno
import json
import os
import posix
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench.mounts import clients, jobs, mixed, peers, small_files, trees
from bench.mounts.__main__ import chosen_peers, parse
from bench.mounts.clients import RowFailed, measure, work
from bench.mounts.contents import Sizes, big, tree, write_tarball
from bench.mounts.peers import Peer, PeerFailed, mounted
from bench.mounts.place import Place, Taken, WrongResult, processor_s
from bench.mounts.report import document, page, profile_table
from bench.mounts.results import Results
from bench.mounts.rows import ROWS
from bench.page import publish
from tests.mount.mounts import can_mount

PROJECT = Path(__file__).parents[2]
SIZES = Sizes().scaled(0.002)
TMPFS = "mount -t tmpfs none {dir}"
WITHOUT = [f"--without={peer.name}" for peer in peers.PEERS]


@pytest.fixture
def forgotten() -> list[int]:
    """What the kernel was asked to forget: nothing is dropped in these tests, other tests would wait for it."""
    return []


@pytest.fixture
def place(tmp_path: Path, forgotten: list[int]) -> Place:
    """A plain directory instead of a mounted filesystem."""
    (tmp_path / "mnt").mkdir()
    write_tarball(tmp_path / "tree.tar", SIZES)
    return Place(tmp_path / "mnt", tmp_path / "tree.tar", SIZES, forgotten.append)


FIO = """#!{python}
import json, os, sys
given = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
for number in range(int(given["numjobs"])):
    with open(os.path.join(given["directory"], f"mixed.{{number}}.0"), "wb") as file:
        file.truncate(int(given["size"]))
if "create_only" not in given:
    each = int(given["size"]) * int(given["numjobs"]) // int(given["bs"])
    reads = each * int(given["rwmixread"]) // 100
    sides = {{"read": {{"total_ios": reads, "runtime": 40}}, "write": {{"total_ios": each - reads, "runtime": 50}}}}
    print(json.dumps({{"jobs": [{{"error": 0, **sides}}]}}))
"""


@pytest.fixture(autouse=True)
def fio(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fio that makes its files and says that it has read and written: not every machine has the real one."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "fio").write_text(FIO.format(python=sys.executable))
    (folder / "fio").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.fixture(autouse=True)
def clients_only_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a forked client begin and end as it does outside of tests.

    Coverage would start anew in it, and have it save before it leaves: seconds for each, late in a run, and nothing to be seen.
    """
    monkeypatch.setattr(os, "_exit", posix._exit)
    monkeypatch.setattr("coverage.control._start_process_coverage", lambda config: None, raising=False)


@pytest.fixture
def root() -> None:
    if not can_mount():
        pytest.skip("nothing can be mounted here")


# Rows


def amount(name: str) -> int:
    """How much a row has to do."""
    if name.startswith(("write", "read text", "read random")):
        return SIZES.big_bytes
    if name.startswith("fio"):
        return SIZES.random_reads * 2 // SIZES.clients * SIZES.clients
    if name.startswith("mixed"):
        return SIZES.files // 4 // 2 * mixed.REQUESTS_EACH * 4
    if name.endswith("stat, warm"):
        return SIZES.files * small_files.WARM_PASSES
    if name == "4 clients creating":
        return SIZES.files // 4 * 4
    tree_row = name in ("untar", "rm -r") or name.startswith(("find", "grep"))
    return SIZES.tree_files if tree_row else SIZES.syncs if "fsync" in name else SIZES.files


@pytest.mark.parametrize("name", ROWS)
def test_every_row_runs_alone_and_does_as_much_as_it_says(name: str, place: Place) -> None:
    taken = measure(ROWS[name][0], place)
    assert taken.count == amount(name)
    assert taken.wall_s > 0


def test_all_rows_run_one_after_the_other_and_once_more(place: Place) -> None:
    for _ in range(2):
        for name in ROWS:
            assert measure(ROWS[name][0], place).count == amount(name), name


@pytest.mark.parametrize("name", ROWS)
def test_the_kernel_forgets_before_the_cold_rows_and_only_before_them(name: str, place: Place, forgotten: list[int]) -> None:
    work(ROWS[name][0], place)
    pages_too = name.startswith(("open", "read ", "grep", "random"))
    assert forgotten == ([3 if pages_too else 2] if name.endswith(", cold") else [])


def test_the_tree_has_as_many_files_as_asked_for_and_no_path_twice() -> None:
    assert len({path for path, _ in tree(3000)}) == 3000


def test_random_bytes_have_no_megabyte_twice() -> None:  # some filesystems store equal blocks once
    data = big("random", 4 << 20)
    assert len({data[offset : offset + (1 << 20)] for offset in range(0, 4 << 20, 1 << 20)}) == 4


# Rows on filesystems that do not do what they are asked for


def nothing(*_: object) -> None:
    """A system call that only says that it has succeeded."""


def write_nothing(descriptor: int, data: bytes) -> int:
    return len(data)


def zeros(descriptor: int, count: int, *_: object) -> bytes:
    return bytes(count)


BROKEN: list[tuple[str, str, Callable[..., object], str]] = [
    ("create + 4 KiB", "write", write_nothing, r"sizes: \{4096\} expected, \{0\} found"),
    ("4 clients creating", "write", write_nothing, "contents"),
    ("open + read 4 KiB, cold", "read", zeros, "contents of .*file00000"),
    ("open + read 4 KiB, warm", "read", zeros, "contents of .*file00000"),
    ("rename", "rename", nothing, "old names left"),
    ("unlink", "unlink", nothing, "files left: 0 expected, 10 found"),
    ("rmdir", "rmdir", nothing, "directories left: 0 expected, 10 found"),
    ("4 KiB write + fsync", "write", write_nothing, "contents of a log"),
    ("write text", "write", write_nothing, "size: 1048576 expected, 0 found"),
    ("write random bytes", "write", lambda descriptor, data: 1, "a short write"),
    ("read text, cold", "readv", nothing, "contents of the big file of text differ"),
    ("read random bytes, cold", "readv", nothing, "contents of the big file of random differ"),
    ("read text, warm", "readv", nothing, "contents of the big file of text differ"),
    ("random 4 KiB reads, cold", "pread", zeros, "4 KiB at"),
    ("random 4 KiB reads, hot", "pread", zeros, "4 KiB at"),
    ("random 4 KiB writes, one fsync", "pwrite", nothing, "contents of the overwritten file differ"),
]


@pytest.mark.parametrize(("name", "call", "broken", "said"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_row_notices_a_system_call_that_does_nothing(
    name: str, call: str, broken: Callable[..., object], said: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.files(), place.directories(), place.big_file("text"), place.big_file("random")
    monkeypatch.setattr(os, call, broken)
    with pytest.raises(WrongResult, match=said):
        work(ROWS[name][0], place)


@pytest.mark.parametrize(
    ("call", "broken"),
    [("write", write_nothing), ("read", zeros), ("unlink", nothing), ("rename", nothing), ("listdir", lambda path: [])],
)
def test_mixed_work_notices_a_system_call_that_does_nothing(
    call: str, broken: Callable[..., object], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.sizes = Sizes(files=2 * 4 * (mixed.KEPT + 5))
    monkeypatch.setattr(os, call, broken)
    with pytest.raises(WrongResult, match=r"exit codes of the clients|files left by one program"):
        work(mixed.work_together, place)


def test_mixed_work_keeps_the_newest_files(place: Place) -> None:
    place.sizes = Sizes(files=2 * 4 * (mixed.KEPT + 5))
    assert work(mixed.work_together, place).count == (mixed.KEPT + 5) * mixed.REQUESTS_EACH * 4
    assert len(os.listdir(place.path("mixed/3"))) == mixed.KEPT


def test_mkdir_notices_directories_that_are_not_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.folders("directories")
    monkeypatch.setattr(place, "empty", nothing)
    monkeypatch.setattr(os, "mkdir", nothing)
    with pytest.raises(WrongResult, match="directories not made"):
        work(small_files.mkdir, place)


@pytest.mark.parametrize("name", ["stat, cold", "stat, warm", "readdir + stat, cold", "readdir + stat, warm"])
def test_stat_notices_a_wrong_size(name: str, place: Place) -> None:
    os.truncate(place.files()[3], 5)
    with pytest.raises(WrongResult, match="sizes"):
        work(ROWS[name][0], place)


@pytest.mark.parametrize("name", ["readdir + stat, cold", "find, cold", "find, warm", "grep -r, cold", "grep -r, warm"])
def test_what_searches_notices_a_file_that_is_missing(name: str, place: Place) -> None:
    os.unlink(place.files()[3])
    os.unlink(os.path.join(place.unpacked(), tree(SIZES.tree_files)[3][0].encode()))
    with pytest.raises(WrongResult, match="expected"):
        work(ROWS[name][0], place)


@pytest.mark.parametrize("name", ["grep -r, cold", "grep -r, warm"])
def test_grep_notices_contents_that_changed(name: str, place: Place) -> None:
    path = next(path for path, data in tree(SIZES.tree_files) if trees.PATTERN in data)
    target = os.path.join(place.unpacked(), path.encode())
    os.truncate(target, 0)
    with pytest.raises(WrongResult, match="lines found"):
        work(ROWS[name][0], place)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"error": 84, "read": {"total_ios": 9, "runtime": 9}, "write": {"total_ios": 9, "runtime": 9}}, "error 84"),
        ({"error": 0, "read": {"total_ios": 0, "runtime": 0}, "write": {"total_ios": 0, "runtime": 0}}, "done nothing"),
    ],
)
def test_what_fio_complains_of_is_no_figure(said: dict[str, object], complaint: str) -> None:
    with pytest.raises(WrongResult, match=complaint):
        jobs.taken_of(json.dumps({"jobs": [said]}).encode())


def test_fio_counts_by_its_own_clock() -> None:
    sides = {"read": {"total_ios": 700, "runtime": 500}, "write": {"total_ios": 300, "runtime": 2000}}
    assert jobs.taken_of(json.dumps({"jobs": [{"error": 0, **sides}]}).encode()) == Taken(1000, 2.0)


def test_untar_notices_a_changed_byte(place: Place) -> None:
    with open(place.tarball, "r+b") as tarball:
        raw = tarball.read()
        at = raw.index(tree(SIZES.tree_files)[-1][1])
        tarball.seek(at)
        tarball.write(bytes([raw[at] ^ 1]))
    with pytest.raises(WrongResult, match="contents of copy0/"):
        work(trees.untar, place)


def test_rm_notices_a_tree_that_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.unpacked()
    monkeypatch.setattr(trees, "run", nothing)
    with pytest.raises(WrongResult, match="the tree is there"):
        work(trees.remove_tree, place)


# Clients


def failing(error: BaseException) -> Callable[[Place], Iterator[int]]:
    def row(place: Place) -> Iterator[int]:
        yield 0
        raise error

    return row


def test_a_client_that_fails_tells_why(place: Place) -> None:
    for error, said in [
        (WrongResult("contents differ"), "^contents differ$"),
        (OSError(errno.EIO, "Input/output error", "name"), "Input/output error: 'name'"),
        (KeyError("bug"), re.escape("KeyError('bug')")),
        (SystemExit(3), "the client died"),
    ]:
        with pytest.raises(RowFailed, match=said):
            measure(failing(error), place)


def test_a_client_that_is_killed_is_a_row_that_failed(place: Place) -> None:
    def row(place: Place) -> Iterator[int]:
        yield 0
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RowFailed, match="the client died"):
        measure(row, place)


def test_a_client_that_hangs_is_ended_with_its_children(place: Place) -> None:
    reader, writer = os.pipe()  # closed for good when no process of the client has it any more

    def row(place: Place) -> Iterator[int]:
        yield 0
        os.fork()
        os.write(writer, b".")
        select.select([], [], [])  # for ever

    with pytest.raises(RowFailed, match=r"not done after 0\.5 s"):
        measure(row, place, limit_s=0.5)
    os.close(writer)
    while os.read(reader, 10):
        pass
    os.close(reader)


# Peers


def is_clean(folder: Path) -> bool:
    return list(folder.iterdir()) == [] and str(folder) not in Path("/proc/self/mountinfo").read_text()


def test_a_peer_is_mounted_and_taken_away(root: None, tmp_path: Path) -> None:
    with mounted(Peer("plain", "mount -t tmpfs -o size=8M none {dir}"), tmp_path) as point:
        assert os.statvfs(point).f_blocks * os.statvfs(point).f_frsize == 8 << 20
        (point / "file").write_bytes(b"data")
    assert is_clean(tmp_path)


def test_a_peer_is_taken_away_when_something_fails(root: None, tmp_path: Path) -> None:
    with pytest.raises(WrongResult), mounted(Peer("plain", TMPFS), tmp_path):
        raise WrongResult
    assert is_clean(tmp_path)


def test_a_loop_device_is_given_back(root: None, tmp_path: Path) -> None:
    ext4 = next(peer for peer in peers.PEERS if peer.name == "ext4")
    if peers.missing_tools([ext4]):
        pytest.skip("e2fsprogs is not here")
    with mounted(ext4, tmp_path) as point:
        assert (point / "lost+found").is_dir()
        assert str(tmp_path) in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    assert is_clean(tmp_path)
    assert str(tmp_path) not in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (Peer("plain", "echo no luck >&2; exit 3"), "exits 3: no luck"),
        (Peer("plain", TMPFS, "echo no space; exit 4"), "exits 4: no space"),
        (Peer("plain", f"{TMPFS} && exit 5"), "exits 5"),
        (Peer("plain", "mount -t nosuchtype none {dir}"), "nosuchtype"),
    ],
)
def test_a_peer_that_cannot_be_mounted_tells_why_and_leaves_nothing(root: None, tmp_path: Path, peer: Peer, said: str) -> None:
    with pytest.raises(PeerFailed, match=said), mounted(peer, tmp_path):
        raise AssertionError("it is not mounted")
    assert is_clean(tmp_path)


def test_a_command_that_mounts_nothing_is_not_measured(root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MOUNTING_S", 0)
    with pytest.raises(PeerFailed, match="has mounted nothing"), mounted(Peer("plain", "true"), tmp_path):
        raise AssertionError("it is not mounted")
    assert is_clean(tmp_path)


def test_a_busy_peer_is_taken_away_by_force(root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "UNMOUNT_TRIES", 1)
    said: list[str] = []
    with mounted(Peer("plain", TMPFS), tmp_path, said.append) as point:
        file = (point / "file").open("wb")
    file.close()
    assert is_clean(tmp_path)
    assert len(said) == 1 and "by force" in said[0] and "busy" in said[0]


def test_a_daemon_that_does_not_end_is_ended(root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ENDING_S", 0)
    monkeypatch.setattr(peers, "STARTING_S", 0)
    said: list[str] = []
    with mounted(Peer("plain", f"{TMPFS}; exec sleep 1000"), tmp_path, said.append):
        pass
    assert is_clean(tmp_path)
    assert [text.split()[-1] for text in said] == ["SIGTERM"]


def test_a_peer_without_its_tools_is_refused_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"fuse2fs needs fuse2fs, .*package fuse2fs, .*--without fuse2fs") as refused:
        chosen_peers(parse([]))
    assert "btrfs needs mkfs.btrfs" in str(refused.value)
    assert [peer.name for peer in chosen_peers(parse([*WITHOUT[:-1], "--peer", "other=true"]))] == ["razorfs", "other"]


def test_peers_without_their_tools_can_be_left_out_and_the_table_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    options = parse(["--if-here", "--without", "xfs"])
    assert [peer.name for peer in chosen_peers(options)] == ["tmpfs", "razorfs"]
    assert options.without == ["xfs", "ext4 (not here)", "btrfs (not here)", "fuse2fs (not here)"]
    assert "package btrfs-progs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--without", "zfs"], "no peer 'zfs' here; there are tmpfs, ext4"),
        (["--unmount", "zfs=true"], "no peer 'zfs'"),
        (["--peer", "ext4=true"], "two peers have the same name"),
        (["--peer", "true"], "'true' is not NAME=COMMAND"),
        (["--peer", "../x=true"], "is not NAME=COMMAND"),
    ],
)
def test_options_that_name_nothing_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        chosen_peers(parse(arguments))


def test_a_peer_built_elsewhere_is_unmounted_as_it_wants() -> None:
    peer = chosen_peers(parse([*WITHOUT, "--peer", "other=mount it=here {dir}", "--unmount", "other=leave {dir}"]))[0]
    assert (peer.name, peer.mount, peer.unmount) == ("other", "mount it=here {dir}", "leave {dir}")


# The whole


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench.mounts", "--scale=0.002", "--rounds=2", f"--folder={folder}", *arguments]


@pytest.mark.slow
def test_razorfs_is_measured_beside_another_and_nothing_is_left(root: None, tmp_path: Path) -> None:
    folder, figures = tmp_path / "folder", tmp_path / "figures"
    folder.mkdir()
    foreground = "{python} -m razortools.mkfs -q {image} 64M && {python} -m razortools.mount --foreground {image} {dir}"
    arguments = [*WITHOUT[:-1], f"--peer=foreground={foreground}", f"--json={figures}", "--only=mkdir", "--only=untar"]
    done = subprocess.run(command(folder, *arguments), cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert is_clean(folder)
    found = json.loads(figures.read_text())
    assert list(found["rows"]) == ["mkdir", "untar"]
    assert all(len(found["rows"][row][peer]["rates"]) == 2 for row in found["rows"] for peer in ("razorfs", "foreground"))
    assert "Left out: tmpfs, ext4, xfs, btrfs, fuse2fs." in done.stdout
    assert re.search(r"^\| row, razorfs / peer +\| foreground \|$", done.stdout, re.MULTILINE)
    assert "force" not in done.stderr and "SIG" not in done.stderr


@pytest.mark.slow
def test_a_row_that_fails_is_in_the_table_and_the_others_go_on(root: None, tmp_path: Path) -> None:
    arguments = [*WITHOUT, f"--peer=good={TMPFS}", "--peer=bad=mount -t tmpfs -o ro none {dir}", "--only=mkdir", "--only=untar"]
    done = subprocess.run(command(tmp_path, *arguments), cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    assert is_clean(tmp_path)
    assert len(re.findall(r"^\| (?:mkdir|untar) +\| +[\d,]+ \| failed \|$", done.stdout, re.MULTILINE)) == 2
    assert len(re.findall(r"^- bad, round [12], (?:mkdir|untar): .*Read-only file system", done.stdout, re.MULTILINE)) == 4


@pytest.mark.slow
def test_a_run_that_is_stopped_takes_everything_away(root: None, tmp_path: Path) -> None:
    arguments = [*WITHOUT, f"--peer=plain={TMPFS}", "--only=mkdir", "--rounds=1000000"]
    process = subprocess.Popen(command(tmp_path, *arguments), cwd=PROJECT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "mkdir" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert is_clean(tmp_path)


def test_a_signal_while_a_peer_is_taken_away_waits_until_it_is(root: None, tmp_path: Path) -> None:
    said: list[str] = []
    stopping = Peer("plain", TMPFS, unmount=f"kill -TERM {os.getpid()} && umount {{dir}}")
    handler = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(99))
    try:
        with pytest.raises(SystemExit) as stopped, mounted(stopping, tmp_path, said.append):
            pass
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert stopped.value.code == 99
    assert said == ["plain is being taken away; then this stops\n"]
    assert is_clean(tmp_path)


def test_what_cannot_be_unmounted_is_not_removed(root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "UNMOUNT_TRIES", 0)
    monkeypatch.setattr(peers, "_run", nothing)
    with mounted(Peer("plain", TMPFS), tmp_path, nothing) as point:
        (point / "file").write_bytes(b"precious")
    assert (point / "file").read_bytes() == b"precious"
    assert subprocess.run(["umount", point]).returncode == 0


# The report


def results(**taken: list[float]) -> Results:
    found = Results("a machine", 1.0, 3, [*taken], [], ["mkdir"])
    for peer, seconds in taken.items():
        for number, wall_s in enumerate(seconds):
            found.add("mkdir", peer, number, Taken(1000, wall_s))
    return found


def test_a_ratio_compares_runs_of_the_same_round() -> None:
    found = results(razorfs=[1, 10, 4], other=[2, 20, 16])  # 2, 2 and 4 times as fast; the medians alone would say 4
    assert found.ratio("mkdir", "other") == 2
    assert "| mkdir |   250 |" not in page(found)
    assert re.search(r"^\| mkdir +\| +250 \| +62.5 \|$", page(found), re.MULTILINE)
    assert "Ahead of other on 1 of 1 rows, 1.5 times or more on 1." in page(found)


def test_what_has_failed_has_no_ratio_and_counts_nowhere() -> None:
    found = results(razorfs=[1, 1, 1], other=[])
    assert found.ratio("mkdir", "other") is None
    assert "on 0 of 0 rows" in page(found)
    json.dumps(document(found))


def test_rows_on_which_razorfs_is_behind_are_named() -> None:
    found = results(razorfs=[2, 2, 2], other=[1, 1, 1])
    found.rows += ["rmdir", "rename"]
    for row in ("rmdir", "rename"):
        found.add(row, "razorfs", 0, Taken(1, 1.0))
        found.add(row, "other", 0, Taken(1, 1.4))
    assert "Ahead of other on 2 of 3 rows, 1.5 times or more on 0; not on mkdir." in page(found)


def test_a_table_is_put_between_its_markers_and_nothing_else_changes(tmp_path: Path) -> None:
    text = "before\n<!-- mounts: made by bench/run -->\nold\n<!-- end of mounts -->\nafter\n"
    (tmp_path / "page.md").write_text(text)
    publish("mounts", "new\n", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == text.replace("old", "new")
    with pytest.raises(ValueError, match="no place for the table"):
        publish("other", "new\n", tmp_path / "page.md")


def test_where_the_time_of_razorfs_goes_is_told_by_row() -> None:
    found = Results("a machine", 1.0, 2, ["razorfs", "ext4"], [], ["mkdir", "read text, cold", "rmdir"])
    for number, daemon_s in enumerate((0.2, 0.4)):
        found.add("mkdir", "razorfs", number, Taken(1000, 0.4, daemon_s))
    found.add("read text, cold", "razorfs", 0, Taken(10 << 20, 0.1, 0.01))  # of bytes, it is told by MiB
    found.add("rmdir", "razorfs", 0, Taken(1000, 0.4))
    assert [line[1:] for line in profile_table(found)[1:]] == [["400", "300", "75 %"], ["10,000", "1,000", "10 %"]]
    assert "Where the time of razorfs goes" in page(found)
    assert "Where the time" not in page(results(razorfs=[1.0], other=[1.0]))


def test_what_a_daemon_takes_of_the_processor_while_a_row_runs_is_measured(place: Place) -> None:
    reader, writer = os.pipe()
    daemon = os.fork()
    if daemon == 0:
        while os.read(reader, 1):
            end = time.process_time() + 0.1  # it may have worked before: measuring coverage begins anew in a child
            while time.process_time() < end:
                pass

    def row(place: Place) -> Iterator[int]:
        before = processor_s(daemon)
        yield 0
        os.write(writer, b"!")
        while processor_s(daemon) - before < 0.09:
            pass
        yield 1

    place.daemon = daemon
    try:
        taken = measure(row, place)
        assert taken.daemon_s is not None and 0.05 < taken.daemon_s <= taken.wall_s
        place.daemon = None
        assert measure(row, place).daemon_s is None
    finally:
        os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)
        for end in (reader, writer):
            os.close(end)


def test_a_client_to_whom_nobody_listens_leaves_all_the_same(place: Place) -> None:
    """It is a copy of the process that measures: with an exception it would go on as that one."""

    def row(place: Place) -> Iterator[int]:
        yield 0
        yield 0

    reader, writer = os.pipe()
    os.close(reader)
    client = os.fork()
    if client == 0:
        with suppress(BaseException):
            clients._report(writer, row, place, work)
        os._exit(9)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(client, 0)[1]) == 0


def test_a_client_that_is_taken_away_before_it_has_begun_is_gone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had no process group of its own yet, so it was left; it kept its mount busy, and that was left, too."""
    ended: list[int] = []
    honest = clients._end
    monkeypatch.setattr(clients, "_report", lambda *_: signal.pause())
    monkeypatch.setattr(clients, "_end", lambda client: ended.append(client) or honest(client))
    with pytest.raises(RowFailed, match="not done after"):
        measure(lambda place: iter((0, 0)), place, limit_s=0.01)
    (client,) = ended
    is_left = Path(f"/proc/{client}").exists()
    if is_left:
        os.kill(client, signal.SIGKILL)
    assert not is_left
