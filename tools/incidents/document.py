"""The incidents in docs/OPERATIONS.md: each between marks, as commands and what they say."""

import re

from tools.incidents.scene import Incident, Played
from tools.transcript import ROOT, as_markdown, replaced

DOCUMENT = ROOT / "docs" / "OPERATIONS.md"
# What differs from run to run: addresses and checksums, figures with their units, and how wide columns become by them.
_VARYING = ((r"0x[0-9a-fA-F]+", "#"), (r"\d[\d.:-]*(,\d{3})*", "#"), (r"# (us|ms|s|min|h|B|[KM]iB)\b", "#"), (r"[ \t]+", " "))


def marks(incident: Incident) -> tuple[str, str]:
    """Return the lines around an incident in the document."""
    return f"<!-- incident {incident.name}: made by python -m tools.incidents -->\n", f"<!-- end of {incident.name} -->\n"


def with_incident(text: str, incident: Incident, played: Played) -> str:
    """Return the document *text* with what an incident came to."""
    begin, end = marks(incident)
    return replaced(text, begin, end, f"\n{as_markdown(list(played.seen))}\n")


def agrees(text: str, incident: Incident, played: Played) -> bool:
    """Whether the document *text* tells of an incident what *played* tells, but for figures."""
    return masked(with_incident(text, incident, played)) == masked(text)


def masked(text: str) -> str:
    """Return *text* without what differs from run to run."""
    for pattern, shown in _VARYING:
        text = re.sub(pattern, shown, text)
    return text


def read() -> str:
    """Return the document."""
    return DOCUMENT.read_text(encoding="utf-8")


def write(text: str) -> None:
    """Write the document."""
    DOCUMENT.write_text(text, encoding="utf-8")
