"""razorfsck as an operator meets it: what it prints, where, and how it exits."""

import fcntl
import json
import os
import re
from pathlib import Path

import pytest

from razortools import fsck
from razortools.engine.store.device import Device
from razortools.format.superblock import KNOWN_INCOMPAT
from razortools.units import MIB
from tests.check.damages import DAMAGES
from tests.check.editing import flip, image_of, write_superblocks
from tests.check.running import stored
from tests.check.samples import Copy, KeptDevice, healthy, unclean
from tests.schemas import valid


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return stored(healthy(), tmp_path / "image")


def test_a_clean_image_shows_eight_phases_and_a_summary(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("-n", image)
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert lines[0].startswith("RAZORFS Filesystem Check v")
    assert lines[1] == "[1/8] Checking superblock...            OK (5 superblocks)"
    assert [line[:5] for line in lines[1:9]] == [f"[{number}/8]" for number in range(1, 9)]
    assert all(" OK" in line for line in lines[1:9])
    assert lines[10].startswith("Summary: 52 files, 4 directories,") and "ratio" in lines[10]
    assert lines[11] == f"{image}: clean"


def test_damage_is_listed_with_code_and_path(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run(hurt)
    assert code == 4 and err == ""
    assert re.search(r"\[4/8\] Checking directory structure\.\.\.   ERROR: 1 wrong link count$", out, re.MULTILINE)
    assert "E0401 error: /docs/one: inode" in out
    assert "1 problem found, 1 path hurt" in out
    assert "razorfsck explain E0401" in out


@pytest.mark.parametrize("words", [("--only", "2"), ("--path", "/docs/deep"), ("--only", "2,3", "--path", "/docs/deep")])
def test_a_look_at_a_part_calls_the_rest_neither_clean_nor_damaged(run, hurt: Path, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run(*words, hurt)
    assert code == 0 and ": clean" not in out
    assert "the rest was not judged" in out
    assert json.loads(run("--json", *words, hurt).out)["clean"] is None


def test_json_is_one_document_with_the_keys_of_the_contract(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("--json", hurt)
    document = json.loads(out)
    assert (code, err) == (4, "")
    assert set(document) == {"image", "clean", "exit_code", "phases", "findings", "loss", "summary"}
    assert document["clean"] is False and document["exit_code"] == 4
    assert [phase["number"] for phase in document["phases"]] == list(range(1, 9))
    assert all(set(phase) == {"number", "name", "status", "checked", "seconds"} for phase in document["phases"])
    assert {"code", "severity", "path", "where", "message", "repair", "repaired"} <= set(document["findings"][0])
    assert document["findings"][0]["path"] == "/docs/one" and document["findings"][0]["repaired"] is False
    assert set(document["loss"]) == {"unchanged", "renamed", "truncated", "lost"}
    assert set(document["summary"]) == {"files", "directories", "total_bytes", "stored_bytes", "ratio"}


def test_quiet_says_nothing_about_a_clean_image_and_one_line_a_problem(run, image: Path, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    assert run("-q", image) == (0, "", "")
    code, out, _ = run("-q", hurt)
    assert code == 4
    assert [line[:5] for line in out.splitlines()] == ["E0401"]


def test_verbose_tells_what_a_repair_would_do(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    assert "a repair will set the number to what was counted" in run("-v", hurt).out


def test_explain_tells_cause_risk_and_repair(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("explain", "e0501")
    assert code == 0
    assert "E0501" in out and "Cause" in out and "Risk" in out and "Repair" in out
    assert run("explain", "E7777").code == 16


@pytest.mark.parametrize("option", ["--only=9", "--only=x", "--path=docs", "--threads=0", "-b-3", "--what"])
def test_usage_errors_exit_with_16(run, image: Path, option: str) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run(option, image)
    assert (code, out) == (16, "")
    assert err.count("\n") == 1


def test_a_path_that_does_not_exist_is_a_usage_error(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("-q", "--path", "/nowhere", image)
    assert code == 16 and "/nowhere" in err


def test_only_some_phases(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    document = json.loads(run("--json", "--only", "1,4-5", image).out)
    assert [phase["number"] for phase in document["phases"]] == [1, 4, 5]


def test_path_hides_what_lies_elsewhere(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    path = hurt
    assert run("--path", "/docs/deep", path).code == 0
    assert run("--path", "/docs", path).code == 4
    assert run("--path", "/docs/one", path).code == 4


def test_a_backup_superblock_can_be_named(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    backup = image_of(healthy()).geometry.backups[0]
    assert run("-b", backup, image).code == 0
    assert run("-b", backup + 1, image).code == 16


def test_programs_may_follow_the_progress(run, image: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with (tmp_path / "progress").open("w+b") as target:
        assert run("-C", target.fileno(), "-q", image).code == 0
        target.seek(0)
        lines = [line.split() for line in target.read().decode().splitlines()]
    assert {int(line[0]) for line in lines} == set(range(1, 9))
    assert all(0 <= int(line[1]) <= int(line[2]) and line[3] == str(image) for line in lines)
    reading, writing = os.pipe()
    os.close(reading)
    assert run("-C", writing, "-q", image).code == 0, "a reader that went away is no reason to stop"
    os.close(writing)


def test_regression_progress_does_not_go_where_the_document_goes(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    """`razorfsck -C 1 --json IMAGE` printed lines of progress before the document."""
    code, out, err = run("-C", 1, "--json", image)
    assert code == 16 and json.loads(out)["error"] in err and "one document" in err
    assert run("-C", 1, "-q", image).code == 0


def test_an_interrupt_exits_with_32(run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fsck, "check", interrupted)
    code, _, err = run(image)
    assert code == 32 and "interrupted" in err


def _wrong_inputs() -> dict[str, tuple[Device, str]]:
    truncated = KeptDevice(MIB)
    truncated.write(0, healthy().read(0, MIB))
    newer, featured = healthy(), healthy()
    write_superblocks(newer, backups=True, version_major=2)
    write_superblocks(featured, backups=True, incompat=KNOWN_INCOMPAT | 1 << 40)
    return {
        "zeros": (KeptDevice(MIB), "not a RAZORFS image"),
        "tiny": (KeptDevice(100), "not a RAZORFS image"),
        "truncated": (truncated, "truncated"),
        "newer": (newer, "newer"),
        "feature": (featured, "features 0x10000000000"),
    }


@pytest.mark.parametrize("name", ["zeros", "tiny", "truncated", "newer", "feature"])
def test_wrong_input_gets_one_sentence_and_exit_8(run, tmp_path: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    device, sentence = _wrong_inputs()[name]
    path = stored(device, tmp_path / name)
    code, out, err = run(path)
    assert (code, out) == (8, "")
    assert err.startswith(f"razorfsck: {path}: ") and sentence in err and err.count("\n") == 1
    told = run("--json", path)
    document = valid("razorfsck", json.loads(told.out))
    assert document["exit_code"] == 8 and document["clean"] is None  # a regression: it was false, without an error
    assert document["summary"] is None and document["loss"] is None  # nothing was counted
    assert told.err == err == f"razorfsck: {document['error']}\n"
    assert {phase["status"] for phase in document["phases"]} == {"fatal", "skipped"}


def test_no_such_file_and_a_directory_exit_with_8(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for path in (tmp_path / "nothing", tmp_path):
        code, out, err = run(path)
        assert (code, out) == (8, "") and err.count("\n") == 1 and str(path) in err


def test_an_image_in_use_exits_with_8_and_names_the_user(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    with image.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, out, err = run(image)
    assert (code, out) == (8, "")
    assert f"in use by pid {os.getpid()}" in err


def test_an_unclean_image_is_checked_without_writing(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = stored(unclean(2), tmp_path / "unclean")
    before = path.read_bytes()
    code, out, _ = run(path)
    assert code == 0
    assert "E0201 note" in out
    assert path.read_bytes() == before


def test_many_findings_are_cut_short_unless_asked_for(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    device = healthy(copies=1)
    image = image_of(device)
    flip(device, image.superblock.root.address * 4096 + 99)
    path = stored(device, tmp_path / "ruined")
    assert run(path).code == 4
    for _, damage in DAMAGES[:3]:
        assert run(stored(Copy(damage()), tmp_path / "other")).code in (4, 8, 12)
