"""razorfs-health: what is wrong is said, what is well is called well, and the exit code is the verdict."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from razortools import health as front_end
from razortools.cli import app as cli
from razortools.engine import files, namespace
from razortools.engine.health import Verdict, about_failure, worst
from razortools.engine.store.mounts import Mount
from razortools.format.inode import ROOT_INODE
from razortools.service import asking, examination, mountpoints
from tests.images import make_image, open_for_writing
from tests.schemas import valid


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = make_image(tmp_path / "a.img", label="tested")
    with open_for_writing(path) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"text", 0o644, 0, 0)
        files.write(volume, ino, 0, b"the same again and again " * 10_000)
    return path


def health(*words: object) -> int:
    """Return the exit code of razorfs-health with *words*."""
    return cli.invoke(front_end.app, front_end.NAME, cli.HEALTH_CODES, [str(word) for word in words])


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        file.write(data)


def test_a_good_image_is_called_well_and_stays_as_it_is(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = image.read_bytes()
    assert health(image) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("OK       ") for line in lines)
    assert image.read_bytes() == before


def test_an_image_fresh_from_mkfs_is_well(tmp_path: Path) -> None:
    assert health(make_image(tmp_path / "new.img", 1024 * 1024)) == 0


def test_json_tells_the_figures(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health("--json", image) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["exit_code"]) == ("ok", 0)
    valid("razorfs-health", told)
    figures = told["images"][0]["figures"]
    assert told["images"][0]["live"] is None
    assert figures["label"] == "tested"
    assert (figures["inodes"], figures["directories"], figures["raw_bytes"]) == (2, 1, 250_000)
    assert figures["compression_ratio"] == round(figures["raw_bytes"] / figures["stored_bytes"], 2) > 10
    assert figures["superblock_copies_invalid"] == 0
    assert figures["state"] == "clean"


def test_prometheus_metrics_agree_with_the_figures(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health("--json", image) == 0
    figures = json.loads(capsys.readouterr().out)["images"][0]["figures"]
    assert health("--prometheus", image) == 0
    page = capsys.readouterr().out
    values = dict(re.findall(r'^(\w+)\{image="[^"]+"\} (\d+)$', page, re.MULTILINE))
    assert values["razorfs_health"] == "0"
    assert int(values["razorfs_data_raw_bytes"]) == figures["raw_bytes"]
    assert int(values["razorfs_free_bytes"]) == figures["free_bytes"]
    for name in values:
        assert f"# TYPE {name} gauge" in page
        assert f"# HELP {name} " in page


def test_nagios_gets_one_line_with_performance_data(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health("--nagios", image) == 0
    out = capsys.readouterr().out
    name = re.escape(str(image))  # two images of one name may lie in different places
    data = rf"'{name} space'=[\d.]+%;90.0;97.0 '{name} journal'=[\d.]+%;75.0"
    assert re.fullmatch(rf"RAZORFS OK - all is well \| {data}\n", out)


def test_thresholds_can_be_chosen(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health("--space-warning", "1", image) == 1
    assert "WARNING  Space" in capsys.readouterr().out
    assert health("--nagios", "--space-warning", "0.1", "--space-critical", "1", image) == 2
    assert capsys.readouterr().out.startswith(f"RAZORFS CRITICAL - {image}: Space: ")


def test_a_damaged_copy_of_the_superblock_is_a_warning(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overwrite(image, -4096, b"\xff" * 100)
    assert health(image) == 1
    assert "WARNING  Superblock: 1 of 6 copies do not verify" in capsys.readouterr().out


def test_an_image_that_was_not_unmounted_is_a_warning_that_says_what_will_happen(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = open_for_writing(image)
    namespace.mkdir(volume, ROOT_INODE, b"new", 0o755, 0, 0)
    volume.commit()
    crashed = tmp_path / "crashed.img"
    crashed.write_bytes(image.read_bytes())
    volume.close()
    assert health(crashed) == 1
    assert "WARNING  State: was not unmounted; the next mount replays 1 transaction by itself" in capsys.readouterr().out
    assert health("--json", crashed) == 1
    assert json.loads(capsys.readouterr().out)["images"][0]["figures"]["journal_used_bytes"] > 0


def test_an_image_in_use_is_judged_by_its_last_checkpoint(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_for_writing(image):
        assert health(image) == 0
    assert "in use" in capsys.readouterr().out


def test_damaged_metadata_is_critical_in_every_form(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = bytearray(image.read_bytes())
    at = raw.find(b"RZND")
    while at >= 0:  # both copies of every node
        raw[at + 50] ^= 0xFF
        at = raw.find(b"RZND", at + 1)
    image.write_bytes(raw)
    for form in ([], ["--json"], ["--nagios"], ["--prometheus"]):
        assert health(*form, image) == 2, form
    assert "CRITICAL" in capsys.readouterr().out


@pytest.mark.parametrize("form", [[], ["--json"], ["--nagios"], ["--prometheus"]])
def test_what_cannot_be_examined_is_unknown(form: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noise").write_bytes(b"noise" * 10_000)
    assert health(*form, tmp_path / "noise") == 3
    assert health(*form, tmp_path / "none") == 3
    assert "Traceback" not in capsys.readouterr().err


def test_a_directory_that_is_no_mount_point_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert health(tmp_path) == 3
    assert "no RAZORFS is mounted there" in capsys.readouterr().err
    assert health("--json", "--nagios", tmp_path) == 3


NO_DEVICE = (0, 1 << 20)  # no mount has such a number
TMPFS = Mount(2, 0, (0, 5), b"/tmp", "tmpfs", b"tmpfs")


def has_mounts(monkeypatch: pytest.MonkeyPatch, *found: Mount) -> None:
    """Let these be all mounts; nobody serves them."""
    for module in (examination, mountpoints, asking):
        monkeypatch.setattr(module, "mounts", lambda: list(found))


def test_mount_points_are_found_in_the_kernels_table(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "with space"
    place.mkdir()
    has_mounts(monkeypatch, Mount(1, 0, NO_DEVICE, os.fsencode(place), "fuse.razorfs", os.fsencode(image)), TMPFS)
    assert health(place) == 0
    assert health() == 0
    assert f"{image}: OK" in capsys.readouterr().out


def test_a_mount_whose_daemon_has_died_is_critical_and_says_how_to_go_on(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by playing an incident: it was "Transport endpoint is not connected" and unknown, or nothing of the mount."""
    has_mounts(monkeypatch, Mount(1, 0, NO_DEVICE, os.fsencode(tmp_path), "fuse.razorfs", os.fsencode(image)))
    monkeypatch.setattr(examination.mountpoints, "is_dead", lambda place: place == str(tmp_path))
    is_directory = Path.is_dir

    def as_the_kernel_answers(path: Path) -> bool:
        if path == tmp_path:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return is_directory(path)

    monkeypatch.setattr(Path, "is_dir", as_the_kernel_answers)
    for words in ([tmp_path], [image], []):
        assert health(*words) == 2, words
        said = capsys.readouterr().out
        assert f"CRITICAL Mount: the daemon that served it at {tmp_path} has died" in said
        assert f"mount.razorfs {image} {tmp_path}" in said


