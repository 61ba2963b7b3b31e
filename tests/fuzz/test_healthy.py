"""No false alarm: generated images of all layouts, with everything in them and left in every honest way.

The long version: `python -m tools.fuzz healthy --seeds 0-9999`.
"""

import pytest

from tools.fuzzing.generator import CHAPTERS, healthy_image
from tools.fuzzing.verdict import judge

SEEDS = range(160)


@pytest.mark.parametrize("part", range(4))
def test_generated_images_are_found_in_order(part: int) -> None:
    for seed in SEEDS[part::4]:
        image = healthy_image(seed)
        verdict = judge(image.device)
        assert (verdict.codes, verdict.stumbled) == ((), ""), f"seed {seed}: {image}"


def test_the_generator_uses_everything_that_it_has() -> None:
    told = {feature for seed in SEEDS[:40] for feature in healthy_image(seed).features}
    endings = {"closed", "killed", "checkpointed and killed", "power cut"}
    assert told >= set(CHAPTERS) | endings | {"blocks of 4096", "blocks of 16384", "blocks of 65536", "copies 1", "copies 2"}
