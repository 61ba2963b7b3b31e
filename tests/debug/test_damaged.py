"""Every command that looks, on every class of damage: an answer or a sentence, never a traceback, and not a byte changes."""

import io
import random
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest

from razortools.cli import debug_screen, render
from razortools.debug.commands import COMMANDS
from razortools.debug.opening import look_into
from razortools.debug.rehearsal import CLASSES
from razortools.debug.session import Session, run_line
from razortools.engine.store.device import open_image
from razortools.engine.store.store import Store
from razortools.errors import NotAnImage, RazorError
from razortools.format.directory import BackLink
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import KIND_AT, Kind, Table, table_range
from tests.check.editing import editing
from tests.debug.tool import answer, crashed, furnished
from tests.schemas import valid

LOOKING = (
    "cd /home", "pwd", "ls -l /home", "ls -R /", "stat /home/noise", "tree /", "find / --name 's*'", "du", "cat /home/text",
    "head /hard", "export /", "xattr /home/noise", "acl /home/sparse", "super", "super A", "admin", "journal -v", "inode /hard",
    "item files", "item names", "strings", "btree --walk", "node 72", "node 2053", "block 0 8", "block 72 4", "block 260",
    "where /home/text", "records --verify /home/noise", "space", "whois 300000", "whois -b 200", "paths 4", "verify",
    "verify /home", "compression --why", "history", "undelete --list", "label", "uuid", "feature", "resize", "help",
)  # fmt: skip


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("damaged")
    return crashed(here / "dirty.img", furnished(here / "a.img"), commits=3)


def look(session: Session, line: str) -> str:
    """Return what a command says, as text and as JSON, or the sentence that it fails with."""
    try:
        text = io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape")
        with redirect_stdout(text):
            debug_screen.show(run_line(session, COMMANDS, line))
            found = run_line(session, COMMANDS, line)
            if found is not None:
                valid("razorfs-debug", render.plain(debug_screen.data_of(found)), line.split()[0])
    except RazorError as refused:
        assert str(refused)
        return f"failed: {refused}"
    return "done"


def looked_at(image: Path) -> dict[str, str]:
    """Return what each command says of *image*, which must stay as it is."""
    before = image.read_bytes()
    try:
        session = look_into(open_image(image, writable=False), writable=False)
    except NotAnImage:
        return {}
    said = {line: look(session, line) for line in LOOKING}
    session.close()
    assert image.read_bytes() == before
    return said


def test_every_command_that_looks_is_tried_here() -> None:
    tried = {line.split()[0] for line in LOOKING}
    others = {name for name, command in COMMANDS.items() if command.writes}
    elsewhere = {"get", "put", "diff", "damage", "dump"}  # they make files
    elsewhere |= {"set", "changes", "commit", "discard"}  # they change structures
    assert tried | others | elsewhere == COMMANDS.keys()


def test_a_good_image_answers_everything(dirty: Path) -> None:
    failed = {line: said for line, said in looked_at(dirty).items() if said != "done"}
    assert failed == {}


@pytest.mark.parametrize("kind", CLASSES)
def test_no_class_of_damage_makes_a_command_fall_over(
    kind: str, dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, dirty, f"damage --class {kind} --seed 3 {tmp_path / 'x'}")
    said = looked_at(tmp_path / "x")
    assert kind == "lost-superblocks" or said["super"] == "done"


@pytest.mark.parametrize("seed", range(4))
def test_rubbish_in_any_structure_makes_no_command_fall_over(seed: int, dirty: Path, tmp_path: Path) -> None:
    chance = random.Random(seed)
    raw = bytearray(dirty.read_bytes())
    for _ in range(chance.choice((1, 5, 40))):
        block = chance.choice((0, 1, 2, 3, 7, 8, 72, 2053, 200, 257, 260))
        at = block * 4096 + chance.randrange(0, 4000)
        raw[at : at + 8] = chance.randbytes(8)
    image = tmp_path / "x"
    image.write_bytes(raw)
    with suppress(NotAnImage):
        looked_at(image)


def test_a_directory_without_a_back_link_is_told_and_does_not_end_a_dump(dirty: Path, tmp_path: Path) -> None:
    """Found by changing fields at random: a back link whose parent has none ended `block` with an error of Python's."""
    image = tmp_path / "x"
    image.write_bytes(dirty.read_bytes())
    with open_image(image, writable=True) as device, editing(device) as store:
        home = key_of_first_link(store)
        store.tree.delete(home)
    said = looked_at(image)
    assert said["super"] == "done"
    assert said["block 0 8"] == "done"
    assert "has no back link" in said["stat /home/noise"]


def key_of_first_link(store: Store) -> bytes:
    """Return the key of the back link of /home, the first one that leads to the root."""
    return next(key for key, value in store.tree.items(*table_range(Table.FILES)) if is_link_to_root(key, value))


def is_link_to_root(key: bytes, value: bytes) -> bool:
    return key[KIND_AT] == Kind.BACK_LINK and BackLink.decode(value).parent == ROOT_INODE
