"""What a plan tells of the purpose of its edits: by a field of its own, and by the words only where an older version made it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from razortools.check.repair.edits import Edit, Purpose, Verb
from razortools.errors import UsageError
from razortools.format.keys import Kind, inline_key, inode_key, record_key
from razortools.units import InodeNo
from tests.check.editing import editing, find_inode, first_item
from tests.check.running import Run, stored
from tests.check.samples import healthy

Razorfsck = Callable[..., Run]


@pytest.fixture
def costly(tmp_path: Path) -> Path:
    """Return an image of which a repair removes an item without sense and data behind the end, and makes an inode anew."""
    device = healthy()
    many = find_inode(device, "/docs/many")
    _, record = first_item(device, many, Kind.DATA_RECORD)
    with editing(device) as store:
        store.tree.put(bytes([9]) + inline_key(InodeNo(5))[1:], b"?")
        store.tree.put(record_key(many, 1 << 40), record)
        store.tree.delete(inode_key(find_inode(device, "/docs/one")))
    return stored(device, tmp_path / "costly")


def planned(run: Razorfsck, image: Path, plan: Path) -> Any:
    """Make a plan for *image*; return what the file at *plan* holds, and see that all purposes are in it."""
    assert run("--plan", plan, image).code == 4
    told = json.loads(plan.read_text())
    assert {edit["purpose"] for edit in told["edits"]} == {"mend", "discard", "make anew"}
    return told


def loss_of(run: Razorfsck, plan: Path, image: Path) -> Any:
    """Apply *plan*; return what the repair says that it has cost."""
    done = run("--json", "--apply", plan, image)
    assert done.code in (1, 5)
    return json.loads(done.out)["loss"]


def test_the_words_of_a_plan_are_for_people_only(run: Razorfsck, costly: Path, tmp_path: Path) -> None:
    plan, copy = tmp_path / "plan", tmp_path / "copy"
    copy.write_bytes(costly.read_bytes())
    told = planned(run, costly, plan)
    expected = loss_of(run, plan, costly)
    assert expected["removed_items"] == 2
    assert [one["path"] for one in expected["changed"]] == ["/docs/one"]
    plan.write_text(json.dumps(told | {"edits": [edit | {"why": "said in other words"} for edit in told["edits"]]}))
    assert loss_of(run, plan, copy) == expected


def test_words_of_a_purpose_in_an_edit_with_another_one_mean_nothing() -> None:
    words = {"do": "delete item", "code": "E0301", "key": "00" * 18, "why": "remove the item that makes no sense"}
    assert Edit.from_json(words | {"purpose": "mend"}).purpose is Purpose.MEND


def test_a_plan_of_the_version_before_tells_the_same_loss(run: Razorfsck, costly: Path, tmp_path: Path) -> None:
    plan, copy = tmp_path / "plan", tmp_path / "copy"
    copy.write_bytes(costly.read_bytes())
    told = planned(run, costly, plan)
    expected = loss_of(run, plan, costly)
    older = [{name: value for name, value in edit.items() if name != "purpose"} for edit in told["edits"]]
    plan.write_text(json.dumps(told | {"edits": older}))
    assert loss_of(run, plan, copy) == expected


@pytest.mark.parametrize(
    ("words", "purpose"),
    [
        ("remove the item that makes no sense", Purpose.DISCARD),
        ("remove data behind the end of the file", Purpose.DISCARD),
        ("make anew: inode 7, for what is left of the file", Purpose.ANEW),
        ("make anew: the root directory", Purpose.ANEW),
        ("take the attribute from under a wrong hash", Purpose.MEND),
    ],
)
def test_the_words_of_the_version_before_are_read_as_it_wrote_them(words: str, purpose: Purpose) -> None:
    told = {"round": 1, "do": "delete item", "code": "E0301", "path": None, "why": words, "key": "00" * 18}
    assert Edit.from_json(told).purpose is purpose


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_purpose_survives_the_plan_file(purpose: Purpose) -> None:
    edit = Edit(verb=Verb.DELETE, code="E0301", why="make anew: words", purpose=purpose, key=bytes(18))
    assert Edit.from_json(json.loads(json.dumps(edit.as_json()))) == edit


@pytest.mark.parametrize("purpose", ["dance", None, [], 1])
def test_a_purpose_that_does_not_exist_is_refused(purpose: object) -> None:
    told = {"do": "delete item", "code": "E0301", "why": "remove the item that makes no sense", "key": "00" * 18}
    with pytest.raises(UsageError):
        Edit.from_json(told | {"purpose": purpose})
