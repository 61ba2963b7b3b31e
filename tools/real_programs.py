"""Let programs that are hard on a filesystem work on a mount for a while, and see that neither they nor razorfsck complain.

    python -m tools.real_programs                                  everything, about ten minutes
    python -m tools.real_programs --only postgres --seconds 60

PostgreSQL (initdb with checksums, pgbench; as the user postgres), fio with verification, and every filesystem stressor of
stress-ng; each on an image of its own. Needs root, /dev/fuse, and the Debian packages postgresql, fio and stress-ng. A line for
each job; exit 0 if all went well, 1 if something did not, 2 if something that was asked for is not installed. What is quick
enough for every run of the tests is in tests/mount/test_programs.py.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from razortools.units import MIB
from tests.mount.mounts import FSCK, Mounted, run
from tools.programs import fio, postgres, stressors
from tools.programs.jobs import Job, Outcome

IMAGE_BYTES = 4096 * MIB
JOBS: dict[str, Callable[[int], Iterator[Job]]] = {"postgres": postgres.jobs, "fio": fio.jobs, "stress-ng": stressors.jobs}
NEEDED: dict[str, Callable[[], str | None]] = {"postgres": postgres.program, "fio": fio.program, "stress-ng": stressors.program}


def run_on_an_image(jobs: Iterator[Job], options: Sequence[str], tell: Callable[[str], None]) -> bool:
    """Do *jobs* one after the other on a new image; return whether all went well and the image is clean."""
    folder = Path(tempfile.mkdtemp(prefix="razorfs-programs."))
    folder.chmod(0o755)  # not every job is root's
    mounted = Mounted(folder, IMAGE_BYTES)
    is_well = True
    try:
        mounted.mount(*options)
        for job in jobs:
            begun = time.monotonic()
            outcome, story = job.do(mounted)
            complaints = mounted.complaints
            if complaints:
                outcome, story = Outcome.FAILED, "\n".join([story, *complaints[:20]])
                mounted.log.write_text("")
            is_well &= outcome is not Outcome.FAILED
            tell(f"{outcome.value:8}{job.name:32}{time.monotonic() - begun:7.1f} s  {story}")
        mounted.umount()
        checked = run(FSCK, "-n", mounted.image)
        is_clean = checked.returncode == 0
        tell(f"{'clean' if is_clean else 'DAMAGED':8}razorfsck -n  {checked.stdout.strip().splitlines()[-1]}")
        if not is_clean:
            tell(checked.stdout + checked.stderr)
        return is_well and is_clean
    finally:
        mounted.take_away()
        shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.real_programs", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--only", choices=sorted(JOBS), action="append", help="this family only; may be given again")
    parser.add_argument("--seconds", type=int, default=60, help="how long pgbench runs; a stressor a tenth of it")
    parser.add_argument("-o", dest="options", action="append", default=[], help="mount options")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # on the way out the mount is taken away
    is_well, is_missing = True, False
    for family in chosen.only or JOBS:
        missing = NEEDED[family]()
        if missing is not None:
            is_missing = True
            print(f"missing {family}: {missing}", flush=True)
            continue
        print(f"== {family}", flush=True)
        is_well &= run_on_an_image(JOBS[family](chosen.seconds), chosen.options, lambda line: print(line, flush=True))
    print("all went well" if is_well and not is_missing else "NOT everything went well, or not everything could be run")
    return 1 if not is_well else 2 if is_missing else 0


if __name__ == "__main__":
    sys.exit(main())
