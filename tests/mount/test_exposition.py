"""A page that is kept between two scrapes is the page that prometheus_client makes anew."""

from dataclasses import fields, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.statistics import Statistics
from razortools.engine.store.durations import BOUNDS_S
from razortools.service.exposition import Exposition
from razortools.service.figures import Compressed, MountFigures, Spread
from razortools.service.metrics import page

COUNTS, SECONDS = st.integers(0, 1 << 62), st.floats(0, 1e12)
SPREADS = st.builds(Spread, st.tuples(*[COUNTS] * (len(BOUNDS_S) + 1)), SECONDS)
OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {int: COUNTS, float: SECONDS, bool: st.booleans(), str: st.sampled_from(["", "why"])}
STATISTICS = st.builds(Statistics, **{field.name: OF_TYPE[field.type] for field in fields(Statistics)})
WORDS = st.sampled_from(["read", "write", "lookup", 'odd "one"\n'])
COMPRESSED = st.dictionaries(WORDS, st.builds(Compressed, COUNTS, COUNTS, COUNTS, SECONDS), max_size=2)


def figures(image: str) -> st.SearchStrategy[MountFigures]:
    """Return figures of one mount; what nobody ever did is left out."""
    numbers = {
        name: OF_TYPE[kind]
        for name, kind in ((field.name, field.type) for field in fields(MountFigures))
        if kind in OF_TYPE and name not in ("image", "mount_point", "version")
    }
    return st.builds(
        MountFigures, **numbers, version=st.just("0.1.0"), image=st.just(image), mount_point=st.just("/mnt"), volume=STATISTICS,
        limits_bytes=st.just({"records": 1, "dirty": 2}), requests=st.dictionaries(WORDS, SPREADS, max_size=3),
        refusals=st.dictionaries(WORDS, st.dictionaries(WORDS, COUNTS, max_size=2), max_size=2),
        waited_s=st.dictionaries(WORDS, SECONDS, max_size=3), commits=SPREADS, checkpoints=SPREADS, flushes=st.none() | SPREADS,
        compression=COMPRESSED, compression_types=COMPRESSED, decompression=COMPRESSED, space_history=st.just(()),
    )  # fmt: skip


ONCE = {int: 1, float: 1.0, bool: False, str: ""}
NEVER: dict[str, Any] = {
    name: {} for name in ("requests", "refusals", "waited_s", "compression", "compression_types", "decompression")
}
PLAIN = MountFigures(
    **{field.name: ONCE[field.type] for field in fields(MountFigures) if field.type in ONCE} | NEVER,
    limits_bytes={"records": 1, "metadata": 1, "dirty": 1},
    volume=Statistics(**{field.name: ONCE[field.type] for field in fields(Statistics)}),  # type: ignore[arg-type, index]
    commits=Spread((0,) * (len(BOUNDS_S) + 1), 0.0), checkpoints=Spread((0,) * (len(BOUNDS_S) + 1), 0.0), flushes=None,
    space_history=(),
)  # type: ignore[arg-type, index]  # fmt: skip


@given(told=st.lists(figures("/srv/a disk\u2028of \\ mine.img"), min_size=1, max_size=4))
@settings(max_examples=40)
def test_a_kept_page_is_the_page_of_the_library(told: list[MountFigures]) -> None:
    kept = Exposition()
    for one in told:
        assert kept.page(one) == page([one])


@given(told=figures("/disk.img"))
@settings(max_examples=5)
def test_what_has_not_changed_is_not_rendered_again(told: MountFigures) -> None:
    kept = Exposition()
    before = kept._parts(told)
    after = kept._parts(replace(told, commit_age_s=told.commit_age_s + 1))
    assert sum(one is not other for one, other in zip(before, after, strict=True)) == 1


@given(told=figures("/disk.img"))
@settings(max_examples=5)
def test_what_was_prepared_is_told_once_it_happens_and_not_made_again(told: MountFigures) -> None:
    kept = Exposition()
    kept.prepare(replace(told, requests={}), told.requests)
    before = set(kept._series)
    assert kept.page(told) == page([told])
    assert set(kept._series) == before
    assert kept.page(replace(told, requests={})) == page([replace(told, requests={})])
