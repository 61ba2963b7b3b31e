"""Files in the image: looked for, summed up, exported and changed, and all of it agrees with what the engine says."""

import io
import os
import stat
import tarfile
from pathlib import Path
from subprocess import run as run_process

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.cli import app as cli
from razortools.debug.changing import new_mode
from razortools.engine import namespace, xattrs
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from tests.debug.tool import NOISE, TEXT, answer, crashed, debug, furnished, text
from tests.images import open_for_writing


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("files") / "a.img")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An image to change."""
    return furnished(tmp_path / "own.img")


def paths(capsys: pytest.CaptureFixture[str], image: Path, command: str) -> list[str]:
    """Return the paths that find tells."""
    return [one["path"] for one in answer(capsys, image, command)["found"]]


def test_find_tells_what_fits_all_conditions(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = paths(capsys, image, "find")
    assert everything[:3] == ["/", "/hard", "/home"]
    assert len(everything) == 10
    assert paths(capsys, image, "find /home --name 's*'") == ["/home/small", "/home/sparse", "/home/symlink"]
    assert paths(capsys, image, "find --type d --depth 2") == ["/", "/home", "/home/deep"]
    assert paths(capsys, image, "find --type f --larger 300000") == ["/home/sparse", "/home/text"]
    assert paths(capsys, image, "find --type f --smaller 10 --links 2") == ["/hard", "/home/small"]
    assert paths(capsys, image, "find /home --uid 1000 --mode 0755") == ["/home"]
    assert text(capsys, image, "cd home", "find deep") == "/home/deep\n/home/deep/deeper\n"
    assert debug("-R", "find --larger x", image) == 2
    assert "'x' is not a size" in capsys.readouterr().err


def test_du_counts_each_file_once_and_agrees_with_the_counters(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {one["path"]: one for one in answer(capsys, image, "du")["directories"]}
    with open_volume(open_image(image, writable=False), read_only=True) as volume:
        assert told["/"]["stored_bytes"] == volume.counters.data_blocks * volume.block_bytes
        assert told["/"]["files"] == volume.counters.inode_count - volume.counters.directory_count
    assert told["/home"]["size"] == len(TEXT) + len(NOISE) + (1 << 20) + 3  # /hard was counted above
    assert list(told) == ["/", "/home", "/home/deep", "/home/deep/deeper"]
    assert [one["path"] for one in answer(capsys, image, "du -d 1")["directories"]] == ["/", "/home"]
    (one,) = answer(capsys, image, "du -s /home/text")["directories"]
    assert (one["size"], one["files"]) == (len(TEXT), 1)
    assert "ratio" in text(capsys, image, "du")


def test_head_writes_so_many_lines_or_bytes(image: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    line = TEXT.partition(b"\n")[0] + b"\n"
    for command, expected in (
        ("head /home/text", line * 10), ("head -n 3 /home/text", line * 3), ("head -c 5 /home/text", TEXT[:5]),
        ("head -n 0 /hard", b""),
        ("head /hard", b"small\n"), ("head -c 1K /hard", b"small\n"), ("head -n 20000 /home/text", TEXT),
    ):  # fmt: skip
        assert debug("-R", command, image) == 0
        assert capfdbinary.readouterr().out == expected, command
    assert debug("-R", "head /home", image) == 2


def test_what_was_exported_and_made_an_image_of_again_is_the_same(
    image: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from razortools import mkfs

    assert debug("-R", "export /", image) == 0
    archive = capfdbinary.readouterr().out
    (tmp_path / "a.tar").write_bytes(archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        members = {member.name: member for member in opened}
    assert members["home/small"].islnk()
    assert members["home/symlink"].linkname == "../nowhere"
    assert (
        b"".join(
            run_process(["tar", "-xOf", "-", "home/text"], input=archive, capture_output=True, check=True).stdout.splitlines(True)
        )
        == TEXT
    )
    assert (
        cli.invoke(
            mkfs.app, "mkfs.razorfs", cli.MKFS_CODES, ["-q", "-d", str(tmp_path / "a.tar"), str(tmp_path / "b.img"), "16M"]
        )
        == 0
    )
    there, back = (_facts(one) for one in (image, tmp_path / "b.img"))
    assert there == back


def again(image: Path, archive: bytes) -> Path:
    """Make an image of *archive* beside *image*."""
    from razortools import mkfs

    made = image.with_name("again.img")
    image.with_name("again.tar").write_bytes(archive)
    words = ["-q", "-f", "-d", str(image.with_name("again.tar")), str(made), "16M"]
    assert cli.invoke(mkfs.app, "mkfs.razorfs", cli.MKFS_CODES, words) == 0
    return made


def test_an_archive_has_the_attributes_of_the_directory_that_was_exported(
    own: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with open_for_writing(own) as volume:
        xattrs.set(volume, ROOT_INODE, b"user.top", b"said")
        namespace.setattr(volume, ROOT_INODE, namespace.AttributeChange(mode=0o1710, uid=12, gid=34, mtime_ns=1234, atime_ns=5))
    assert debug("-R", "export /", own) == 0
    there, back = _facts(own), _facts(again(own, capfdbinary.readouterr().out))
    assert there[b"/"] == back[b"/"]
    assert debug("-R", "export /home", own) == 0
    assert _facts(again(own, capfdbinary.readouterr().out))[b"/"] == there[b"/home"]


def test_attributes_whose_names_are_no_text_are_exported(
    own: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    pairs = {b"user.\xff\xfe": b"\xff", b"user.\xfc=%": b"text", "user.ü".encode(): b""}
    with open_for_writing(own) as volume:
        for name, value in pairs.items():
            xattrs.set(volume, namespace.resolve(volume, b"/hard"), name, value)
    assert debug("-R", "export /", own) == 0
    archive = capfdbinary.readouterr().out
    assert _facts(again(own, archive)) == _facts(own)
    command = ["tar", "--xattrs", "--no-same-owner", "-xf", "-", "-C", tmp_path, "hard", "home/small"]
    finished = run_process(command, input=archive, capture_output=True)
    assert finished.returncode == 0, finished.stderr
    assert {name: os.getxattr(tmp_path / "hard", name) for name in pairs} == pairs


def _facts(image: Path) -> dict[bytes, tuple[object, ...]]:
    """Return all that is kept of each path, but what a new image makes anew."""
    from razortools.debug.opening import open_session
    from razortools.debug.walking import walk
    from razortools.engine import files

    found: dict[bytes, tuple[object, ...]] = {}
    with open_session(str(image), writable=False, tell=lambda said: None) as session:
        for one in walk(session, "/"):
            inode = one.inode
            assert inode is not None
            contents = files.read(session.volume, one.ino, 0, inode.size) if inode.is_regular else b""
            attributes = {name: xattrs.get(session.volume, one.ino, name) for name in xattrs.names(session.volume, one.ino)}
            times = (inode.mtime_ns, inode.atime_ns)
            found[one.path] = (inode.mode, inode.uid, inode.gid, inode.link_count, inode.size, times, contents, attributes)
    return found


def test_attributes_and_lists_are_shown_as_they_are(image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert text(capfd, image, "xattr /hard").split() == ["user.comment", "said"]
    assert debug("-R", "xattr /hard user.comment", image) == 0
    assert capfd.readouterr().out == "said"
    (large,) = answer(capfd, image, "xattr /home/noise")
    assert (large["name"], bytes.fromhex(large["hex"])) == ("user.large", bytes(range(256)) * 40)
    assert text(capfd, image, "acl /home/sparse").splitlines()[3:] == [
        "user::rwx", "user:1001:rw-", "group::r-x", "mask::rwx", "other::---"
    ]  # fmt: skip
    assert answer(capfd, image, "acl /hard") == {"access": ["user::rw-", "group::r--", "other::r--"]}
    assert debug("-R", "xattr /hard user.none", image) == 1


def test_what_is_changed_is_there_afterwards_and_the_image_is_good(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from razortools.check.runner import check_quietly

    text(
        capsys, own, "mkdir -p /a/b/c", "mkdir -m 0700 /only", "mv /home/text /a", "mv /a/text /a/renamed", "ln /a/renamed /a/b",
        "ln -s ../x /a/link", "chown 5:6 /a/renamed", "chmod u+s,go-rwx /a/renamed", "chown :7 /hard",
        "touch -t 12.5 /a/renamed /a/new",
        "truncate -s 5 /home/noise", "setxattr /a/new user.x 0x00ff", "rmxattr /hard user.comment", "rm -r /home/deep",
        "rm /home/small",
        write=True,
    )  # fmt: skip
    facts = answer(capsys, own, "stat /a/renamed")
    assert (facts["mode"], facts["uid"], facts["gid"], facts["mtime_ns"], facts["links"]) == (0o104600, 5, 6, 12_500_000_000, 2)
    assert sorted(facts["paths"]) == ["/a/b/renamed", "/a/renamed"]
    assert paths(capsys, own, "find /a") == ["/a", "/a/b", "/a/b/c", "/a/b/renamed", "/a/link", "/a/new", "/a/renamed"]
    assert answer(capsys, own, "stat /home/noise")["size"] == 5
    assert answer(capsys, own, "xattr /a/new")[0]["hex"] == "00ff"
    assert answer(capsys, own, "stat /only")["mode"] & 0o7777 == 0o700
    assert answer(capsys, own, "stat /hard")["gid"] == 7
    assert paths(capsys, own, "find /home") == ["/home", "/home/noise", "/home/sparse", "/home/symlink"]
    with open_image(own, writable=False) as device:
        assert check_quietly(device).exit_code == 0


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("rm /home", 2, "rm -r removes it"),
        ("rm -r /", 2, "root has no name"),
        ("rm /none", 1, "No such file"),
        ("mkdir /home", 1, "File exists"),
        ("mv /home /home/deep", 1, "move into itself"),
        ("chmod u+q /hard", 2, "write it as 0644"),
        ("chmod 9 /hard", 2, "write it as 0644"),
        ("chown me /hard", 2, "in numbers"),
        ("truncate -s 1 /home", 1, "directory"),
        ("setxattr /hard user.a 0x0", 2, "hexadecimal"),
        ("mkdir -m 99 /x", 2, "invalid octal value"),
    ],
)
def test_a_change_that_cannot_be_made_leaves_nothing_behind(
    command: str, code: int, words: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _facts(own)
    assert debug("-w", "-R", command, "-R", "mkdir /never", own) == code
    assert words in capsys.readouterr().err
    assert _facts(own) == before
    assert debug("-R", command, own) in (1, 2)


def numbered(capsys: pytest.CaptureFixture[str], image: Path, path: str) -> str:
    """Return the word that stands for the inode at *path*."""
    return f"<{answer(capsys, image, f'stat {path}')['inode']}>"


def test_a_word_that_is_a_number_is_never_read_as_a_name_as_well(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To remove it took the contents of inode 2, and the name of a directory that is called so."""
    home = numbered(capsys, own, "/home")
    text(capsys, own, f"mkdir '/{home}'", f"touch '/{home}/inside'", write=True)
    before = _facts(own)
    for command in (f"rm -r '{home}'", f"mv '{home}' /moved"):
        assert debug("-w", "-R", command, own) == 2
        assert f"{home}: is inode {home[1:-1]}, and a name in / as well" in capsys.readouterr().err
        assert _facts(own) == before
    text(capsys, own, f"rm -r './{home}'", write=True)
    assert set(_facts(own)) == {path for path in before if not path.startswith(f"/{home}".encode())}


