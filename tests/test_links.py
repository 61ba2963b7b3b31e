"""A link in a page leads to something that is there: a file of the project, and in a page the heading that it names."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PAGES = sorted(page for places in ("*.md", "docs/*.md", "fixtures/*.md", "contrib/**/*.md") for page in PROJECT.glob(places))
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    """Return where the links of *page* lead within the project."""
    found = _LINK.findall(page.read_text(encoding="utf-8"))
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """Return the names of the headings of *page*, as a forge makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_every_link_leads_to_something(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


def test_links_are_seen() -> None:
    assert "docs/FSCK.md" in links(PROJECT / "README.md") and "FSCK-MATRIX.md" in links(PROJECT / "docs" / "FSCK.md")
    assert "call-it-from-programs" in anchors(PROJECT / "docs" / "OPERATIONS.md")
