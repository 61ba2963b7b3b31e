"""razorfsck as an operator meets it when it repairs: what it prints, what it writes, how it exits."""

import json
from pathlib import Path

import pytest

from razortools import fsck
from razortools.cli import app as cli
from tests.check.editing import edit_inode, find_inode
from tests.check.samples import healthy
from tests.check.test_fsck_command import Run, stored


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Return a function that runs razorfsck with arguments."""

    def call(*arguments: object) -> Run:
        capfd.readouterr()
        code = cli.invoke(fsck.app, "razorfsck", cli.FSCK_CODES, [str(argument) for argument in arguments])
        return Run(code, *capfd.readouterr())

    return call


@pytest.fixture
def hurt(tmp_path: Path) -> Path:
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    return stored(device, tmp_path / "hurt")


def test_the_first_repair_exits_with_1_and_the_second_with_0(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("--repair", hurt)
    assert (code, err) == (1, "")
    assert "E0401 /docs/one: set its link count to 1" in out
    assert run("--repair", hurt).code == 0


def test_json_tells_what_was_repaired(run, hurt: Path) -> None:  # type: ignore[no-untyped-def]
    document = json.loads(run("--json", "-y", hurt).out)
    assert document["exit_code"] == 1 and document["clean"]
    assert [(finding["code"], finding["repaired"]) for finding in document["findings"]] == [("E0401", True)]
    assert [edit["do"] for edit in document["repair"]["edits"]] == ["set field"]
