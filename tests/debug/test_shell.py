"""The shell: completion, help, pipes, paging, and a session on a terminal."""

import os
import pty
import sys
from pathlib import Path
from subprocess import Popen

import pytest

from razortools.cli import debug_screen
from razortools.debug.answers import Lines
from razortools.debug.commands import COMMANDS, TOPICS
from razortools.debug.completion import candidates
from razortools.debug.opening import open_session
from razortools.debug.session import Session, split_pipe
from tests.debug.tool import answer, debug, furnished, text


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("shell") / "a.img")


def completed(session: Session, typed: str) -> list[str]:
    """Return the lines that Tab offers for *typed*."""
    return [typed[: len(typed) - found.replaced] + found.text for found in candidates(session, COMMANDS, typed)]


def test_commands_options_and_paths_are_completed_from_their_declarations(image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with open_session(str(image), writable=False, tell=lambda said: None) as session:
        assert completed(session, "jour") == ["journal "]
        assert "journal -v " in completed(session, "journal -")
        assert completed(session, "journal --pa") == ["journal --path "]
        assert sorted(completed(session, "ls /h")) == ["ls /hard ", "ls /home/"]
        assert completed(session, "cat /home/sm") == ["cat /home/small "]
        assert completed(session, "cat /hard /home/te") == ["cat /hard /home/text "]
        assert completed(session, f"get /hard {tmp_path}/o") == [f"get /hard {tmp_path}/out/"]
        assert completed(session, "help jour") == ["help journal "]
        assert completed(session, "set inode.ui") == ["set inode.uid "]
        assert completed(session, "find --type ") == [f"find --type {one} " for one in "fdlpscb"]
        assert completed(session, "tree -L 1 /home/de") == ["tree -L 1 /home/deep/"]
        session.directory = b"/home"
        assert completed(session, "stat sm") == ["stat small "]
        assert completed(session, "cat ../har") == ["cat ../hard "]
        for nonsense in ("nonsense x", "cat /none/x", "cat /a | w", "ls '/h", "pwd x", "", "'"):
            candidates(session, COMMANDS, nonsense)


def test_a_name_with_a_blank_is_completed_in_quotes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    (tmp_path / "with blank").write_bytes(b"found\n")
    assert debug("-w", "-R", f"put '{tmp_path}/with blank'", image) == 0
    with open_session(str(image), writable=False, tell=lambda said: None) as session:
        (line,) = completed(session, "cat /wi")
        assert completed(session, "cat '/with bl") == [line]
    capfd.readouterr()
    assert debug("-R", line, image) == 0
    assert capfd.readouterr().out == "found\n"


def test_the_words_behind_a_bar_are_a_program_of_the_host(image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert debug("-R", "cat /home/text | wc -c", "-R", "ls /home | grep '^s' | sort -r", image) == 0
    assert capfd.readouterr().out.split() == ["360000", "symlink", "sparse", "small"]
    assert debug("-R", "cat /home/text | head -c 3 >/dev/null", image) == 0
    assert debug("-R", "cat /home/text | false", "-R", "ls", image) == 1
    out, err = capfd.readouterr()
    assert (out, "false: ended with exit code 1" in err) == ("", True)
    assert debug("--json", "-R", "ls | cat", image) == 2


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("cat /a | wc -c", ("cat /a ", "wc -c")),
        ("cat '/a|b' | x | y", ("cat '/a|b' ", "x | y")),
        (r"cat /a\|b", (r"cat /a\|b", "")),
        ('cat "/a|b"', ('cat "/a|b"', "")),
        ("ls # a | b", ("ls # a | b", "")),
    ],
)
def test_a_quoted_bar_is_part_of_a_name(line: str, parts: tuple[str, str]) -> None:
    assert split_pipe(line) == parts


def test_a_long_answer_goes_through_the_pager(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PAGER", "sed s/^/paged:/")
    monkeypatch.setenv("LINES", "10")
    debug_screen.show_paged(Lines(["x"] * 3))
    assert "paged" not in capfd.readouterr().out
    debug_screen.show_paged(Lines(["x"] * 30))
    assert capfd.readouterr().out == "paged:x\n" * 30
    monkeypatch.setenv("PAGER", "/none/such")
    debug_screen.show_paged(Lines(["x"] * 30))
    assert capfd.readouterr().out == "x\n" * 30


def test_help_tells_options_and_examples_of_each_command(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(map(len, TOPICS.values())) == len(COMMANDS)
    for name, command in COMMANDS.items():
        told = answer(capsys, image, f"help {name}")
        assert told["usage"].startswith(f"usage: {name}")
        assert told["examples"], name
        options = [option for action in command.words.parameters() for option in action.option_strings]
        assert len([1 for option in options if any(option in written for written in told["options"])]) == len(options), name


def test_every_example_is_understood() -> None:
    import shlex

    for name, command in COMMANDS.items():
        for example in command.examples:
            words = shlex.split(split_pipe(example)[0])
            assert words[0] == name
            command.words.parse_args(words[1:])


def test_cd_moves_where_relative_paths_start(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ("cd home/deep/deeper", "pwd", "cd ..", "pwd", "ls", "cd", "pwd", "cd /../home/./", "ls deep", "pwd")
    assert text(capsys, image, *lines).split() == ["/home/deep/deeper", "/home/deep", "deeper", "/", "deeper", "/home"]
    assert debug("-R", "cd /hard", image) == 2
    assert debug("-R", "cd /none", image) == 1


def test_a_session_on_a_terminal_completes_remembers_and_goes_on_after_an_error(image: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1"}
    (tmp_path / "razorfs").mkdir()
    (tmp_path / "razorfs" / "debug_history").write_text("\n# 2026\n+stat /home/deep\n")  # of an earlier session
    typed = (  # what is typed, and what is waited for before typing on
        (b"", b"razorfs:/"),
        (b"\x1b[A", b"deep"),
        (b"\r", b"drwx------"),
        (b"stat /none\r", b"No such file"),
        (b"cd /ho\t", b"me"),
        (b"\r", b"razorfs:/home"),
        (b"cat small | tr a-z A-Z\r", b"SMALL"),
        (b"quit\r", b"quit"),
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "razortools.debugfs", str(image)]
    with Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True) as process:
        os.close(theirs)
        for keys, awaited in typed:
            os.write(ours, keys)
            seen = b""
            while awaited not in seen:
                more = _read(ours)
                assert more, seen
                seen += more
        while _read(ours):
            pass
        assert process.wait() == 0
    os.close(ours)
    history = (tmp_path / "razorfs" / "debug_history").read_text()
    assert [line for line in history.splitlines() if line.startswith("+")][-2:] == ["+cat small | tr a-z A-Z", "+quit"]


def _read(descriptor: int) -> bytes:
    """Return what the other side wrote; nothing once it has hung up."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
