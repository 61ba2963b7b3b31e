"""The field fuzz: every field of every structure, changed by every verb, with its checksum left wrong or made right again.

Which structures there are is asked of the format's catalogue, which fields they have of their declarations, and where they lie of
the image. A case is named by a line that reproduces it.
"""

import functools
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from razortools.engine.store.pages import PAGE_BYTES
from razortools.format.keys import Key, object_of
from razortools.format.node import ChildPointer, NodeHeader
from razortools.format.superblock import Superblock
from tests.check.editing import image_of
from tools.fuzzing.bases import base, before_the_last
from tools.fuzzing.blast import Terrain, concerned, terrain_of, touched_by
from tools.fuzzing.damaged import Damaged
from tools.fuzzing.harmless import why_not_harmless
from tools.fuzzing.sites import Site, find_sites
from tools.fuzzing.verbs import Change, changes
from tools.fuzzing.verdict import Verdict, judge
from tools.fuzzing.view import View, view

SITES_PER_STRUCTURE = 4  # of each structure in an image, chosen by the seed


@dataclass(frozen=True, slots=True)
class FieldCase:
    """One field of one structure in one image, changed."""

    seed: int
    image: str
    site: Site
    change: Change
    sealed: bool

    @property
    def field(self) -> str:
        """Structure and field, as in the declaration."""
        return f"{self.site.structure.__name__}.{self.change.field}"

    def __str__(self) -> str:
        seal = "right" if self.sealed else "wrong"
        return f"seed {self.seed}, {self.image}: {self.field} {self.change.verb}, checksum {seal}, {self.site.owner}"

    def damaged(self) -> Damaged:
        """Return the image with the change."""
        device = Damaged(base(self.image))
        self.site.write(device, self.change.offset, self.change.data, sealed=self.sealed)
        return device


    def touched(self) -> set[int]:
        """Return the inodes whose contents may be hurt by it."""
        terrain, structure = terrain_of_image(self.image), self.site.structure
        if "journal" in self.site.owner:
            return set(terrain.waiting)
        if "newest" in self.site.owner or self.site.owner in ("root pointer", "top of the space map"):
            return set(terrain.waiting)  # the older superblock may be all that is left
        if structure is Superblock or "map" in self.site.owner:
            return set()
        if not self.sealed:
            return touched_by(terrain, self.damaged().changed_pages())
        container = self.site.containers[0]
        if structure is ChildPointer and self.change.field == "crc32c":
            # The same bytes are left where the last write of the node was lost: what is there nobody vouches for.
            return touched_by(terrain, self._pages_pointed_to())
        if structure in (NodeHeader, ChildPointer):
            return touched_by(terrain, range(container.offset // PAGE_BYTES, (container.offset + container.length) // PAGE_BYTES))
        if structure is Key:
            return self._of_key()
        return concerned(terrain, self.site.key, self.site.read(base(self.image)))

    def _pages_pointed_to(self) -> set[int]:
        device = base(self.image)
        pointer, superblock = ChildPointer.decode(self.site.read(device)), image_of(device).superblock
        starts = (place * superblock.block_bytes // PAGE_BYTES for place in (pointer.address, pointer.mirror) if place)
        return {page for start in starts for page in range(start, start + superblock.node_bytes // PAGE_BYTES)}

    def _of_key(self) -> set[int]:
        """Return what a key tells before and after the change; what it is the key of is somebody's."""
        terrain, found = terrain_of_image(self.image), set[int]()
        raw = bytearray(self.site.key)
        raw[self.change.offset : self.change.offset + len(self.change.data)] = self.change.data
        for site in sites_of(self.image)["Key"]:
            if site.key == self.site.key:
                found |= {object_of(site.key), object_of(bytes(raw))}
        for sites in sites_of(self.image).values():
            for site in sites:
                if site.key in (self.site.key, bytes(raw)) and site.structure not in (Key, NodeHeader, ChildPointer):
                    found |= concerned(terrain, site.key, site.read(base(self.image)))
        return found


@functools.cache
def sites_of(image: str) -> dict[str, list[Site]]:
    """Return the sites of an image by structure."""
    found: dict[str, list[Site]] = defaultdict(list)
    for site in find_sites(base(image)):
        found[site.structure.__name__].append(site)
    return dict(found)


@functools.cache
def terrain_of_image(image: str) -> Terrain:
    """Return the terrain of an undamaged image."""
    return terrain_of(base(image))


@functools.cache
def views_of(image: str) -> tuple[View, ...]:
    """Return what may be seen of an image; with a waiting journal also what is there without its last transaction."""
    return tuple(view(device) for device in (base(image), *before_the_last(image)))


def cases(
    image: str, seed: int, *, structures: frozenset[str] | None = None, sites_max: int = SITES_PER_STRUCTURE
) -> Iterator[FieldCase]:
    """Yield the cases of one image. The seed chooses the sites and the random values; every field and verb comes."""
    device = base(image)
    for name, sites in sites_of(image).items():
        if structures is not None and name not in structures:
            continue
        chance = random.Random(f"{seed} {image} {name}")
        for site in chance.sample(sites, min(sites_max, len(sites))):
            for change in changes(site.structure, site.read(device), chance):
                for sealed in (False, True):
                    yield FieldCase(seed, image, site, change, sealed)


@dataclass(frozen=True, slots=True)
class FieldResult:
    """What came of a case. *failure* empty: as it must be."""

    case: FieldCase
    verdict: Verdict
    is_harmless: bool
    failure: str


def examine(case: FieldCase) -> FieldResult:
    """Judge one case: found, or proven harmless."""
    device = case.damaged()
    if not device.differs():
        return FieldResult(case, Verdict((), (), ""), True, "")  # the checksum itself, made right again
    verdict = judge(device)
    if verdict.stumbled:
        return FieldResult(case, verdict, False, verdict.stumbled)
    if verdict.is_detected:
        return FieldResult(case, verdict, False, "")
    allowed = views_of(case.image) if case.site.role == "last transaction" else views_of(case.image)[:1]
    reason = why_not_harmless(case.field, case.site.role, allowed, device, verdict.notes)
    return FieldResult(case, verdict, not reason, reason and f"not found, and not harmless: {reason}")
