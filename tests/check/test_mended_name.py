"""Names with one wrong bit: what they were is told by the hash that their entries are filed under."""

import pytest

from razortools.check.bitflip import turned
from razortools.check.repair.repair import Wishes, repair
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.engine import namespace
from razortools.engine.store.device import Device
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, name_key
from razortools.format.name import Name
from razortools.units import NameId
from tests.check.editing import edit_item, editing, find_inode, first_item
from tests.check.samples import Copy, healthy, opened
from tests.check.test_misfiled import items, repaired
from tests.workload import everything


def flip_name(device: Device, path: str, *bits: int) -> bytes:
    """Turn bits of the text that the file's back link names; return the key of the text."""
    _, value = first_item(device, find_inode(device, path), Kind.BACK_LINK)
    key = name_key(NameId(BackLink.decode(value).name_id))
    with editing(device) as store:
        name = Name.decode(store.tree.get(key) or b"")
        text = name.text
        for bit in bits:
            text = turned(text, bit)
        store.tree.put(key, Name(name.reference_count, text).encode())
    return key


@pytest.mark.parametrize(
    ("path", "bit"),
    [
        ("/docs", 1),
        ("/docs/one", 6),  # a slash
        ("/docs/one", 23),  # no UTF-8
        ("/crowd/member 36", 8 * 6 + 5),  # a NUL
        ("/crowd/member 36", 8 * 8),  # the name of another
        ("/long link", 0),
    ],
)
def test_regression_a_name_with_one_wrong_bit_is_put_back(path: str, bit: int) -> None:
    """The entry was filed under the wrong name, for good."""
    device = healthy()
    expected = items(device)
    flip_name(device, path, bit)
    assert items(repaired(device).overlay) == expected


def test_a_name_that_several_directories_have_is_put_back_in_all() -> None:
    device = healthy()
    with opened(device) as volume:
        one = find_inode(device, "/docs/one")
        namespace.link(volume, one, ROOT_INODE, b"one")
        namespace.link(volume, find_inode(device, "/small"), find_inode(device, "/crowd"), b"one")
    expected = items(device)
    flip_name(device, "/docs/one", 9)
    assert items(repaired(device).overlay) == expected


def test_preening_puts_such_a_name_back_too() -> None:
    device = healthy()
    expected = items(device)
    flip_name(device, "/docs/one", 9)
    done = finished(repair(device, Wishes(check=Options(threads=1), careful=True)))
    assert done is not None and done.after.clean
    assert items(done.overlay) == expected


def test_two_wrong_bits_are_not_guessed() -> None:
    device = healthy()
    key = flip_name(device, "/docs/one", 0, 9)
    mended = repaired(device).overlay
    wrong = turned(turned(b"one", 0), 9)
    assert Name.decode(items(mended)[key]).text == wrong
    with opened(Copy(mended)) as volume:
        assert b"/docs/" + wrong in everything(volume)


def test_an_entry_that_names_a_neighbour_does_not_rename_it() -> None:
    """Both names differ in one bit, and the back link that would tell which one is meant is gone."""
    device = healthy()
    stranger = find_inode(device, "/crowd/member 37")
    _, value = first_item(device, stranger, Kind.BACK_LINK)
    link = BackLink.decode(value)
    lost_key, _ = first_item(device, find_inode(device, "/crowd/member 36"), Kind.BACK_LINK)
    entry_key = next(
        key
        for key, value in items(device).items()
        if key[9] == Kind.DIRECTORY_ENTRY and DirectoryEntry.decode(value).inode == find_inode(device, "/crowd/member 36")
    )
    edit_item(device, entry_key, name_id=link.name_id)
    with editing(device) as store:
        store.tree.delete(lost_key)
    mended = repaired(device).overlay
    assert find_inode(mended, "/crowd/member 37") == stranger
    assert Name.decode(items(mended)[name_key(NameId(link.name_id))]).text == b"member 37"


@pytest.mark.parametrize("path", ["/docs", "/docs/deep"])
def test_regression_a_directory_whose_back_link_leads_below_it_stays_where_it_is(path: str) -> None:
    """Its entry was cut off for a cycle that the entry, once believed, had ended: it went to lost+found."""
    device = healthy()
    with opened(device) as volume:
        deep = find_inode(device, "/docs/deep")
        for number in range(5):  # directories below, whose numbers differ from that of the right one in different bits
            deep = namespace.mkdir(volume, deep, b"below %d" % number, 0o755, 0, 0)
    expected = items(device)
    key, value = first_item(device, find_inode(device, path), Kind.BACK_LINK)
    for bit in range(8):
        hurt = Copy(device)
        with editing(hurt) as store:
            store.tree.put(key, turned(value, bit))
        assert items(repaired(hurt).overlay) == expected, f"bit {bit}"
