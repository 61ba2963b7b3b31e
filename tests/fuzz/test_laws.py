"""The laws of repair over random damage and the field fuzz: clean afterwards, nothing else hurt, taken back, planned and applied.

The long version: `python -m tools.fuzz laws --seeds 0-999`.
"""

import random

import pytest

from tools.fuzzing import fields
from tools.fuzzing.bases import BASES
from tools.fuzzing.campaigns import lawful_damage, lawful_field
from tools.fuzzing.damage import DAMAGES
from tools.fuzzing.histories import history

pytestmark = pytest.mark.slow

SEED = 100
CASES = 16
DAMAGE_SEEDS = range(100, 104)


@pytest.mark.parametrize("image", BASES)
def test_the_laws_hold_for_changed_fields(image: str) -> None:
    cases = list(fields.cases(image, SEED, sites_max=1))
    for number, case in enumerate(random.Random(SEED).sample(cases, CASES)):
        assert lawful_field(case, with_files=number % 4 == 0).failure == "", str(case)


@pytest.mark.parametrize("name", DAMAGES)
def test_the_laws_hold_for_random_damage(name: str) -> None:
    for seed in DAMAGE_SEEDS:
        past = history(seed)
        device = DAMAGES[name](past, random.Random(f"{seed} {name}"))
        outcome = lawful_damage(name, past, device, f"seed {seed}", with_files=seed % 2 == 0)
        assert outcome.failure == "", outcome.case


# Each of these broke a law once; kept as the fuzz found them.
BROKE_A_LAW = [
    ("stale blocks", 0),  # a damaged journal entry stayed
    ("stale blocks", 5),
    ("stale blocks", 13),  # a file was gone that the damage had not touched
    ("stale blocks", 14),
    ("bad sectors", 201),  # a record was cut out that the journal, replayed in the same round, had replaced by a good one
    ("swapped blocks", 201),
    ("stale blocks", 2002),  # every superblock was of an earlier day: the newest tree was there, and not looked for
    ("stale blocks", 4390),  # the newest root was lost: an older one was believed instead of what is left of the newest state
    ("stale blocks", 4712),  # the journal was damaged, and the tree told all that it would have brought
    ("stale blocks", 4988),
]


@pytest.mark.parametrize(("name", "seed"), BROKE_A_LAW)
def test_what_broke_a_law_once_does_not_any_more(name: str, seed: int) -> None:
    past = history(seed)
    device = DAMAGES[name](past, random.Random(f"{seed} {name}"))
    assert lawful_damage(name, past, device, f"seed {seed}").failure == ""
