"""Every field of every structure, changed in eight ways, with its checksum wrong and right: found, or proven harmless.

The long version: `python -m tools.fuzz fields --seeds 0-99`.
"""

import pytest

from tools.fuzzing.bases import BASES
from tools.fuzzing.fields import cases, examine, sites_of

pytestmark = pytest.mark.slow

SEED = 20
# What an image has that "at rest" has not; the rest would be the same again.
SPECIAL = {
    "at rest": frozenset(sites_of("at rest")),
    "at rest, nodes twice": frozenset({"NodeHeader", "ChildPointer"}),
    "blocks of 16 KiB": frozenset({"NodeHeader"}),
    "journal pending": frozenset({"JournalEntry", "JournalCommit", "Counters"}),
    "orphan pending": frozenset({"Orphan"}),
    "patch pending": frozenset({"Patch"}),
    "late pages": frozenset({"LatePages", "DataRecord"}),
    "two levels of space map": frozenset({"SpaceMapEntry"}),
}
SITES = {"Superblock": 2}  # of slots and backups, which mean different things; of the others one says what all of them do
PAIRS = [(image, structure) for image in BASES for structure in sorted(SPECIAL[image])]


def test_every_image_has_its_part() -> None:
    assert SPECIAL.keys() == BASES.keys()


@pytest.mark.parametrize(("image", "structure"), PAIRS)
def test_a_changed_field_is_found_or_harmless(image: str, structure: str) -> None:
    count = 0
    for case in cases(image, SEED, structures=frozenset({structure}), sites_max=SITES.get(structure, 1)):
        assert examine(case).failure == "", str(case)
        count += 1
    assert count > 8
