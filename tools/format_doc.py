"""Write docs/FORMAT.md from the declarations of the format; with --check only say whether it is up to date."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from razortools.format import document

PLACE = Path(__file__).resolve().parent.parent / "docs" / "FORMAT.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 if --check found the file out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    chosen = parser.parse_args(arguments)
    wanted = document.text()
    if chosen.check:
        if PLACE.exists() and PLACE.read_text(encoding="utf-8") == wanted:
            return 0
        print("docs/FORMAT.md is out of date; run: python tools/format_doc.py", file=sys.stderr)
        return 1
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
