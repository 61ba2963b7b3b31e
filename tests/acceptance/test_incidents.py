"""Five incidents: the commands say what there is and what to do, nothing is lost, and the document tells the same."""

from pathlib import Path

import pytest

from tools.incidents import document
from tools.incidents.five import INCIDENTS
from tools.incidents.scene import Incident, play


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.parametrize("incident", INCIDENTS, ids=[incident.name for incident in INCIDENTS])
def test_an_operator_gets_through_an_incident_as_the_document_tells(fuse: None, incident: Incident, tmp_path: Path) -> None:
    played = play(incident, tmp_path)
    assert "\n".join(played.faults) == ""
    assert document.agrees(document.read(), incident, played), (
        "docs/OPERATIONS.md tells it otherwise; run: python -m tools.incidents"
    )


def test_only_figures_may_differ_between_the_document_and_a_run() -> None:
    said = "WARNING  Space: 92 % of 16 MiB used\n  read  172  251 us  1.9 ms\nchecksum 0xa178d887 found"
    again = "WARNING  Space: 9 % of 1.5 KiB used\n  read  1,012    2 ms  85 us\nchecksum 0x1 found"
    assert document.masked(said) == document.masked(again)
    for other in (said.replace("used", "free"), said.replace("read", "write"), said.replace("WARNING ", "CRITICAL")):
        assert document.masked(other) != document.masked(said)
