"""What contrib/ asks Prometheus for exists: names and labels are those that a mount exports."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from razortools.service import health_page
from razortools.service.metrics import METRICS
from tools import dashboard

CONTRIB = Path(__file__).parents[1] / "contrib"
ALERTS = CONTRIB / "prometheus" / "razorfs-alerts.yml"
LABELS = {series: {"image", "instance", "job", "le", *declared.labels} for declared in METRICS for series in declared.series}


def queries_of_alerts() -> Iterator[str]:
    """Yield every expression of the alert rules, those over several lines joined."""
    text = ALERTS.read_text(encoding="utf-8")
    for match in re.finditer(r"^ {8}expr: (?:>-\n((?: {10}.*\n)+)|(.+)\n)", text, re.MULTILINE):
        yield " ".join((match[1] or match[2]).split())


def queries() -> list[str]:
    shown = json.loads((CONTRIB / "grafana" / "razorfs.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in shown["panels"] for target in panel["targets"]] + list(queries_of_alerts())


def unknown(query: str) -> list[str]:
    """Return what a query asks for and no mount exports."""
    wrong = [name for name in re.findall(r"\brazorfs_\w+", query) if name not in LABELS]
    for name, inside in re.findall(r"\b(razorfs_\w+)\{([^}]*)\}", query):
        wrong += [f"{name}: {label}" for label in re.findall(r"(\w+)\s*[=!]", inside) if label not in LABELS.get(name, ())]
    every = set().union(*LABELS.values())
    for listed in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
        wrong += [label for label in re.findall(r"\w+", listed) if label not in every]
    return wrong


def test_everything_that_is_asked_for_is_exported() -> None:
    found = queries()
    assert len(found) >= 40
    assert {query: unknown(query) for query in found if unknown(query)} == {}


@pytest.mark.parametrize(
    "query", ["razorfs_free_byte", "rate(razorfs_read_bytes[5m])", 'razorfs_memory_bytes{cache="x"}', "sum by (operations) (up)"]
)
def test_what_is_not_exported_is_noticed(query: str) -> None:
    assert unknown(query)


def test_each_alert_has_a_query_and_says_what_to_do() -> None:
    text = ALERTS.read_text(encoding="utf-8")
    count = text.count("- alert: ")
    assert len(list(queries_of_alerts())) == count > 5
    assert {text.count(f"{key}: ") for key in ("severity", "summary", "description")} == {count}
    assert all(query.count("(") == query.count(")") and query.count("{") == query.count("}") for query in queries())
    assert "\t" not in text


def test_most_of_what_is_exported_is_shown() -> None:
    shown = {name for query in queries() for name in re.findall(r"\brazorfs_\w+", query)}
    unseen = [declared.name for declared in METRICS if not shown & set(declared.series)]
    assert len(unseen) < len(METRICS) / 3, unseen


def test_the_page_for_operators_names_only_what_is_exported() -> None:
    page = (CONTRIB.parent / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\brazorfs_\w+", page))
    assert len(named) > 5
    assert named - set(LABELS) - set(health_page.METRICS) == {"razorfs_health"}


def test_the_dashboard_is_up_to_date() -> None:
    assert dashboard.main(["--check"]) == 0