def test_without_any_mount_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    has_mounts(monkeypatch)
    assert health() == 3
    assert health("--nagios") == 3
    assert "no RAZORFS is mounted" in capsys.readouterr().out


def test_critical_weighs_more_than_unknown_and_unknown_more_than_a_warning() -> None:
    assert worst([Verdict.OK, Verdict.WARNING]) is Verdict.WARNING
    assert worst([Verdict.UNKNOWN, Verdict.WARNING]) is Verdict.UNKNOWN
    assert worst([Verdict.UNKNOWN, Verdict.CRITICAL]) is Verdict.CRITICAL
    assert worst([]) is Verdict.UNKNOWN


def test_what_a_mount_says_of_itself_comes_first_and_counts_even_if_its_image_cannot_be_examined(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(examination, "_live", lambda *_: examination.Live(about_failure("the disk is gone")))
    wanted = "CRITICAL Mount: has turned read-only by itself: the disk is gone"
    with open_for_writing(image):
        assert health(image) == 2
        assert capsys.readouterr().out.splitlines()[0] == wanted
        kept = image.read_bytes()
        overwrite(image, 0, bytes(len(kept)))
        assert health(image) == 2
        told = capsys.readouterr().out.splitlines()
        assert told[0] == wanted and told[1].startswith("UNKNOWN")
        overwrite(image, 0, kept)


def test_a_mount_that_has_not_failed_says_nothing() -> None:
    assert about_failure("") == ()


@pytest.mark.parametrize(
    "words",
    [["--space-warning", "nan"], ["--space-warning", "-5"], ["--space-warning", "1000"], ["--space-critical", "50"],
     ["--journal-warning", "101"], ["--cache-target", "-1"], ["--full-warning", "inf"], ["--watch", "--interval", "nan"],
     ["--watch", "--interval", "inf"], ["--watch", "--interval", "1e20"], ["--interval", "5"], ["--frames", "2"],
     ["--seconds", "5"], ["-o", "flame.svg"]],
)  # fmt: skip
def test_regression_an_option_that_could_never_mean_anything_is_refused(
    image: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """They were accepted without a word, and the intervals were internal errors."""
    assert health(*words, image) == cli.HEALTH_CODES.usage
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words[-2].lstrip("-") in err or "--output" in err


def test_regression_a_directory_where_nothing_is_mounted_has_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There was none."""
    assert health("--json", tmp_path) == 3
    told = valid("razorfs-health", json.loads(capsys.readouterr().out))
    assert told["verdict"] == "unknown" and "no RAZORFS is mounted there" in told["images"][0]["reasons"][0]["text"]
