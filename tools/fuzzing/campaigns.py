"""The campaigns: what one seed does, as a function from a number to outcomes. Any process may run any seed."""

import functools
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from razortools.check.repair.superblock_copies import all_copies_of
from razortools.engine.store.device import Device
from razortools.engine.store.pages import PAGE_BYTES
from razortools.errors import RazorError
from tests.check.editing import image_of
from tools.fuzzing import bytesweep, fields
from tools.fuzzing.bases import BASES
from tools.fuzzing.blast import Terrain, named_again, terrain_of, touched_by
from tools.fuzzing.damage import DAMAGES
from tools.fuzzing.damaged import Damaged
from tools.fuzzing.generator import healthy_image
from tools.fuzzing.harmless import differences, why_not_usable
from tools.fuzzing.histories import History, history
from tools.fuzzing.laws import BrokenError, Undamaged, obey
from tools.fuzzing.outcome import Outcome
from tools.fuzzing.verdict import judge
from tools.fuzzing.view import View, view

Campaign = Callable[[int], Iterable[Outcome]]

FIELD_PARTS = 16  # of an image, that processes share


def run_fields(seed: int) -> Iterator[Outcome]:
    """All fields and verbs of some structures of each image."""
    for image in BASES:
        for case in fields.cases(image, seed):
            yield field_outcome(case)


def run_part_of_fields(image: str, part: int, seed: int) -> Iterator[Outcome]:
    """One of FIELD_PARTS parts of what run_fields does with an image."""
    for case in itertools.islice(fields.cases(image, seed), part, None, FIELD_PARTS):
        yield field_outcome(case)


def field_outcome(case: fields.FieldCase) -> Outcome:
    """Examine one case of the field fuzz."""
    result = fields.examine(case)
    kind = f"{case.site.structure.__name__}, checksum {'right' if case.sealed else 'wrong'}"
    word = "failed" if result.failure else "detected" if result.verdict.is_detected else "harmless"
    return Outcome(kind, (word,), str(case), result.failure)


def run_bytes(seed: int) -> Iterator[Outcome]:
    """Every byte of block number *seed* of a small image, one after the other."""
    return bytesweep.sweep(seed)


