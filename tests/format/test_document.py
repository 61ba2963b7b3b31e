"""docs/FORMAT.md says what the declarations say."""

import sys
from pathlib import Path
from subprocess import run

from razortools.format import document
from tests.format.records import RECORDS

PROJECT = Path(__file__).parents[2]


def test_the_format_document_is_up_to_date() -> None:
    assert (PROJECT / "docs" / "FORMAT.md").read_text(encoding="utf-8") == document.text(), "run: python tools/format_doc.py"


def test_every_record_and_every_field_is_in_the_document() -> None:
    text = document.text()
    for record in RECORDS:
        assert text.count(f"\n### {record.__name__}\n") == 1
        section = text.split(f"\n### {record.__name__}\n")[1].split("\n### ")[0]
        assert all(f"| `{field.name}` |" in section for field in record.FIELDS)


def test_the_tool_says_whether_the_document_is_up_to_date() -> None:
    assert run([sys.executable, "tools/format_doc.py", "--check"], cwd=PROJECT, env={"PYTHONPATH": "."}).returncode == 0
