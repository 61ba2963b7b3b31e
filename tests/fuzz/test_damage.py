"""Random damage of every class: never a traceback or a hang, always found or proven harmless.

The long version: `python -m tools.fuzz damage --seeds 0-9999`.
"""

import random

import pytest

from tools.fuzzing.campaigns import damage_outcome
from tools.fuzzing.damage import DAMAGES
from tools.fuzzing.histories import history

SEEDS = range(48)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_or_harmless(name: str) -> None:
    results = []
    for seed in SEEDS:
        past = history(seed // 8)
        device = DAMAGES[name](past, random.Random(f"{seed} {name}"))
        outcome = damage_outcome(name, past, device, f"seed {seed}")
        assert outcome.failure == "", outcome.case
        results += outcome.results
    assert {"detected", "harmless"} & set(results)