def test_what_has_one_name_is_removed_and_moved_by_number(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise, deep, home = (numbered(capsys, own, path) for path in ("/home/noise", "/home/deep", "/home"))
    text(capsys, own, f"mv '{noise}' /", f"mv '{deep}' /named", f"ln '{noise}' '{home}'", write=True)
    assert answer(capsys, own, "stat /noise")["paths"] == ["/noise", "/home/noise"]
    assert answer(capsys, own, f"cd '{home}'") == {"directory": "/home"}
    assert "/named/deeper" in paths(capsys, own, f"find '{deep}'")
    text(capsys, own, f"rm -r '{deep}'", f"rm '{numbered(capsys, own, '/home/text')}'", write=True)
    assert paths(capsys, own, "find /") == [
        "/", "/hard", "/home", "/home/noise", "/home/small", "/home/sparse", "/home/symlink", "/noise"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("rm {0}", 2, "has 2 names, and the number does not say which: /home/small, /hard"),
        ("mv {0} /x", 2, "has 2 names"),
        ("rm '<1>'", 2, "root has no name"),
        ("rm '<9999>'", 1, "there is no inode 9999"),
        ("touch '<9999>'", 1, "there is no inode 9999"),
        ("mkdir '<9999>'", 1, "there is no inode 9999"),
        ("mkdir {0}", 1, "File exists"),
        ("ln /home/text '<9999>'", 1, "there is no inode 9999"),
    ],
)
def test_a_number_that_stands_for_no_one_name_is_refused(
    command: str, code: int, words: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _facts(own)
    assert debug("-w", "-R", command.format(f"'{numbered(capsys, own, '/hard')}'"), own) == code
    assert words in capsys.readouterr().err
    assert _facts(own) == before


def test_damage_is_told_and_does_not_hide_the_rest(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from razortools.format.keys import name_key
    from tests.check.editing import editing

    with open_image(own, writable=True) as device, editing(device) as store:
        store.tree.delete(name_key(4))  # type: ignore[arg-type]
    found = answer(capsys, own, "find")
    assert [one["path"] for one in found["unreadable"]] == ["/home"]
    assert {one["path"] for one in found["found"]} >= {"/", "/hard", "/home"}
    assert "UNREADABLE /home: " in text(capsys, own, "du")
    assert debug("-R", "export / | cat >/dev/null", own) == 1
    assert "would not be whole" in capsys.readouterr().err


def test_a_crashed_image_is_searched_as_it_will_be_recovered(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "/late" in paths(capsys, crashed(tmp_path / "crashed.img", own), "find")


@given(mode=st.integers(0, 0o7777), octal=st.integers(0, 0o7777))
def test_an_octal_mode_is_what_it_says(mode: int, octal: int) -> None:
    assert new_mode(f"{octal:04o}", stat.S_IFREG | mode) == octal


def test_symbolic_modes_are_read_as_chmod_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.touch()
    for start in (0, 0o644, 0o755, 0o4711, 0o1777):
        for clause in ("u+x", "go-w", "a=r", "u=rw,g=r,o=", "+x", "u+s,g+s", "o+t", "a+X", "ug=rwx,o-rwx"):
            file.chmod(start)
            run_process(["chmod", clause, str(file)], check=True, umask=0)
            assert f"{new_mode(clause, stat.S_IFREG | start):04o}" == f"{stat.S_IMODE(file.stat().st_mode):04o}", (start, clause)