def run_damage(seed: int) -> Iterator[Outcome]:
    """One damage of each class."""
    past = history(seed // 8)
    for name, make in DAMAGES.items():
        device = make(past, random.Random(f"{seed} {name}"))
        yield damage_outcome(name, past, device, f"seed {seed}")


def run_mend(seed: int) -> Iterator[Outcome]:
    """Repair what run_damage makes of the same seed; every law is judged of every case."""
    past = history(seed // 8)
    for name, make in DAMAGES.items():
        device = make(past, random.Random(f"{seed} {name}"))
        yield lawful_damage(name, past, device, f"seed {seed}", with_files=True)


def damage_outcome(name: str, past: History, device: Damaged, case: str) -> Outcome:
    """Judge one damaged image: found, or proven harmless."""
    if not device.differs():
        return Outcome(name, ("no change",))
    verdict = judge(device)
    if verdict.stumbled:
        return Outcome(name, ("failed",), case, verdict.stumbled)
    if verdict.is_detected:
        return Outcome(name, ("detected",), case)
    word, reason = why_passed(past, device)
    return Outcome(name, (word,), case, reason and f"not found, and not harmless: {reason}")


def why_passed(past: History, device: Device) -> tuple[str, str]:
    """Return (a word for why damage may be let pass, "") or ("failed", why it may not).

    Two things cannot be told, and are counted apart. Where all traces of the last transactions are gone from the journal, nothing
    in the image tells that they ever were: it is what a crash before them leaves ("as torn"). Where every superblock is an older
    one, and nothing of that time has been written over, the image is that older one ("as before").
    """
    try:
        after = view(device)
    except (RazorError, OSError) as refused:
        return "failed", f"the image cannot be opened: {refused}"
    before, word = _view_of(past.now), "harmless"
    if after != before:
        word = "as torn"
        if not any(after == _view_of(state) for state in past.committed):
            if _is_older(past, device) and any(after == _view_of(state) for state in (*past.states, *past.last_session)):
                return "as before", ""
            found = sorted(differences(before, after).items())
            words = "; ".join(f"inode {ino}: {', '.join(sorted(parts))}" for ino, parts in found[:5])
            return "failed", f"what is seen has changed: {words}"
    reason = why_not_usable(device)
    return ("failed", reason) if reason else (word, "")


@functools.lru_cache(maxsize=32)
def _view_of(state: Device) -> View:
    """Return what is seen of a state of a history: it never changes, and each damage to it is compared with it."""
    return view(state)


def _is_older(past: History, device: Device) -> bool:
    return image_of(device).superblock.generation < image_of(past.now).superblock.generation


def run_healthy(seed: int) -> Iterator[Outcome]:
    """One generated image, which must be found in order."""
    image = healthy_image(seed)
    verdict = judge(image.device)
    wrong = verdict.stumbled or (f"found on a healthy image: {', '.join(verdict.codes)}" if verdict.codes else "")
    word = "failed" if wrong else "clean"
    yield from (Outcome(f"with: {feature}", (word,)) for feature in image.features)
    yield Outcome("image", (word,), f"seed {seed}: {image}", wrong)


LAW_CASES = 40  # of the field fuzz, for each seed
FILES_EVERY = 4  # so often the laws that need files are judged too


def run_laws(seed: int) -> Iterator[Outcome]:
    """Repair some images of the field fuzz, and one of each class of damage."""
    chance = random.Random(seed)
    image = chance.choice(list(BASES))
    for case in chance.sample(list(fields.cases(image, seed, sites_max=2)), LAW_CASES):
        yield lawful_field(case, with_files=chance.randrange(FILES_EVERY) == 0)
    past = history(seed)
    for name, make in DAMAGES.items():
        device = make(past, random.Random(f"{seed} {name}"))
        yield lawful_damage(name, past, device, f"seed {seed}", with_files=chance.randrange(FILES_EVERY) == 0)


def lawful_field(case: fields.FieldCase, *, with_files: bool = True) -> Outcome:
    """Repair what one case of the field fuzz damaged."""
    kind = f"{case.site.structure.__name__}, checksum {'right' if case.sealed else 'wrong'}"
    contents = case.touched()
    terrain = fields.terrain_of_image(case.image)
    known = _known(fields.views_of(case.image)[0], terrain, contents)
    return _lawful(kind, case.damaged(), known, str(case), with_files=with_files)


def lawful_damage(name: str, past: History, device: Damaged, case: str, *, with_files: bool = True) -> Outcome:
    """Repair an image with random damage."""
    outcome = _lawful(name, device, _known_of(past.now, device, device.changed_pages()), case, with_files=with_files)
    for origin in origins(past, device) if outcome.failure else ():
        other = _lawful(name, device, _known_of(origin, device, differing_pages(origin, device)), case, with_files=with_files)
        if not other.failure:
            return other
    return outcome


def origins(past: History, device: Damaged) -> tuple[Device, ...]:
    """Return the other states that the damaged image may come from, the latest first.

    Where no copy of the newest superblock is left, the image may as well be one that a crash left before that was written, and
    then the damage is whatever differs from that one. A repair cannot know; it has to be lawful for one of them. That holds for
    the last superblock only: whoever goes back further has what the younger nodes tell against him.
    """
    newest, found = image_of(past.now).superblock.generation, [copy.generation for copy in all_copies_of(device)]
    return past.last_session[::-1] if max(found, default=0) == newest - 1 else ()


def differing_pages(one: Device, other: Device) -> list[int]:
    """Return the numbers of the pages in which two devices of the same size differ."""
    starts = range(0, one.size_bytes, PAGE_BYTES)
    return [at // PAGE_BYTES for at in starts if one.read(at, PAGE_BYTES) != other.read(at, PAGE_BYTES)]


@functools.lru_cache(maxsize=32)
def _terrain_of(state: Device) -> Terrain:
    """Return the terrain of a state of a history, which never changes either."""
    return terrain_of(state)


def _known_of(origin: Device, device: Device, pages: Iterable[int]) -> Undamaged:
    """Return what there was before *device* was damaged in these *pages*, if it comes from *origin*."""
    terrain, wrong = _terrain_of(origin), list(pages)
    known = _known(_view_of(origin), terrain, touched_by(terrain, wrong))
    return replace(known, named_again=named_again(terrain, image_of(origin), device, wrong))


def _known(before: View, terrain: Terrain, contents: set[int]) -> Undamaged:
    directories = {parent for ino in contents for parent in terrain.parents.get(ino, ())}
    return Undamaged(before, contents, terrain.below(contents), directories)


def _lawful(kind: str, device: Damaged, known: Undamaged, case: str, *, with_files: bool) -> Outcome:
    if not device.differs():
        return Outcome(kind, ("no change",))
    try:
        return Outcome(kind, (obey(device, known, with_files=with_files),), case)
    except BrokenError as broken:
        return Outcome(kind, ("failed",), case, str(broken))


CAMPAIGNS: dict[str, Campaign] = {
    "fields": run_fields,
    "bytes": run_bytes,
    "damage": run_damage,
    "mend": run_mend,
    "healthy": run_healthy,
    "laws": run_laws,
}

# What processes share of a seed, where one takes minutes; together the parts are the campaign.
PARTS: dict[str, tuple[Campaign, ...]] = {
    "fields": tuple(functools.partial(run_part_of_fields, image, part) for image in BASES for part in range(FIELD_PARTS)),
}
