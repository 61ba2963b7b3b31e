"""razorfs-debug: what it shows is what is there, what it copies comes back the same, and looking changes nothing."""

import errno
import json
import os
import pty
import socket
import stat
import sys
from pathlib import Path
from subprocess import Popen
from subprocess import run as run_process

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from razortools import debugfs
from razortools.cli import app as cli
from razortools.engine import namespace, xattrs
from razortools.format.acl import NOBODY, AclEntry, Tag, encode_acl
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import Superblock
from tests.images import make_image, open_for_writing


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "a.img", label="tested")


def debug(*words: object) -> int:
    """Return the exit code of razorfs-debug with *words*."""
    return cli.invoke(debugfs.app, debugfs.NAME, cli.DEBUG_CODES, [str(word) for word in words])


def facts_of(top: Path) -> dict[str, tuple[object, ...]]:
    """Return all that is known of a tree of the host but access and change times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([top, *top.rglob("*")]):
        status = path.lstat()
        contents: object = None
        if stat.S_ISREG(status.st_mode):
            contents = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            contents = os.readlink(path)
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
        found[str(path.relative_to(top))] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, contents, xattrs,
            status.st_nlink if not path.is_dir() else 0,
        )  # fmt: skip
    return found


def make_tree(top: Path) -> Path:
    """Make a tree of the host with a bit of everything, and return it."""
    (top / "sub" / "deeper").mkdir(parents=True)
    (top / "empty").mkdir(mode=0o700)
    (top / "small").write_bytes(b"small\n")
    (top / "large").write_bytes(bytes(range(256)) * 2000)
    with open(top / "holes", "wb") as file:
        file.truncate(3 * 2**20)
        file.seek(2**20 + 5)
        file.write(b"between holes")
    os.symlink("../nowhere", top / "sub" / "link")
    os.link(top / "small", top / "sub" / "hard")
    os.mkfifo(top / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(top / "socket"))
    (top / os.fsdecode(b"no\xfftext")).write_bytes(b"x")
    (top / ("n" * 255)).write_bytes(b"")
    (top / "sub" / "deeper" / "script").write_bytes(b"#!/bin/sh\n")
    (top / "sub" / "deeper" / "script").chmod(0o4751)
    try:
        os.setxattr(top / "small", "user.comment", b"\x00\xff" * 100)
    except OSError:
        pass  # this host keeps none: the rest is still worth comparing
    for path in [*top.rglob("*"), top]:
        os.utime(path, ns=(1, 1_234_567_890_123_456_789), follow_symlinks=False)
    return top


def test_a_tree_that_was_put_in_and_got_out_again_is_the_same(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree(tmp_path / "tree")
    assert debug("-w", "-R", f"put {tree} /copy", image) == 0
    assert "6 files" in capsys.readouterr().out
    assert debug("-R", f"get /copy {tmp_path / 'back'}", image) == 0
    assert facts_of(tmp_path / "back") == facts_of(tree)
    assert (tmp_path / "back" / "holes").stat().st_blocks * 512 < 2**20


def test_owners_and_device_nodes_are_kept_by_whoever_may(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = open_for_writing(image)
    namespace.create(volume, ROOT_INODE, b"given", 0o4755, 1234, 4321)
    namespace.mknod(volume, ROOT_INODE, b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3), 0, 0)
    volume.close()
    if os.geteuid() == 0:
        assert debug("-R", f"get /given {tmp_path / 'given'}", "-R", f"get /null {tmp_path / 'null'}", image) == 0
        status = (tmp_path / "given").stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o4755)
        assert (tmp_path / "null").stat().st_rdev == os.makedev(1, 3)
        assert "not kept" not in capsys.readouterr().out

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    monkeypatch.setattr(os, "mknod", refused)
    assert debug("-R", f"get / {tmp_path / 'back'}", image) == 0
    assert "not kept: device nodes, owners; root can keep more" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "back")) == ["given"]


@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EDQUOT])
def test_an_attribute_that_finds_no_room_on_the_host_does_not_end_a_copy(
    refusal: int, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by a script of all commands: an attribute of 10 KiB, and get ended in the middle of a tree: no space left."""
    with open_for_writing(image) as volume:
        for name in (b"first", b"second"):
            ino = namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)
            xattrs.set(volume, ino, b"user.large", bytes(10_240))

    def refused(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "setxattr", refused)
    assert debug("-R", f"get / {tmp_path / 'back'}", image) == 0
    assert "2 files" in (said := capsys.readouterr().out) and "not kept: extended attributes" in said
    assert sorted(os.listdir(tmp_path / "back")) == ["first", "second"]


