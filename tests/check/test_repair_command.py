"""razorfsck as an operator meets it when it repairs: what it prints, what it writes, how it exits."""

import fcntl
import io
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from razortools import fsck
from razortools.check.repair import repair as repair_module
from razortools.engine import namespace
from razortools.engine.store.device import Device, FileDevice, open_image
from razortools.engine.store.superblocks import backup_images, newest
from razortools.format.geometry import geometry_of
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import State
from tests.check.damages import DAMAGES
from tests.check.editing import edit_inode, find_inode, write_superblocks
from tests.check.running import stored
from tests.check.samples import healthy, new_device, opened, unclean
from tests.check.test_rebuild import destroy, nodes_by_level
from tests.check.test_secondhand import CROWD, grown, without
from tools.damaged_image import IMAGE


def test_the_first_repair_exits_with_1_and_the_second_with_0(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("--repair", hurt)
    assert (code, err) == (1, "")
    assert "E0401 /docs/one: set its link count to 1" in out
    assert run("--repair", hurt).code == 0


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The image that the documents show, of which some can be mended and some cannot."""
    image = tmp_path / "damaged"
    image.write_bytes(zstandard.ZstdDecompressor().decompress(IMAGE.read_bytes()))
    return image


def test_a_second_preen_of_what_it_cannot_mend_writes_nothing(run, damaged: Path) -> None:  # type: ignore[no-untyped-def]
    """Each run cleared the mark of errors and set it again: a new image, one more undo file, and files "lost" by it."""
    assert run("-p", damaged).code & 4
    before, undo_files = damaged.read_bytes(), sorted(damaged.parent.glob("*.undo*"))
    code, out, _ = run("-p", damaged)
    assert code == 4 and damaged.read_bytes() == before
    assert sorted(damaged.parent.glob("*.undo*")) == undo_files
    assert "written anew" not in out and "Lost by" not in out


def test_json_tells_what_was_repaired(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    document = json.loads(run("--json", "-y", hurt).out)
    assert document["exit_code"] == 1 and document["clean"]
    assert [(finding["code"], finding["repaired"]) for finding in document["findings"]] == [("E0401", True)]
    assert [edit["do"] for edit in document["repair"]["edits"]] == ["set field"]


def test_a_repair_tells_what_it_costs_and_how_to_take_it_back(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    out = run("-y", hurt).out
    assert "Lost by damage and repair: nothing; 52 files unchanged" in out
    assert f"razorfsck --undo {hurt} takes it back, as long as {hurt}.undo is kept" in out


def test_where_no_file_could_be_seen_before_a_repair_its_costs_are_not_called_nothing(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A lost root hides every file: the statement said "nothing; 0 files unchanged", whatever was lost."""
    device = healthy()
    nodes = nodes_by_level(device)
    destroy(device, nodes[max(nodes)][0])
    image, copy = stored(device, tmp_path / "image"), stored(device, tmp_path / "copy")
    code, out, _ = run("-y", image)
    assert code == 1
    counted = "of 56 files and directories that the superblock counts, 56 were found; 56 found again, not compared"
    assert f"Lost by damage and repair: not known file by file, as no file could be seen before; {counted}" in out
    nothing_known = dict.fromkeys(("unchanged", "renamed", "truncated", "lost"))
    assert json.loads(run("--json", "-y", copy).out)["loss"] == nothing_known | {"lost_unnamed": 0, "not_compared": 56}


def deep() -> Device:
    """Return an image with 10 chains of 40 directories: a leaf has the names of what it holds, and there is no older one."""
    device = new_device()
    with opened(device) as volume:
        for chain in range(10):
            above = ROOT_INODE
            for depth in range(40):
                above = namespace.mkdir(volume, above, b"%d in %d" % (depth, chain), 0o755, 1, 2)
    return device


@pytest.mark.parametrize("is_root_lost", [False, True])
def test_what_vanishes_with_its_leaf_is_counted_as_lost(run, tmp_path: Path, is_root_lost: bool) -> None:  # type: ignore[no-untyped-def]
    """The names were in the same leaf, so nobody could list them, and 0 were called lost, or nothing at all."""
    device = deep()
    nodes = nodes_by_level(device)
    destroy(device, nodes[0][3])
    if is_root_lost:
        destroy(device, nodes[max(nodes)][0])
    image, copy = stored(device, tmp_path / "image"), stored(device, tmp_path / "copy")
    out, document = run("-y", image).out, json.loads(run("--json", "-y", copy).out)
    gone = 401 - sum(document["summary"][kind] for kind in ("files", "directories")) + 1  # lost+found was not there
    cost = document["loss"]
    assert cost["lost_unnamed"] + len(cost["lost"] or ()) == gone > 2 and cost["lost_unnamed"] > 1
    assert f"lost: files and directories that are not listed by name: {cost['lost_unnamed']}" in out
    assert (f"{gone} lost; " in out) != is_root_lost
    assert (f"of 401 files and directories that the superblock counts, {401 - gone} were found;" in out) == is_root_lost


def test_files_that_may_be_in_an_older_state_are_counted_and_named(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = run("-y", "-v", stored(without(grown(), 30, 0), tmp_path / "image")).out
    assert f"found again, not compared; {CROWD + 1} perhaps in an older state" in out
    assert f"Perhaps in an older state, without the last changes: {CROWD + 1} files\n" in out
    assert "      older: /\n      older: /file 0\n" in out


def test_undo_gives_back_the_image_bit_for_bit(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    before = hurt.read_bytes()
    assert run("-y", hurt).code == 1
    assert hurt.read_bytes() != before
    code, out, _ = run("--undo", hurt)
    assert code == 0 and "is what it was before the repair" in out
    assert hurt.read_bytes() == before
    assert run("--undo", hurt).code in (0, 8)
    assert hurt.read_bytes() == before


def test_the_undo_file_goes_where_it_is_wanted(run, hurt: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    before, place = hurt.read_bytes(), tmp_path / "elsewhere"
    assert run("-y", "--undo-file", place, hurt).code == 1
    assert place.exists() and not Path(f"{hurt}.undo").exists()
    assert run("--undo", hurt).code == 8
    assert run("--undo", "--undo-file", place, hurt).code == 0
    assert hurt.read_bytes() == before


@pytest.mark.parametrize("is_link_first", [False, True])
def test_a_repair_is_taken_back_by_another_name_of_the_image(run, hurt: Path, tmp_path: Path, is_link_first: bool) -> None:  # type: ignore[no-untyped-def]
    """A repair through a symbolic link kept LINK.undo, which --undo of the image itself did not find."""
    (tmp_path / "elsewhere").mkdir()
    link, before = tmp_path / "elsewhere" / "link", hurt.read_bytes()
    link.symlink_to(hurt)
    first, second = (link, hurt) if is_link_first else (hurt, link)
    code, out, _ = run("-y", first)
    assert code == 1 and f"as long as {hurt}.undo is kept" in out
    assert run("--undo", second).code == 0 and hurt.read_bytes() == before


def test_a_plan_changes_nothing_and_applying_it_is_the_repair(
    run, hurt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(fsck, "time", SimpleNamespace(time_ns=lambda: 1_767_225_600 * 10**9))  # the admin history tells when
    before, plan, copy = hurt.read_bytes(), tmp_path / "plan", tmp_path / "copy"
    code, out, _ = run("--plan", plan, hurt)
    assert code == 4 and "The repair would cost: nothing" in out and f"--apply {plan}" in out
    assert hurt.read_bytes() == before
    copy.write_bytes(before)
    assert run("--apply", plan, hurt).code == 1
    assert run("-y", copy).code == 1
    assert hurt.read_bytes() == copy.read_bytes()


def test_lines_of_a_plan_may_be_deleted(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    device = healthy()
    for path in ("/docs/one", "/docs/many"):
        edit_inode(device, find_inode(device, path), link_count=7)
    image, plan = stored(device, tmp_path / "image"), tmp_path / "plan"
    assert run("--plan", plan, image).code == 4
    lines = [line for line in plan.read_text().splitlines() if "/docs/many" not in line]
    plan.write_text("\n".join(lines))
    code, out, _ = run("--apply", plan, image)
    assert code == 5 and "1 problem found, 1 path hurt" in out
    assert [finding["path"] for finding in json.loads(run("--json", image).out)["findings"] if finding["code"] == "E0401"] == [
        "/docs/many"
    ]


def test_a_plan_for_another_image_or_another_state_is_refused(run, hurt: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plan, other = tmp_path / "plan", tmp_path / "other"
    assert run("--plan", plan, hurt).code == 4
    device = healthy(copies=1)
    edit_inode(device, find_inode(device, "/docs/one"), link_count=3)
    before = stored(device, other).read_bytes()
    code, _, err = run("--apply", plan, other)
    assert code == 16 and "since the plan was made" in err
    assert other.read_bytes() == before
    assert run("-y", hurt).code == 1
    assert run("--apply", plan, hurt).code == 16
    plan.write_text('{"format": "something else"}')
    assert run("--apply", plan, hurt).code == 16
    assert run("--apply", tmp_path / "nothing", hurt).code == 16


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def two_problems(tmp_path: Path) -> Path:
    device = healthy()
    for path in ("/docs/one", "/docs/many"):
        edit_inode(device, find_inode(device, path), link_count=7)
    return stored(device, tmp_path / "two")


def test_each_problem_is_asked_about(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    image = two_problems(tmp_path)
    answers(monkeypatch, "what?", "y", "n", "y")
    code, out, err = run("-i", image)
    assert code == 5
    assert err.count("Repair it?") == 3 and "Write the repaired image?" in err
    assert "set its link count to 1" in out
    answers(monkeypatch, "a", "y")
    assert run("-i", image).code == 1
    assert run(image).code == 0


@pytest.mark.parametrize("said", [["n", "n"], ["e"], ["y", "y", "n"]])
def test_nothing_is_written_that_was_not_wanted(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:  # type: ignore[no-untyped-def]
    image = two_problems(tmp_path)
    before = image.read_bytes()
    answers(monkeypatch, *said)
    assert run("-i", image).code == 4
    assert image.read_bytes() == before


@pytest.mark.parametrize("said", [["q"], [], ["y", "y"]])
def test_leaving_while_being_asked_changes_nothing(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:  # type: ignore[no-untyped-def]
    image = two_problems(tmp_path)
    before = image.read_bytes()
    answers(monkeypatch, *said)
    assert run("-i", image).code == 32
    assert image.read_bytes() == before


def test_preening_does_what_is_safe_and_leaves_the_rest(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    edit_inode(device, find_inode(device, "/docs/many"), compression=77)
    write_superblocks(device, backups=True, state=State.DIRTY)
    image = stored(device, tmp_path / "image")
    code, out, _ = run("-p", image)
    assert code == 5 and "Repaired: 1 x E0401" in out and "E0309" in out
    assert run("-p", image).code == 4, "it is marked as hurt, so it is looked at again"
    assert run("-y", image).code == 1


def test_preening_believes_an_image_that_says_it_is_clean(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    before = hurt.read_bytes()
    code, out, _ = run("-p", hurt)
    assert code == 0 and "clean, not checked" in out
    assert hurt.read_bytes() == before
    assert run("-p", "-f", hurt).code == 1


def test_preening_leaves_a_damaged_journal_to_somebody_who_decides(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    device = next(damage for code, damage in DAMAGES if code == "E0203")()
    image = stored(device, tmp_path / "image")
    before = image.read_bytes()
    assert run("-p", image).code == 4
    assert image.read_bytes() == before
    assert run("-y", image).code == 1


def test_nothing_of_a_clean_image_is_written_but_when_it_was_checked(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image = stored(healthy(), tmp_path / "image")
    before, began_ns = image.read_bytes(), time.time_ns()
    with open_image(image, writable=False) as device:
        superblock = newest(device)
    assert superblock.checked_at_ns == 0
    assert [run("-y", image).code for _ in range(2)] == [0, 0]
    assert run("-n", image).code == 0 and not Path(f"{image}.undo").exists()
    after = image.read_bytes()
    places = {0, superblock.block_bytes, *(offset for offset, _ in backup_images(superblock, geometry_of(superblock)))}
    block_bytes = superblock.block_bytes
    changed = {at for at in range(0, len(after), block_bytes) if after[at : at + block_bytes] != before[at : at + block_bytes]}
    assert changed and changed <= places
    with open_image(image, writable=False) as device:
        assert began_ns <= newest(device).checked_at_ns <= time.time_ns()


@pytest.mark.parametrize("words", [["-n"], ["-p"], ["--plan", "plan"]])
def test_what_is_not_a_full_check_by_who_may_write_is_not_noted(run, tmp_path: Path, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    image = stored(healthy(), tmp_path / "image")
    before = image.read_bytes()
    assert run(*(word if word != "plan" else tmp_path / word for word in words), image).code == 0
    assert image.read_bytes() == before


def test_an_image_that_waits_for_recovery_is_not_written_if_nothing_is_wrong(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image = stored(unclean(2), tmp_path / "image")
    before = image.read_bytes()
    assert run("-y", image).code == 0
    assert image.read_bytes() == before


def test_a_repair_can_be_taken_back_after_the_second_run(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    before = hurt.read_bytes()
    assert run("-y", hurt).code == 1 and run("-y", hurt).code == 0
    assert run("--undo", hurt).code == 0
    assert hurt.read_bytes() == before


@pytest.mark.parametrize("moment", ["take_inventory", "plan"])
def test_an_interrupt_leaves_the_image_as_it_was(
    run, hurt: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:  # type: ignore[no-untyped-def]
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = hurt.read_bytes()
    monkeypatch.setattr(repair_module, moment, interrupted)
    code, _, err = run("-y", hurt)
    assert code == 32 and "interrupted" in err
    assert hurt.read_bytes() == before and not Path(f"{hurt}.undo").exists()


def test_an_interrupt_while_the_repair_is_written_puts_everything_back(
    run, hurt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    before, written = hurt.read_bytes(), []
    plain = FileDevice.write

    def write(self: FileDevice, offset: int, data: bytes) -> None:
        plain(self, offset, data)
        if self.name == str(hurt):
            written.append(offset)
            if len(written) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(FileDevice, "write", write)
    assert run("-y", hurt).code == 32
    assert len(written) > 3 and hurt.read_bytes() == before


def test_what_nothing_can_help_is_refused_with_a_sentence(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for code in ("E0110", "E0111", "E0112", "E0113", "E0115"):
        device = next(damage for its_code, damage in DAMAGES if its_code == code)()
        image = stored(device, tmp_path / code)
        before = image.read_bytes()
        exit_code, _, err = run("-y", image)
        assert exit_code & 12 and err.count("\n") == 1, code
        assert image.read_bytes() == before


def test_a_rebuild_may_be_asked_for(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("--rebuild", hurt)
    assert code == 1 and "rebuild the tree from everything that can be read, as asked for" in out
    assert run(hurt).code == 0


def test_salvage_copies_out_and_changes_nothing(run, hurt: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    before = hurt.read_bytes()
    code, out, _ = run("--salvage", tmp_path / "out", hurt)
    assert code == 0 or "user.large" in out  # not every host takes so large an attribute
    assert f"were copied to {tmp_path / 'out'}" in out
    assert (tmp_path / "out" / "small").read_bytes() == b"hello world"
    assert hurt.read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [["-n", "-y"], ["-p", "-i"], ["-y", "--only", "1"], ["-y", "--path", "/docs"], ["--undo", "-y"], ["--apply", "x", "-y"],
     ["--plan", "x", "--undo"], ["-n", "--plan", "x"], ["-n", "--rebuild"], ["-p", "--rebuild"], ["--undo-file", "x"],
     ["--salvage", "x", "--rebuild"]],
)  # fmt: skip
def test_options_that_contradict_one_another_are_a_usage_error(run, hurt: Path, options: list[str]) -> None:  # type: ignore[no-untyped-def]
    before = hurt.read_bytes()
    code, out, err = run(*options, hurt)
    assert (code, out) == (16, "") and err.count("\n") == 1
    assert hurt.read_bytes() == before


def test_an_image_in_use_is_not_repaired(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    before = hurt.read_bytes()
    with hurt.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        code, _, err = run("-y", hurt)
    assert code == 8 and "in use" in err
    assert hurt.read_bytes() == before
