"""The frame of the commands: one sentence for whatever goes wrong, and the exit code that the contract names."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer

import razortools
from razortools.cli import app as cli
from razortools.cli.app import DebugFlag, ImageArg, VersionFlag
from razortools.errors import CorruptImage, ImageBusy, NotAnImage, OutOfSpace, UsageError, sentence

ALL_CODES = {
    "mkfs.razorfs": cli.MKFS_CODES,
    "razorfsck": cli.FSCK_CODES,
    "mount.razorfs": cli.MOUNT_CODES,
    "razorfs-debug": cli.DEBUG_CODES,
    "razorfs-health": cli.HEALTH_CODES,
}
every_command = pytest.mark.parametrize("name", ALL_CODES)


def command(action: Callable[[], int | None]) -> typer.Typer:
    """Return an app with one command that does *action*."""
    app = cli.new_app()

    @app.command(help="Do something.")
    def do(
        image: ImageArg,
        size: Annotated[int | None, cli.size_option("--size", help="A size.")] = None,
        version: VersionFlag = False,
        debug: DebugFlag = False,
    ) -> int | None:
        return size if size is not None else action()

    return app


def raising(failure: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise failure

    return action


@every_command
@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "--no-such-option"], ["a", "--size", "huge"], ["a", "--size"]])
def test_a_command_line_that_makes_no_sense_gets_one_sentence_and_the_usage_code(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.invoke(command(lambda: 0), name, ALL_CODES[name], words) == ALL_CODES[name].usage
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"{name}: ")
    assert f"{name} --help" in err


@every_command
def test_each_error_has_its_exit_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    codes = ALL_CODES[name]
    expected = [
        (UsageError("no"), codes.usage),
        (CorruptImage("no"), codes.corrupt),
        (NotAnImage("no"), codes.failed),
        (ImageBusy("no"), codes.failed),
        (OutOfSpace("no"), codes.failed),
        (PermissionError(13, "Permission denied", "/x"), codes.failed),
        (KeyError("surprise"), codes.bug),
        (KeyboardInterrupt(), codes.interrupted),
    ]
    for failure, code in expected:
        assert cli.invoke(command(raising(failure)), name, codes, ["a"]) == code, failure
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert "Traceback" not in err


def test_fsck_and_mount_keep_to_their_manual_pages() -> None:
    assert (cli.FSCK_CODES.corrupt, cli.FSCK_CODES.failed, cli.FSCK_CODES.usage, cli.FSCK_CODES.interrupted) == (4, 8, 16, 32)
    assert (cli.MOUNT_CODES.usage, cli.MOUNT_CODES.bug, cli.MOUNT_CODES.interrupted, cli.MOUNT_CODES.failed) == (1, 4, 8, 32)


@pytest.mark.parametrize("code", [None, 0, 1, 2, 5, 36])
def test_what_a_command_returns_is_the_exit_code(code: int | None) -> None:
    assert cli.invoke(command(lambda: code), "x", cli.FSCK_CODES, ["a"]) == (code or 0)


def test_an_exit_raised_within_is_the_exit_code() -> None:
    assert cli.invoke(command(raising(typer.Exit(2))), "x", cli.FSCK_CODES, ["a"]) == 2


def test_run_ends_the_process_with_the_exit_code() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(command(lambda: 7), "x", cli.DEBUG_CODES, ["a"])
    assert ended.value.code == 7


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(command(raising(KeyError("surprise"))), "x", cli.DEBUG_CODES, ["a", "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("x: internal error")


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_needs_no_image(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(command(lambda: 1), "x", cli.DEBUG_CODES, [flag]) == 0
    assert capsys.readouterr().out == f"razortools {razortools.__version__}\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_option(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(command(lambda: 1), "x", cli.DEBUG_CODES, [flag]) == 0
    out = capsys.readouterr().out
    assert all(option in out for option in ("IMAGE", "--size SIZE", "--version", "--debug", "--help"))


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("64K", 65536), ("2G", 2 << 30), ("1.5k", 1536)])
def test_sizes_are_written_as_people_write_them(text: str, size: int) -> None:
    assert cli.invoke(command(lambda: 0), "x", cli.DEBUG_CODES, ["a", "--size", text]) == size


def test_an_error_of_the_host_says_what_where_and_what_to_do() -> None:
    text = sentence(PermissionError(13, "Permission denied", b"/some\xffwhere"))
    assert text == "/some\udcffwhere: Permission denied. Run as a user who may, or change the permissions"


def test_a_reader_that_went_away_is_no_error_to_talk_about(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = "import sys; from razortools.cli import app as c; sys.exit(c.guard(lambda: print('x' * 10**6), 'x', c.DEBUG_CODES))"
    from subprocess import PIPE, Popen

    with Popen([sys.executable, "-c", script], stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
