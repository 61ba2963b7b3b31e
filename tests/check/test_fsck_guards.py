"""razorfsck guards what it is given: no option, no plan and no signal makes it write where it must not, or say what is not so."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from razortools import fsck
from razortools.check.repair import plan_file, undo_shelf
from razortools.check.repair import repair as repair_module
from razortools.cli import fsck_words
from razortools.cli.fsck_signals import Signals
from razortools.engine.store.device import FileDevice
from tests.check.editing import image_of
from tests.check.running import Run, stored
from tests.check.samples import healthy

pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")
Razorfsck = Callable[..., Run]


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return stored(healthy(), tmp_path / "clean")


def refused(result: Run, *words: str) -> bool:
    """Return whether *result* is a usage error in one sentence that holds *words*."""
    assert (result.code, result.out, result.err.count("\n")) == (16, "", 1), result
    assert "internal error" not in result.err
    assert all(word in result.err for word in words), result.err
    return True


# -C: where progress goes


@pytest.mark.parametrize("number", [999, -1, 2**31, 99999999999999])
def test_progress_to_a_descriptor_that_is_not_open_is_a_usage_error(run: Razorfsck, hurt: Path, number: int) -> None:
    before = hurt.read_bytes()
    assert refused(run("-y", "-C", number, hurt), "-C", str(number))
    assert hurt.read_bytes() == before


def test_progress_never_goes_into_the_image_through_the_descriptor_that_opening_it_takes(hurt: Path) -> None:
    before = hurt.read_bytes()
    words = [sys.executable, "-m", "razortools.fsck", "-y", "-C", "3", str(hurt)]
    done = subprocess.run(words, capture_output=True, close_fds=True, check=False)
    assert done.returncode == 16 and b"-C: 3" in done.stderr
    assert hurt.read_bytes() == before


def test_progress_never_goes_into_the_image_through_another_descriptor(run: Razorfsck, hurt: Path, tmp_path: Path) -> None:
    before, link = hurt.read_bytes(), tmp_path / "link"
    link.symlink_to(hurt)
    with hurt.open("ab") as held:
        assert refused(run("-y", "-C", held.fileno(), link), "leads into", str(link))
    assert hurt.read_bytes() == before


def test_progress_to_a_descriptor_for_reading_is_a_usage_error(run: Razorfsck, clean: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"")
    with (tmp_path / "source").open("rb") as source:
        assert refused(run("-C", source.fileno(), clean), "not open for writing")


# --plan: where a plan goes


def test_a_plan_never_overwrites_the_image(run: Razorfsck, hurt: Path, tmp_path: Path) -> None:
    before, soft, hard = hurt.read_bytes(), tmp_path / "soft", tmp_path / "hard"
    soft.symlink_to(hurt)
    hard.hardlink_to(hurt)
    for path in (hurt, soft, hard):
        assert refused(run("--plan", path, hurt), "is the image itself")
    assert hurt.read_bytes() == before


def test_a_plan_never_overwrites_what_is_no_plan(run: Razorfsck, hurt: Path, clean: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text('{"format": "razorfsck plan of mine"}')
    for path in (clean, letter):
        before = path.read_bytes()
        assert refused(run("--plan", path, hurt), str(path), "is no plan")
        assert path.read_bytes() == before
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, Path("/dev/null"), tmp_path / "pipe"):
        assert refused(run("--plan", path, hurt), "no regular file")
    assert refused(run("--plan", tmp_path / "nowhere" / "plan", hurt), "no directory")


def test_where_a_plan_cannot_go_is_told_before_the_work(
    run: Razorfsck, hurt: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsck, "repair", None)
    assert refused(run("--plan", clean, hurt), "is no plan")


def test_an_older_plan_and_an_empty_file_may_be_overwritten(run: Razorfsck, hurt: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    plan.touch()
    assert run("--plan", plan, hurt).code == 4
    first = plan.read_bytes()
    assert run("--plan", plan, hurt).code == 4
    assert plan.read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hurt", "plan"]


def test_a_plan_that_cannot_be_written_leaves_the_older_one(
    run: Razorfsck, hurt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    plan = tmp_path / "plan"
    assert run("--plan", plan, hurt).code == 4
    before = plan.read_bytes()
    monkeypatch.setattr("razortools.check.repair.plan_place.os.fsync", full)
    code, _, err = run("--plan", plan, hurt)
    assert code == 8 and "No space left" in err
    assert plan.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hurt", "plan"]


# -b: a backup that is none


@pytest.mark.parametrize("options", [[], ["-y"], ["-p"], ["-y", "--rebuild"], ["--json"]])
def test_a_wrong_backup_is_a_usage_error_and_never_a_rebuild(run: Razorfsck, clean: Path, options: list[str]) -> None:
    before = clean.read_bytes()
    backups = ", ".join(map(str, image_of(healthy()).geometry.backups))
    code, _, err = run(*options, "-b", 12345, clean)
    assert code == 16 and "block 12345" in err and f"backups lie in the blocks {backups}" in err
    assert err.count("\n") == 1
    assert clean.read_bytes() == before


def test_a_plan_with_a_wrong_backup_is_a_usage_error(run: Razorfsck, hurt: Path, tmp_path: Path) -> None:
    plan, before = tmp_path / "plan", hurt.read_bytes()
    assert run("--plan", plan, hurt).code == 4
    plan.write_text(plan.read_text().replace('"backup_block": null', '"backup_block": 77'))
    assert refused(run("--apply", plan, hurt), "block 77")
    assert hurt.read_bytes() == before


def test_naming_a_backup_makes_even_preening_look(run: Razorfsck, hurt: Path) -> None:
    backup = image_of(healthy()).geometry.backups[0]
    assert "not checked" in run("-p", hurt).out
    assert run("-p", "-b", backup, hurt).code == 1


# Signals


def send_at_write(monkeypatch: pytest.MonkeyPatch, image: Path, number: int, *, times: int = 2) -> list[int]:
    """Let the signal *number* come at each of the first writes to *image*; return the list of what was written."""
    plain, written = FileDevice.write, []

    def write(self: FileDevice, offset: int, data: bytes) -> None:
        if self.name == str(image):
            written.append(offset)
            if len(written) <= times:
                signal.raise_signal(number)
        plain(self, offset, data)

    monkeypatch.setattr(FileDevice, "write", write)
    return written


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("moment", ["take_inventory", "plan"])
def test_a_signal_before_the_first_write_ends_the_work(
    run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, moment: str
) -> None:
    before, handlers = hurt.read_bytes(), [signal.getsignal(one) for one in SIGNALS]
    monkeypatch.setattr(repair_module, moment, lambda *_: signal.raise_signal(number))
    code, _, err = run("-y", hurt)
    assert code == 32 and "interrupted" in err
    assert hurt.read_bytes() == before
    assert sorted(path.name for path in hurt.parent.iterdir()) == ["hurt"]
    assert [signal.getsignal(one) for one in SIGNALS] == handlers


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_undo_file_is_made_leaves_nothing_behind(
    run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = hurt.read_bytes()
    send_at_write(monkeypatch, Path(f"{hurt}.undo.new"), number)
    assert run("-y", hurt).code == 32
    assert hurt.read_bytes() == before
    assert sorted(path.name for path in hurt.parent.iterdir()) == ["hurt"]


@pytest.mark.parametrize("number", SIGNALS)
def test_from_the_first_write_on_signals_wait_and_the_exit_code_tells_of_the_repair(
    run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = hurt.read_bytes()
    with monkeypatch.context() as patch:
        written = send_at_write(patch, hurt, number)
        code, out, err = run("-y", hurt)
    assert len(written) > 2 and code == 1
    assert "Repaired: 1 x E0401" in out and f"{number.name} had to wait" in err
    assert run(hurt).code == 0
    assert run("--undo", hurt).code == 0
    assert hurt.read_bytes() == before


def test_signals_while_the_image_is_put_back_do_not_leave_it_half_written(
    run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plain, written = hurt.read_bytes(), FileDevice.write, []

    def write(self: FileDevice, offset: int, data: bytes) -> None:
        if self.name == str(hurt):
            written.append(offset)
            signal.raise_signal(signal.SIGINT)
            if len(written) == 3:
                raise fsck.cli.RazorError("the disk refuses")
        plain(self, offset, data)

    monkeypatch.setattr(FileDevice, "write", write)
    code, _, err = run("-y", hurt)
    assert code == 8 and "put back as it was" in err
    assert len(written) > 3 and hurt.read_bytes() == before


@pytest.mark.parametrize("number", SIGNALS)
def test_an_undo_comes_to_its_end_whatever_signals_come(
    run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = hurt.read_bytes()
    assert run("-y", hurt).code == 1
    send_at_write(monkeypatch, hurt, number)
    code, _, err = run("--undo", hurt)
    assert code == 0 and "had to wait until the repair was taken back" in err
    assert hurt.read_bytes() == before


def test_a_signal_before_an_undo_writes_changes_nothing(run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("-y", hurt).code == 1
    repaired = hurt.read_bytes()
    monkeypatch.setattr("razortools.check.repair.undo.sector_checksums", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert run("--undo", hurt).code == 32
    assert hurt.read_bytes() == repaired


@pytest.mark.parametrize(("options", "exit_code"), [(["-y"], 1), (["-n"], 4), (["-p"], 0)])
def test_a_signal_while_the_result_is_told_neither_denies_it_nor_tells_another(
    run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], exit_code: int
) -> None:
    plain = fsck.render.document

    def document(told: object) -> None:
        plain(told)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fsck.render, "document", document)
    code, out, _ = run("--json", *options, hurt)
    assert code == json.loads(out)["exit_code"] == exit_code


def test_a_signal_behind_the_last_word_of_a_process_does_not_change_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    monkeypatch.setattr(Signals, "for_good", True)
    try:
        with Signals() as signals:
            signals.hold()
        signal.raise_signal(signal.SIGINT)
        assert signals.came == "SIGINT"
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_come_back_to_whoever_had_them_before() -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with Signals() as signals:
        signals.hold()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert signals.came == "SIGTERM"
    with pytest.raises(KeyboardInterrupt), Signals():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    came: list[str] = []

    def work() -> None:
        with Signals() as signals:
            signals.hold()
        came.append("through")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert came == ["through"]


# A rebuild of a clean image, and a plan that is refused


def test_a_rebuild_of_a_clean_image_says_what_it_did_and_exits_with_1(run: Razorfsck, clean: Path) -> None:
    before = clean.read_bytes()
    code, out, _ = run("--rebuild", clean)
    assert code == 1
    assert clean.read_bytes() != before
    assert "Repaired: nothing was wrong; the image was written anew, as asked for" in out
    assert run("--undo", clean).code == 0
    assert clean.read_bytes() == before
    document = json.loads(run("--json", "--rebuild", clean).out)
    assert (document["exit_code"], document["clean"]) == (1, True)


def test_a_repair_that_is_refused_exits_with_4(run: Razorfsck, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = clean.read_bytes()
    monkeypatch.setattr(repair_module, "objection", lambda *_, **__: "it is worse")
    code, _, err = run("--rebuild", clean)
    assert code == 4 and "nothing was changed: it is worse" in err
    assert json.loads(run("--json", "--rebuild", clean).out)["exit_code"] == 4
    assert clean.read_bytes() == before


def test_a_plan_that_is_refused_exits_with_4_also_on_a_clean_image(run: Razorfsck, clean: Path, tmp_path: Path) -> None:
    plan, before = tmp_path / "plan", clean.read_bytes()
    assert run("--rebuild", "--plan", plan, clean).code == 0
    told = json.loads(plan.read_text())
    edit = {"round": 1, "do": "copy node", "code": "E0302", "why": "", "path": None, "block": 0, "source": (1 << 48) - 1}
    plan.write_text(json.dumps(told | {"edits": [edit]}))
    code, _, err = run("--apply", plan, clean)
    assert code == 4 and "nothing was changed" in err
    assert clean.read_bytes() == before


# -i: what is asked about is shown


@pytest.mark.parametrize("options", [["-q"], ["--json"], []])
def test_the_question_shows_what_the_repair_costs(
    run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\n"))
    code, out, err = run("-i", *options, hurt)
    assert code == 1
    assert "E0401 /docs/one" in err and "Repair it?" in err
    assert err.index("This repair costs: nothing; 52 files unchanged") < err.index("Write the repaired image?")
    if options == ["--json"]:
        assert json.loads(out)["exit_code"] == 1


# --json: one document, whatever happens


@pytest.mark.parametrize(
    ("options", "exit_code"),
    [(["nowhere"], 8), (["-n", "-y", "x"], 16), (["--what", "x"], 16), ([], 16), (["--undo", "hurt"], 8), (["x", "y"], 16),
     (["-b", "3", "hurt"], 16), (["-C", "-5", "hurt"], 16)],
)  # fmt: skip
def test_an_error_is_one_document_too(
    run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], exit_code: int
) -> None:
    monkeypatch.chdir(hurt.parent)
    code, out, err = run("--json", *options)
    document = json.loads(out)
    assert code == document["exit_code"] == exit_code
    assert document["clean"] is None and err == f"razorfsck: {document['error']}\n"
    assert document["image"] in (None, *options)


def test_an_interrupt_is_one_document_too(run: Razorfsck, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsck, "check", lambda *_: signal.raise_signal(signal.SIGTERM))
    code, out, _ = run("--json", clean)
    document = json.loads(out)
    assert code == document["exit_code"] == 32 and document["error"] == "interrupted" and document["image"] == str(clean)


def test_undo_and_salvage_print_the_keys_of_the_contract(run: Razorfsck, hurt: Path, tmp_path: Path) -> None:
    keys = {"image", "clean", "exit_code", "phases", "findings", "loss", "summary"}
    code, out, _ = run("--json", "--salvage", tmp_path / "out", hurt)
    salvaged = json.loads(out)
    assert keys <= set(salvaged) and salvaged["exit_code"] == code and salvaged["clean"] is None
    assert run("-y", hurt).code == 1
    code, out, _ = run("--json", "--undo", hurt)
    undone = json.loads(out)
    assert keys <= set(undone) and undone["exit_code"] == code == 0 and undone["undone"] is True


def test_what_was_not_counted_is_null(run: Razorfsck, hurt: Path) -> None:
    preened = json.loads(run("--json", "-p", hurt).out)
    assert preened["summary"] is None and preened["loss"] is None and preened["clean"] is True
    looked_at = json.loads(run("--json", hurt).out)
    assert looked_at["loss"]["unchanged"] is None and looked_at["summary"]["files"] == 52


# Options that would be ignored


@pytest.mark.parametrize(
    "options",
    [["--salvage", "out", "--path", "/docs"], ["--salvage", "out", "--only", "3"], ["--salvage", "out", "-b", "128"],
     ["--salvage", "out", "-C", "1"], ["--salvage", "out", "--threads", "1"], ["--salvage", "out", "-f"],
     ["--undo", "--only", "1"], ["--undo", "--path", "/docs"], ["--undo", "-b", "128"], ["--undo", "-f"], ["--undo", "-v"],
     ["--undo", "-C", "1"], ["--apply", "plan", "-b", "128"], ["--apply", "plan", "-f"], ["--apply", "plan", "-y"],
     ["--plan", "plan", "--undo-file", "x"], ["--plan", "plan", "--only", "1"], ["-y", "--path", "/docs"], ["-p", "--only", "1"],
     ["--undo-file", "x"], ["-n", "--undo-file", "x"], ["--plan", "", "--undo"]],
)  # fmt: skip
def test_an_option_that_would_be_ignored_is_refused_by_its_name(run: Razorfsck, hurt: Path, options: list[str]) -> None:
    before = hurt.read_bytes()
    assert refused(run(*options, hurt), next((option for option in options[::-1] if option.startswith("-")), ""))
    assert hurt.read_bytes() == before
    assert sorted(path.name for path in hurt.parent.iterdir()) == ["hurt"]


@pytest.mark.parametrize("option", ["-f", "-y", "-q", "--undo"])
def test_explaining_a_code_takes_no_options(run: Razorfsck, option: str) -> None:
    assert refused(run("explain", "E0401", option), option)


def test_every_option_stands_in_the_table() -> None:
    told = set().union(*fsck_words.GOES_WITH.values())
    for parameter in fsck.typer.main.get_command(fsck.app).params:
        if parameter.param_type_name == "option" and parameter.name not in ("version", "debug"):
            assert told & {*parameter.opts, *parameter.secondary_opts}, parameter.name


# Block devices


def test_the_undo_file_of_a_block_device_does_not_lie_in_dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, link, image = tmp_path / "sdb1", tmp_path / "by-label", tmp_path / "image"
    device.touch()
    link.symlink_to(device)
    image.touch()
    plain = os.stat
    there = plain(device)

    def look(path: object, **options: object) -> object:
        found = plain(path, **options)  # type: ignore[call-overload]
        return SimpleNamespace(st_mode=stat.S_IFBLK | 0o660) if os.path.samestat(found, there) else found

    monkeypatch.setattr(undo_shelf.os, "stat", look)
    name = str(device.resolve()).strip("/").replace("/", "-")
    assert fsck.default_undo_file(str(device)) == f"/var/lib/razorfs/{name}.undo"
    assert fsck.default_undo_file(str(link)) == f"/var/lib/razorfs/{name}.undo"
    assert fsck.default_undo_file(str(image)) == f"{image}.undo"
    assert fsck.default_undo_file(str(tmp_path / "nowhere")) == f"{tmp_path / 'nowhere'}.undo"


def test_the_directory_for_undo_files_is_made_when_it_is_needed(
    run: Razorfsck, hurt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, before = tmp_path / "lib" / "razorfs", hurt.read_bytes()
    monkeypatch.setattr(undo_shelf, "UNDO_DIRECTORY", str(directory))
    monkeypatch.setattr(fsck, "default_undo_file", lambda _: str(directory / "dev-sdb1.undo"))
    assert run("-y", hurt).code == 1
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert run("--undo", hurt).code == 0
    assert hurt.read_bytes() == before


@pytest.mark.parametrize("deed", [["-y"], ["--rebuild"], ["-i"]])
def test_where_an_undo_file_cannot_go_is_told_before_the_work(
    run: Razorfsck, hurt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: list[str]
) -> None:
    before = hurt.read_bytes()
    monkeypatch.setattr(fsck, "repair", None)
    code, _, err = run(*deed, "--undo-file", tmp_path / "no" / "where", hurt)
    assert code == 8 and "no undo file can be made" in err and "--undo-file" in err
    letter = tmp_path / "letter"
    letter.write_text("Dear Ada")
    assert refused(run(*deed, "--undo-file", letter, hurt), "is no undo file")
    assert refused(run(*deed, "--undo-file", hurt, hurt), "is no undo file")
    assert letter.read_text() == "Dear Ada" and hurt.read_bytes() == before


def test_preening_a_healthy_image_needs_no_place_for_an_undo_file(run: Razorfsck, clean: Path, tmp_path: Path) -> None:
    assert run("-p", "-f", "--undo-file", tmp_path / "no" / "where", clean).code == 0


# Plans that were made to hurt


def told_edit(**parts: object) -> dict[str, object]:
    edit = {"round": 1, "do": "set superblock field", "code": "E0401", "why": "", "path": None, "field": "generation", "value": 1}
    return edit | parts


HOSTILE = {
    "endless round": told_edit(round=float("inf")),
    "no number as round": told_edit(round=float("nan")),
    "negative round": told_edit(round=-1),
    "huge value": told_edit(value=float("inf")),
    "number as path": told_edit(path=5),
    "list as why": told_edit(why=[]),
    "truth as value": told_edit(value=True),
    "truth as block": told_edit(do="mend leaf", block=True, field="", value=None),
    "negative block": told_edit(do="mend leaf", block=-1, field="", value=None),
    "block behind all devices": told_edit(do="mend leaf", block=1 << 48, field="", value=None),
    "less than no transactions": told_edit(do="replay", value=-1, field=""),
    "unknown code": told_edit(code="E9999"),
    "unknown field": told_edit(field="colour"),
    "unknown verb": told_edit(do="dance"),
    "a list as verb": told_edit(do=[]),
    "short key": told_edit(do="delete item", key="00", field="", value=None),
    "number as key": told_edit(do="delete item", key=7, field="", value=None),
    "no kind in the key": told_edit(do="set field", key="ff" * 18),
    "wrong hex": told_edit(value={"hex": "zz"}),
    "no hex": told_edit(value={}),
    "text in a tuple": told_edit(value=["x"]),
    "text as edit": "edit",
    "null as edit": None,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_edit_is_a_usage_error_in_one_sentence(run: Razorfsck, hurt: Path, tmp_path: Path, name: str) -> None:
    plan, before = tmp_path / "plan", hurt.read_bytes()
    assert run("--plan", plan, hurt).code == 4
    told = json.loads(plan.read_text())
    plan.write_text(json.dumps(told | {"edits": [HOSTILE[name]]}))
    assert refused(run("--apply", plan, hurt), str(plan))
    assert hurt.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 200_000, "\0", '{"format": "razorfsck plan 1"}', '{"format": "razorfsck plan 1", "edits": 5}', "1e999",
     '{"format": "razorfsck plan 1", "identity": "", "uuid": "", "generation": 1e999, "edits": []}',
     '{"format": "razorfsck plan 1", "identity": "", "uuid": "", "generation": ' + "9" * 5000 + ', "edits": []}',
     '{"format": "razorfsck plan 1", "identity": "", "uuid": "", "generation": 1, "backup_block": -3, "edits": []}'],
)  # fmt: skip
def test_a_hostile_file_is_a_usage_error_in_one_sentence(run: Razorfsck, hurt: Path, tmp_path: Path, text: str) -> None:
    plan = tmp_path / "plan"
    plan.write_text(text)
    assert refused(run("--apply", plan, hurt), str(plan))
    plan.write_bytes(b"\xff\xfe" + text.encode())
    assert refused(run("--apply", plan, hurt), str(plan))


def test_a_plan_of_more_rounds_than_a_repair_makes_is_refused(run: Razorfsck, hurt: Path, tmp_path: Path) -> None:
    assert plan_file.PLAN_ROUNDS_MAX > repair_module.ROUNDS_MAX + 1, "a rebuild, the frame and the mark of errors come on top"
    plan = tmp_path / "plan"
    assert run("--plan", plan, hurt).code == 4
    told = json.loads(plan.read_text())
    edit = told["edits"][0]
    plan.write_text(json.dumps(told | {"edits": [edit | {"round": number} for number in range(1000)]}))
    assert refused(run("--apply", plan, hurt), "1000 rounds")


def test_a_plan_that_never_ends_is_refused(run: Razorfsck, hurt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_file, "PLAN_CHARACTERS_MAX", 10_000)
    assert refused(run("--apply", "/dev/zero", hurt), "too long")
