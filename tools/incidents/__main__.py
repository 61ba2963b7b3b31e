"""Play the five incidents; put what was typed and said into docs/OPERATIONS.md.

    python -m tools.incidents

Needs root and /dev/fuse. tests/acceptance/test_incidents.py plays the same, judges it, and compares the document.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.incidents import document
from tools.incidents.five import INCIDENTS
from tools.incidents.scene import play


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document, unless something was said wrong, or lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    text = document.read()
    for incident in INCIDENTS:
        with tempfile.TemporaryDirectory(prefix="razorfs-incident.") as folder:
            played = play(incident, Path(folder))
        if played.faults:
            print(f"{incident.name}:", *played.faults, sep="\n", file=sys.stderr)
            return 1
        text = document.with_incident(text, incident, played)
    document.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