@given(
    files=st.dictionaries(
        st.binary(min_size=1, max_size=40).filter(lambda n: not {0, 47} & set(n) and n not in (b".", b"..")),
        st.binary(max_size=500),
    )
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_and_any_contents_survive_the_round_trip(
    files: dict[bytes, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("names")
    image = make_image(here / "a.img")
    (here / "tree").mkdir()
    for name, contents in files.items():
        (here / "tree" / os.fsdecode(name)).write_bytes(contents)
    assert debug("-w", "-R", f"put {here / 'tree'} /", "-R", f"get tree {here / 'back'}", image) == 0
    assert facts_of(here / "back") == facts_of(here / "tree")


def test_a_single_file_goes_in_and_out(image: Path, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1" * 5000)
    (tmp_path / "two").write_bytes(b"2")
    os.symlink("one", tmp_path / "link")
    (tmp_path / "out").mkdir()
    commands = [
        f"put {tmp_path / 'one'}", f"put {tmp_path / 'two'} /named", f"put {tmp_path / 'link'}", f"put {tmp_path / 'two'} /one",
        f"get /one {tmp_path / 'out'}", f"get /link {tmp_path / 'out'}", f"get named {tmp_path / 'out' / 'x'}",
    ]  # fmt: skip
    assert debug("-w", *(word for command in commands for word in ("-R", command)), image) == 0
    assert (tmp_path / "out" / "one").read_bytes() == b"2"  # the later one replaced it
    assert os.readlink(tmp_path / "out" / "link") == "one"
    assert (tmp_path / "out" / "x").read_bytes() == b"2"


def test_what_is_put_in_gets_nothing_that_its_directory_hands_down(image: Path, tmp_path: Path) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    for name in ("one", "tree/two", "tree/below/three"):
        (tmp_path / name).write_bytes(b"a" * 100_000)
        (tmp_path / name).chmod(0o600)
    bits = {Tag.OWNER: 7, Tag.USER: 7, Tag.OWNING_GROUP: 7, Tag.MASK: 7, Tag.OTHERS: 7}
    open_to_9 = encode_acl(tuple(AclEntry(tag, bits[tag], 9 if tag == Tag.USER else NOBODY) for tag in bits))
    with open_for_writing(image) as volume:
        xattrs.set(volume, ROOT_INODE, xattrs.DEFAULT_ACL, open_to_9)
        xattrs.set(volume, ROOT_INODE, xattrs.COMPRESSION, b"none")
    assert debug("-w", "-R", f"put {tmp_path / 'one'}", "-R", f"put {tmp_path / 'tree'}", image) == 0
    with open_for_writing(image) as volume:
        for path in (b"/one", b"/tree", b"/tree/two", b"/tree/below", b"/tree/below/three"):
            ino = namespace.resolve(volume, path)
            inode = volume.inodes.get(ino)
            assert xattrs.names(volume, ino) == []
            assert stat.S_IMODE(inode.mode) == stat.S_IMODE((tmp_path / os.fsdecode(path[1:])).stat().st_mode)
            assert inode.is_directory or inode.stored_blocks == 25  # but how it is kept, the directory does tell


def test_putting_a_tree_over_an_older_one_adds_and_replaces(image: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "old").write_bytes(b"old")
    (tree / "sub" / "both").write_bytes(b"first")
    assert debug("-w", "-R", f"put {tree} /", image) == 0
    (tree / "sub" / "old").unlink()
    (tree / "sub" / "both").write_bytes(b"second")
    (tree / "sub" / "new").write_bytes(b"new")
    assert debug("-w", "-R", f"put {tree} /", "-R", f"get /tree/sub {tmp_path / 'back'}", image) == 0
    found = {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()}
    assert found == {"old": b"old", "both": b"second", "new": b"new"}


def test_cat_gives_the_bytes_as_they_are(image: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    contents = os.urandom(3_000_000)
    (tmp_path / "noise").write_bytes(contents)
    assert debug("-w", "-R", f"put {tmp_path / 'noise'}", image) == 0
    capfdbinary.readouterr()
    finished = run_process([sys.executable, "-m", "razortools.debugfs", "-R", "cat noise noise", image], capture_output=True)
    assert finished.returncode == 0
    assert finished.stdout == contents * 2


def test_put_leaves_out_the_image_that_it_puts_into(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with the image in it was copied with the image as it was while it grew."""
    folder = tmp_path / "folder"
    folder.mkdir()
    inside = image.rename(folder / "inside.img")
    (folder / "other").write_bytes(b"contents")
    assert debug("-w", "-R", f"put {folder} /", inside) == 0
    capsys.readouterr()
    assert debug("-R", "ls /folder", inside) == 0
    assert capsys.readouterr().out.split() == ["other"]
    assert debug("-w", "-R", f"put {inside} /", inside) == 2
    assert "is the image that it would be copied into" in capsys.readouterr().err


def test_looking_does_not_change_a_byte_of_a_clean_or_a_crashed_image(image: Path, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    volume = open_for_writing(image)
    crashed = tmp_path / "crashed.img"
    namespace.mkdir(volume, ROOT_INODE, b"committed", 0o755, 0, 0)
    volume.commit()
    crashed.write_bytes(image.read_bytes())  # what a machine that lost power now would find
    volume.close()
    assert debug("-w", "-R", f"put {tree}", image) == 0
    for one in (image, crashed):
        before = one.read_bytes()
        assert (
            debug(
                *(word for command in ("ls -lR", "stat /", "tree", "super", "journal -v", "help") for word in ("-R", command)),
                one,
            )
            == 0
        )
        assert one.read_bytes() == before


def test_a_crashed_image_shows_its_recovered_state_and_what_the_journal_holds(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = open_for_writing(image)
    namespace.mkdir(volume, ROOT_INODE, b"committed", 0o755, 0, 0)
    volume.commit()
    crashed = tmp_path / "crashed.img"
    crashed.write_bytes(image.read_bytes())
    volume.close()
    assert debug("-R", "ls", crashed) == 0
    assert capsys.readouterr().out == "committed\n"
    assert debug("--json", "-R", "journal", crashed) == 0
    journal = json.loads(capsys.readouterr().out)
    assert journal["damage"] == ""
    assert journal["used_bytes"] > 0
    entries = [entry for transaction in journal["transactions"] for entry in transaction["entries"]]
    assert {entry["operation"] for entry in entries} >= {"mkdir"}
    made = [
        entry for entry in entries if entry["path"] == "/committed" or (entry["redo"] or {}).get("record") == "DirectoryEntry"
    ]
    assert made
    assert debug("-R", "journal", "-R", "journal -v", crashed) == 0
    out = capsys.readouterr().out
    assert "mkdir" in out
    assert "before: (absent)" in out


def test_ls_tells_names_and_attributes(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert debug("-w", "-R", f"put {make_tree(tmp_path / 'tree')}", image) == 0
    capsys.readouterr()
    assert debug("-R", "ls /tree/sub", image) == 0
    assert capsys.readouterr().out.splitlines() == ["deeper", "hard", "link"]
    assert debug("-R", "ls -l /tree/sub", image) == 0
    long = capsys.readouterr().out
    assert "link -> ../nowhere" in long
    assert "lrwxrwxrwx" in long
    assert "2009-02-13 23:31:30" in long
    assert debug("--json", "-R", "ls -R /tree", image) == 0
    listing = json.loads(capsys.readouterr().out)
    assert [one["directory"] for one in listing] == ["/tree", "/tree/empty", "/tree/sub", "/tree/sub/deeper"]
    assert {row["type"] for one in listing for row in one["entries"]} == {"regular", "directory", "symlink", "fifo", "socket"}
    assert debug("-R", "ls -R /tree/sub", image) == 0
    assert "/tree/sub/deeper:\nscript\n" in capsys.readouterr().out


def test_stat_tells_everything(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert debug("-w", "-R", f"put {make_tree(tmp_path / 'tree')}", image) == 0
    capsys.readouterr()
    assert debug("--json", "-R", "stat /tree/large", "-R", "stat /tree/small", "-R", "stat /tree/sub/link", image) == 0
    large, small, link = (one["result"] for one in json.loads(capsys.readouterr().out))
    assert (large["size"], large["record_count"]) == (512000, 4)
    assert large["stored_bytes"] > 0
    assert sorted(small["paths"]) == ["/tree/small", "/tree/sub/hard"]
    assert small["links"] == 2
    assert small["mtime_ns"] == 1_234_567_890_123_456_789
    assert link["target"] == "../nowhere"
    assert debug("-R", "stat /tree/large", "-R", "stat /tree/small", image) == 0
    out = capsys.readouterr().out
    assert "in 4 records, 1 runs" in out
    assert "in the tree" in out
    assert "2009-02-13 23:31:30.123456789 UTC" in out


def test_tree_draws_what_lies_below(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t" / "a" / "b").mkdir(parents=True)
    (tmp_path / "t" / "a" / "x").touch()
    (tmp_path / "t" / "z").touch()
    assert debug("-w", "-R", f"put {tmp_path / 't'}", image) == 0
    capsys.readouterr()
    assert debug("-R", "tree /t", image) == 0
    assert capsys.readouterr().out.splitlines() == [
        "/t", "├── a", "│   ├── b", "│   └── x", "└── z", "", "2 directories, 2 files",
    ]  # fmt: skip
    assert debug("--json", "-R", "tree -L 1 /t", image) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)["entries"]] == ["a", "z"]


def test_super_tells_every_field_and_every_copy(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert debug("--json", "-R", "super", image) == 0
    told = json.loads(capsys.readouterr().out)
    fields = {field.name for field in Superblock.FIELDS} - {"magic", "crc32c", "reserved"}
    assert set(told["superblock"]) == fields
    assert [copy["place"] for copy in told["copies"]][:3] == ["slot A", "slot B", "backup 1"]
    assert debug("-R", "super", image) == 0
    out = capsys.readouterr().out
    assert "00010203-0405-0607-0809-0a0b0c0d0e0f" in out
    assert "tested" in out
    assert "zstd lz4 zlib string_table" in out


def test_a_damaged_backup_is_shown_as_such(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with image.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xff" * 4096)
    assert debug("--json", "-R", "super", image) == 0
    assert "magic" in json.loads(capsys.readouterr().out)["copies"][-1]["state"]


def test_help_knows_every_command(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from razortools.debug.commands import COMMANDS

    assert debug("-R", "help", *(word for name in COMMANDS for word in ("-R", f"help {name}")), image) == 0
    out = capsys.readouterr().out
    assert all(f"usage: {name}" in out for name in COMMANDS)
    assert out.count("example: ") >= len(COMMANDS)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nonsense", "no such command"),
        ("ls --what", "usage: ls"),
        ("ls '", "No closing quotation"),
        ("stat", "usage: stat"),
        ("help nonsense", "no command nonsense"),
        ("cat /", "not a regular file"),
        ("cat", "usage: cat"),
    ],
)
def test_a_command_that_makes_no_sense_gets_a_sentence_and_exit_code_2(
    command: str, words: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert debug("-R", command, image) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls /none", "/none: No such file or directory"),
        ("get /none", "/none: No such file or directory"),
        ("put /etc/passwd", "with -w"),
        ("xattr / user.none", "xattr / user.none: No data available"),  # it said "No data available", of whatever
    ],
)
def test_a_command_that_fails_gets_a_sentence_and_exit_code_1(
    command: str, words: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert debug("-R", command, "-R", "super", image) == 1
    out, err = capsys.readouterr()
    assert out == ""  # stopped at the first error
    assert words in err


def test_what_exists_on_the_host_is_never_overwritten(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_bytes(b"precious")
    os.symlink("mine", tmp_path / "link")
    assert debug("-R", f"get / {tmp_path / 'mine'}", image) == 2
    assert debug("-R", f"get / {tmp_path / 'link'}", image) == 2
    assert (tmp_path / "mine").read_bytes() == b"precious"
    assert "exists already" in capsys.readouterr().err


def test_a_put_that_does_not_fit_leaves_the_image_good_and_what_was_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = make_image(tmp_path / "small.img", 1024 * 1024)
    (tmp_path / "first").write_bytes(b"first")
    (tmp_path / "noise").write_bytes(os.urandom(2_000_000))
    assert debug("-w", "-R", f"put {tmp_path / 'first'}", "-R", f"put {tmp_path / 'noise'}", image) == 1
    assert "does not fit" in capsys.readouterr().err
    assert debug("-R", "cat first", image) == 0


def test_what_was_put_is_missing_on_the_host(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert debug("-w", "-R", f"put {tmp_path / 'none'}", image) == 2
    assert debug("-w", "-R", "put /", image) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_a_script_runs_line_by_line_and_stops_at_the_first_error(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script"
    script.write_text("# a comment\n\nls /\nstat /none\nsuper\n")
    assert debug("-f", script, image) == 1
    out, err = capsys.readouterr()
    assert out == "" and f"razorfs-debug: {script}, line 4: /none: " in err
    script.write_text("ls /\nexplode\n")
    for words in ((), ("--json",)):
        assert debug(*words, "-f", script, image) == 1  # the words of the command itself were right
        assert f"{script}, line 2: " in capsys.readouterr().err
    assert debug("-R", "explode", image) == 2
    capsys.readouterr()
    script.write_text("stat /\nls\n")
    assert debug("--json", "-f", script, image) == 0
    assert [one["command"] for one in json.loads(capsys.readouterr().out)] == ["stat /", "ls"]


def test_lines_typed_into_a_pipe_are_commands(image: Path) -> None:
    finished = run_process(
        [sys.executable, "-m", "razortools.debugfs", image], input=b"ls\nstat /\nquit\nnonsense\n", capture_output=True
    )
    assert finished.returncode == 0
    assert b"directory" in finished.stdout


@pytest.mark.parametrize(
    ("contents", "words"), [(None, "no such file"), (b"", "not a RAZORFS image"), (b"\0" * 2**20, "not a RAZORFS image")]
)
def test_what_is_no_image_is_refused_in_a_sentence(
    contents: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x"
    if contents is not None:
        path.write_bytes(contents)
    assert debug("-R", "ls", path) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_file_whose_data_are_damaged_is_told_by_name_and_never_copied_wrong(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(8192))
    assert debug("-w", "-R", f"put {tmp_path / 'noise'}", image) == 0
    raw = bytearray(image.read_bytes())
    place = raw.find((tmp_path / "noise").read_bytes()[:64])
    raw[place] ^= 1
    image.write_bytes(raw)
    assert debug("-R", f"get /noise {tmp_path / 'back'}", image) == 1
    assert "back could not be copied whole" in capsys.readouterr().err
    assert not (tmp_path / "back").read_bytes().strip(b"\0")


def test_control_characters_of_a_name_do_not_reach_the_terminal(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a\x1b[31m\nb").touch()
    assert debug("-w", "-R", f"put {tmp_path / 't'}", "-R", "ls t", "-R", "ls -l t", "-R", "tree t", image) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("a\\x1b[31m\\nb") == 3


def test_on_a_terminal_an_error_does_not_end_the_session(image: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "razortools.debugfs", image]
    with Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "dumb"}) as process:
        os.close(theirs)
        os.write(ours, b"stat /none\nls --what\nstat /\nquit\n")
        seen = b"".join(iter(lambda: read_terminal(ours), b""))
        assert process.wait() == 0
    os.close(ours)
    assert b"'help' lists the commands" in seen
    assert b"/none: No such file or directory" in seen
    assert b"usage: ls" in seen
    assert b"drwxr-xr-x (0755)" in seen


def read_terminal(descriptor: int) -> bytes:
    """Return what the other side wrote; nothing once it has hung up."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
