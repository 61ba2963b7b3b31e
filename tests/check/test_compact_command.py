"""razorfsck --compact as an operator meets it: what it prints, what it writes, how it exits."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from razortools import fsck
from razortools.check.repair.write_out import Written
from razortools.engine.store.device import open_image
from razortools.units import MIB
from tests.check.aged import aged
from tests.check.running import stored
from tests.check.samples import healthy, unclean


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return stored(aged(), tmp_path / "image")


def test_it_tells_what_was_gained_and_how_to_take_it_back(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("--compact", image)
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert [line[:5] for line in lines[1:9]] == [f"[{number}/8]" for number in range(1, 9)]
    assert lines[10].startswith("Compacting, step 1: join ") and " drop 4 strings, save " in lines[10]
    assert "Compacted: " in lines[12] and lines[12].endswith(" freed")
    assert [line.split(":")[0].strip() for line in lines[13:18]] == [
        "nodes", "leaves", "fragments", "strings", "largest free run",
    ]  # fmt: skip
    assert lines[18] == f"razorfsck --undo {image} takes it back, as long as {image}.undo is kept"
    assert lines[-1] == f"{image}: clean"


def test_the_second_run_finds_nothing_to_do_and_a_look_is_clean(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    assert run("--compact", image).code == 1
    before = image.read_bytes()
    code, out, _ = run("--compact", image)
    assert code == 0 and "There is nothing to compact" in out
    assert image.read_bytes() == before
    assert run(image).code == 0


def test_undo_gives_back_the_image_bit_for_bit(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    before = image.read_bytes()
    assert run("-q", "--compact", "--undo-file", image.with_name("elsewhere"), image) == (1, "", "")
    assert image.read_bytes() != before
    assert run("--undo", "--undo-file", image.with_name("elsewhere"), image).code == 0
    assert image.read_bytes() == before


def test_each_step_can_be_taken_back(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image = stored(unclean(2), tmp_path / "image")
    before = image.read_bytes()
    code, out, _ = run("--compact", image)
    assert code == 1 and "step 1: replay what waits in the journal" in out and "takes the last of 2 steps back" in out
    _, out, _ = run("--undo", image)
    assert f"--undo --undo-file {image}.undo.1" in out
    assert run("--undo", "--undo-file", f"{image}.undo.1", image).code == 0
    assert image.read_bytes() == before


def test_json_tells_the_figures(run, image: Path) -> None:  # type: ignore[no-untyped-def]
    document = json.loads(run("--compact", "--json", image).out)
    told = document["compaction"]
    assert document["exit_code"] == 1 and document["clean"] is True
    assert set(told) == {
        "done", "refused", "before", "after", "freed_bytes", "strings_dropped", "moved_bytes", "left", "steps", "undo_file",
    }  # fmt: skip
    keys = {"nodes", "leaf_fill", "strings", "fragments", "used_bytes", "largest_free_bytes"}
    assert set(told["before"]) == set(told["after"]) == keys
    assert told["freed_bytes"] == told["before"]["used_bytes"] - told["after"]["used_bytes"] > 0
    assert told["left"] == {"fragments": 0, "nodes": 0, "cut_short": False}
    assert (told["steps"], told["undo_file"], told["refused"]) == (1, f"{image}.undo", None)


def test_an_image_that_is_not_clean_is_refused(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    before = hurt.read_bytes()
    code, out, err = run("--compact", hurt)
    assert code == 4 and "E0401 error: /docs/one" in out
    assert err.startswith(f"razorfsck: {hurt}: nothing was changed: it is not clean (E0401") and "--repair" in err
    assert hurt.read_bytes() == before and not Path(f"{hurt}.undo").exists()
    document = json.loads(run("--compact", "--json", hurt).out)
    assert document["exit_code"] == 4 and "not clean" in document["compaction"]["refused"]
    assert document["compaction"]["before"] is None


def test_an_image_in_use_and_one_of_another_kind_are_refused(run, image: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with open_image(image, writable=False):
        code, _, err = run("--compact", image)
    assert code == 8 and "in use" in err
    other = tmp_path / "other"
    other.write_bytes(bytes(MIB))
    code, _, err = run("--compact", other)
    assert code == 8 and err.count("\n") == 1 and "not a RAZORFS image" in err


@pytest.mark.parametrize("option", ["-n", "-p", "-y", "-i", "-f", "--rebuild", "--only=1", "--path=/", "--undo", "--plan=x"])
def test_what_means_nothing_to_it_is_refused(run, image: Path, option: str) -> None:  # type: ignore[no-untyped-def]
    assert run("--compact", option, image).code == 16


def test_an_interrupt_before_the_first_write_changes_nothing(run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = image.read_bytes()
    monkeypatch.setattr(fsck, "write_out", interrupted)
    assert run("--compact", image).code == 32
    assert image.read_bytes() == before


def test_a_signal_after_the_first_write_ends_it_behind_the_step(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    really = fsck.write_out

    def write_out(*arguments: Any, **more: Any) -> Written:
        written = really(*arguments, **more)
        os.kill(os.getpid(), signal.SIGTERM)
        return written

    monkeypatch.setattr(fsck, "write_out", write_out)
    image = stored(unclean(2), tmp_path / "image")
    code, out, err = run("--compact", image)
    assert code == 1 and "SIGTERM had to wait until the step was written" in err
    assert f"there is more to do: run razorfsck --compact {image} again" in out
    monkeypatch.undo()
    assert run(image).code == 0
    assert "step 1: join" in run("--compact", image).out


def test_a_look_offers_it_where_it_pays(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image = stored(aged(8 * MIB, growing_count=24), tmp_path / "image")
    before = image.read_bytes()
    code, out, _ = run("-n", image)
    assert code == 0
    assert out.splitlines()[-1].startswith(f"razorfsck --compact {image} would join ")
    told = json.loads(run("--json", image).out)["compaction"]
    assert set(told) == {
        "would_join_fragments", "would_save_nodes", "would_drop_strings", "would_free_bytes", "would_move_bytes",
    }  # fmt: skip
    assert told["would_join_fragments"] >= 64
    assert image.read_bytes() == before
    assert "--compact" not in run("-n", "--only", "1-3", image).out
    assert run("--compact", image).code == 1
    assert "--compact" not in run("-n", image).out
    assert "--compact" not in run("-n", stored(healthy(), tmp_path / "other")).out
