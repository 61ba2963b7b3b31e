"""Write docs/FORMAT.md from the declarations of the format; with --check only say whether it is up to date."""

import sys
from pathlib import Path

from razortools.format import document

PLACE = Path(__file__).resolve().parent.parent / "docs" / "FORMAT.md"


def main(arguments: list[str]) -> int:
    """Return 0, or 1 if --check found the file out of date."""
    wanted = document.text()
    if arguments == ["--check"]:
        if PLACE.exists() and PLACE.read_text(encoding="utf-8") == wanted:
            return 0
        print("docs/FORMAT.md is out of date; run: python tools/format_doc.py", file=sys.stderr)
        return 1
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
