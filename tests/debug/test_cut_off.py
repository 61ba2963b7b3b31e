"""A commit that a power cut has ended: whoever comes next finds the image as it was, or as it was meant to be."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from razortools import fsck, health
from razortools.check.repair import cut_off
from razortools.check.repair.undo_file import UndoReader
from razortools.check.repair.undo_shelf import HostShelf
from razortools.check.runner import Options, check_quietly
from razortools.cli import app as cli
from razortools.debug.crashtest.disks import RecordingDisk
from razortools.debug.surgery import CommitOrder
from razortools.engine.store.device import open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.undo_place import has_undo_file
from razortools.errors import NotAnImage, RazorError
from razortools.format.undo import Fate
from razortools.service.opening import Place, open_place
from razortools.service.options import parse_options
from tests.check.editing import edit_inode, find_inode
from tests.check.running import stored
from tests.check.samples import healthy
from tests.debug.cut_off import states
from tests.debug.test_commit import NEW, OLD, SEED, committed, holding, values_in
from tests.debug.tool import debug

Commit = tuple[RecordingDisk, bytes, bytes]


@pytest.fixture(scope="module", params=[1, 2], ids=["one copy", "two copies"])
def commit(request: pytest.FixtureRequest) -> Commit:
    """What a commit writes, where nodes have one copy or two; what was there before; its undo file."""
    image = healthy(copies=request.param)
    return committed(image.read(0, image.size_bytes), CommitOrder)


def cuts(commit: Commit, limit: int) -> Iterator[bytes]:
    print(f"seed {SEED}")
    disk, before, _ = commit
    yield from dict.fromkeys(states(before, disk.log, limit, SEED))


def left(folder: Path, image: bytes, undo_file: bytes) -> Path:
    """Put an image and the undo file beside it on the host."""
    path = folder / "image"
    path.write_bytes(image)
    Path(f"{path}.undo").write_bytes(undo_file)
    with open_image(f"{path}.undo", writable=True) as file:
        UndoReader(file).note(Fate.BEGUN, 0)
    return path


def test_taken_back_or_complete_every_state_is_sound_and_all_or_nothing(commit: Commit, tmp_path: Path) -> None:
    seen = set()
    for state in cuts(commit, 6):
        image = left(tmp_path, state, commit[2])
        with open_image(image, writable=True) as device:
            told = cut_off.take_back_unfinished(device, f"{image}.undo")
            assert "taken back" in told if told else True
        after = image.read_bytes()
        assert not told or after == commit[1]
        seen.add((bool(told), values_in(holding(after))))
    assert seen >= {(True, OLD), (False, NEW)} and seen <= {(True, OLD), (False, OLD), (False, NEW)}


def test_what_is_told_without_the_right_to_write_changes_nothing(commit: Commit, tmp_path: Path) -> None:
    told = set()
    for state in cuts(commit, 2):
        image = left(tmp_path, state, commit[2])
        with open_image(image, writable=False) as device:
            told.add(cut_off.about_unfinished(device, f"{image}.undo"))
        assert image.read_bytes() == state
    assert len(told) == 2 and "" in told and any("razorfsck --undo" in one for one in told)


def half_written(commit: Commit) -> bytes:
    """Return a state in which something was written ahead, and if nodes have one copy nobody can read it."""
    for state in cuts(commit, 6):
        device = MemoryDevice(len(state))
        device.write(0, state)
        is_old = state != commit[1] and values_in(holding(state)) in (OLD, None)
        if is_old and check_quietly(device, Options(threads=1)).exit_code:
            return state
    raise AssertionError("no state is half written")


def test_a_mount_takes_it_back_first(commit: Commit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = left(tmp_path, half_written(commit), commit[2])
    place = Place(str(image), str(tmp_path))
    open_place(place, parse_options(["rw"])).close()
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "they were taken back" in caplog.text
    assert values_in(holding(image.read_bytes())) == OLD
    caplog.clear()
    open_place(place, parse_options(["rw"])).close()
    assert caplog.records == []


def test_a_mount_for_reading_tells_of_it(commit: Commit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = left(tmp_path, half_written(commit), commit[2])
    try:
        open_place(Place(str(image), str(tmp_path)), parse_options(["ro"])).close()
    except RazorError:
        pass  # the root may be what cannot be read
    assert "razorfsck --undo" in caplog.text and "so does the next mount" in caplog.text


def checked(*words: object) -> int:
    return cli.invoke(fsck.app, "razorfsck", cli.FSCK_CODES, [str(word) for word in words])


@pytest.mark.parametrize("policy", ["-y", "-p", "--rebuild", "--compact"])
def test_razorfsck_takes_it_back_before_it_judges(
    commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    image = left(tmp_path, half_written(commit), commit[2])
    assert checked(policy, image) in ((0, 1) if policy in ("--rebuild", "--compact") else (0,))
    assert "they were taken back" in capsys.readouterr().err
    assert values_in(holding(image.read_bytes())) == OLD
    with open_image(image, writable=False) as device:
        assert check_quietly(device, Options(threads=1)).exit_code == 0


@pytest.mark.parametrize("words", [["-n"], ["--plan", "plan"], ["--salvage", "files"]])
def test_razorfsck_tells_of_it_where_it_may_not_write(
    commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    image = left(tmp_path, state := half_written(commit), commit[2])
    code = checked(words[0], *(tmp_path / word for word in words[1:]), image)
    assert "razorfsck --undo" in capsys.readouterr().err
    assert image.read_bytes() == state
    assert words[0] != "--plan" or (code == 4 and not (tmp_path / "plan").exists())


def test_health_tells_of_it(commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = left(tmp_path, half_written(commit), commit[2])
    assert cli.invoke(health.app, "razorfs-health", cli.HEALTH_CODES, [str(image)]) in (1, 2)
    assert "WARNING  Changes: changes of razorfs-debug were cut off" in capsys.readouterr().out
    Path(f"{image}.undo").unlink()
    cli.invoke(health.app, "razorfs-health", cli.HEALTH_CODES, [str(image)])
    assert "Changes" not in capsys.readouterr().out


def test_what_was_changed_since_is_left_alone(commit: Commit, tmp_path: Path) -> None:
    state = bytearray(half_written(commit))
    state[4096] ^= 1
    image = left(tmp_path, bytes(state), commit[2])
    with open_image(image, writable=True) as device:
        assert cut_off.take_back_unfinished(device, f"{image}.undo") == ""
    assert image.read_bytes() == state


def test_a_repair_that_was_cut_off_is_none_of_it(tmp_path: Path) -> None:
    """It leaves the old filesystem or the new one, and a mark that asks for a check."""
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    image = stored(device, tmp_path / "image")
    before = image.read_bytes()
    assert checked("-y", image) == 1
    with open_image(f"{image}.undo", writable=True) as file:
        UndoReader(file).note(Fate.BEGUN, 0)
    image.write_bytes(before[:8192] + image.read_bytes()[8192:])
    assert has_undo_file(str(image))
    with open_image(image, writable=False) as changed:
        assert cut_off.about_unfinished(changed, HostShelf(f"{image}.undo", str(image)).name) == ""


def test_the_shell_refuses_to_change_it_before_that_is_decided(
    commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = left(tmp_path, half_written(commit), commit[2])
    assert debug("-w", "-R", "ls", image) == 1
    assert "razorfsck --undo" in capsys.readouterr().err


# An undo file that somebody else may have put there

STRANGER = 65_534


def planted(commit: Commit, folder: Path) -> Path:
    """Put an undo file that would be taken back beside an image; it belongs to nobody who could write the image."""
    if os.geteuid():
        pytest.skip("only root can give files away")
    image = left(folder, half_written(commit), commit[2])
    os.chown(f"{image}.undo", STRANGER, STRANGER)
    return image


@pytest.mark.parametrize("options", [["rw"], ["ro"]], ids=lambda options: options[0])
def test_a_mount_does_not_believe_a_strangers_undo_file(
    commit: Commit, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: list[str]
) -> None:
    image = planted(commit, tmp_path)
    state = image.read_bytes()
    with contextlib.suppress(RazorError):  # the root may be what cannot be read
        open_place(Place(str(image), str(tmp_path)), parse_options(options)).close()
    assert "taken back" not in caplog.text
    assert options == ["rw"] or image.read_bytes() == state
    assert f"{image}.undo: belongs to user {STRANGER}" in caplog.text and "razorfsck --undo --undo-file" in caplog.text


def test_the_owner_of_an_image_is_believed(commit: Commit, tmp_path: Path) -> None:
    image = planted(commit, tmp_path)
    assert not has_undo_file(str(image))
    os.chown(image, STRANGER, STRANGER)
    assert has_undo_file(str(image))


@pytest.mark.parametrize("words", [["-y"], ["-n"]], ids=lambda words: words[0])
def test_razorfsck_does_not_believe_it_either(
    commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    checked(*words, planted(commit, tmp_path))
    told = capsys.readouterr().err
    assert f"belongs to user {STRANGER}" in told and "taken back" not in told


def test_it_is_taken_back_if_the_operator_names_it(commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = planted(commit, tmp_path)
    state = image.read_bytes()
    assert checked("--undo", image) not in (0, 1)
    assert f"belongs to user {STRANGER}" in capsys.readouterr().err and image.read_bytes() == state
    assert checked("--undo", "--undo-file", f"{image}.undo", image) == 0
    assert values_in(holding(image.read_bytes())) == OLD


def test_health_and_the_shell_tell_of_a_strangers_undo_file(
    commit: Commit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = planted(commit, tmp_path)
    cli.invoke(health.app, "razorfs-health", cli.HEALTH_CODES, [str(image)])
    assert f"WARNING  Changes: {image}.undo: belongs to user {STRANGER}" in capsys.readouterr().out
    debug("-R", "superblocks", image)
    assert f"belongs to user {STRANGER}" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFDIR, stat.S_IFLNK], ids=["pipe", "folder", "link"])
def test_nobody_waits_for_what_is_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    image = stored(healthy(), tmp_path / "image")
    if mode == stat.S_IFIFO:
        os.mkfifo(f"{image}.undo")
    elif mode == stat.S_IFDIR:
        os.mkdir(f"{image}.undo")
    else:
        os.symlink("/dev/zero", f"{image}.undo")
    open_place(Place(str(image), str(tmp_path)), parse_options(["rw"])).close()
    assert "is no regular file" in caplog.text
    assert checked("-n", image) == 0
    assert checked("--undo", image) == 8
    assert capsys.readouterr().err.count("is no regular file") == 2


def test_opening_a_pipe_as_an_image_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAnImage, match="neither a file nor a block device"):
        open_image(tmp_path / "pipe", writable=False)
