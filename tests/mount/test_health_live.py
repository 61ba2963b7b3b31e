"""razorfs-health asks the daemon of a mount, and its verdict is about this moment, in every form."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command

from razortools import health as front_end
from razortools.cli import app as cli
from razortools.engine.health import Health, Reason, Thresholds, Verdict
from razortools.service import examination, profile, wellness
from razortools.service.asking import Asker
from razortools.service.figures import MountFigures, Spread
from razortools.service.watching import Watcher
from tests.mount.mounts import ANSWER_S, Mounted, run
from tests.mount.test_metrics import figures_of
from tests.mount.users import as_root
from tests.schemas import valid

HEALTH = [sys.executable, "-m", "razortools.health"]
DAY_S, DAY_NS = 86_400.0, 86_400 * 10**9
NORMAL = Thresholds()


@pytest.fixture(scope="module")
def told(shared: Mounted) -> MountFigures:
    """What a mount that is well has told once; tests change what they are about."""
    (shared.path / "file").write_bytes(b"text " * 1000)
    return figures_of(shared)


def of(figures: MountFigures, subject: str, thresholds: Thresholds = NORMAL, now_ns: int = 0) -> Reason:
    (found,) = [reason for reason in wellness.judge(figures, now_ns, thresholds) if reason.subject == subject]
    return found


def volume(figures: MountFigures, **changes: object) -> MountFigures:
    return replace(figures, volume=replace(figures.volume, **changes))  # type: ignore[arg-type]


@pytest.mark.mount
def test_a_mount_that_is_well_is_called_well_in_each_part(told: MountFigures) -> None:
    reasons = wellness.judge(told, 0, NORMAL)
    assert {reason.verdict for reason in reasons} == {Verdict.OK}
    subjects = [reason.subject for reason in reasons]
    assert subjects == ["Mount", "Journal", "Persistence", "Memory", "Cache", "Space", "Contents", "Requests", "Integrity"]


Change = Callable[[MountFigures], MountFigures]
LATE, FULL_CACHE = 100.0, {"record_cache_bytes": 256 << 20, "record_hits": 650, "record_misses": 350}
CASES: list[tuple[str, Change, Verdict, str]] = [
    ("Mount", lambda f: volume(f, failure="the disk is gone"), Verdict.CRITICAL, "turned read-only by itself: the disk is gone"),
    ("Journal", lambda f: volume(f, journal_used_bytes=f.volume.journal_bytes * 8 // 10), Verdict.WARNING, "80 % of"),
    ("Persistence", lambda f: replace(f, commit_age_s=LATE), Verdict.WARNING, "last commit 1 min ago.*although commit=5"),
    ("Persistence", lambda f: volume(replace(f, commit_age_s=LATE), read_only=True), Verdict.OK, "read-only"),
    ("Memory", lambda f: volume(f, dirty_bytes=600 << 20), Verdict.WARNING, "of 448 MiB; more than the limits"),
    ("Cache", lambda f: volume(f, **FULL_CACHE), Verdict.WARNING, r"65 %, target 80 %\. Working set is larger than cache=256M"),
    ("Cache", lambda f: volume(f, **FULL_CACHE | {"record_cache_bytes": 1 << 20}), Verdict.OK, "65 %, target 80 %; first reads"),
    (
        "Cache",  # found by playing an incident: seven records of 1 MiB, with what each costs besides, fill 8 MiB
        lambda f: volume(
            replace(f, limits_bytes={**f.limits_bytes, "records": 8 << 20}),
            **FULL_CACHE | {"record_cache_bytes": (7 << 20) + 4000},
        ),
        Verdict.WARNING,
        "Working set is larger than cache=8M",
    ),
    ("Cache", lambda f: volume(f, **FULL_CACHE | {"record_hits": 65, "record_misses": 35}), Verdict.OK, "of few reads"),
    ("Cache", lambda f: volume(f, **FULL_CACHE | {"record_hits": 3500}), Verdict.OK, "^hit rate 91 %$"),
    ("Space", lambda f: volume(f, free_blocks=f.volume.block_count // 20), Verdict.WARNING, "95 % of"),
    ("Space", lambda f: volume(f, free_blocks=0), Verdict.CRITICAL, "100 % of"),
    ("Requests", lambda f: replace(f, failed_requests=3), Verdict.WARNING, "^3 were refused because the device failed"),
    ("Integrity", lambda f: replace(f, corrupt_requests=2), Verdict.CRITICAL, "^2 requests met data.*razorfsck"),
    ("Integrity", lambda f: volume(f, healed_nodes=1), Verdict.WARNING, "^1 damaged copies"),
]


@pytest.mark.mount
@pytest.mark.parametrize(("subject", "change", "verdict", "text"), CASES, ids=[f"{case[0]} {case[2].name}" for case in CASES])
def test_what_is_wrong_is_told_with_advice(told: MountFigures, subject: str, change: Change, verdict: Verdict, text: str) -> None:
    reason = of(change(told), subject)
    assert reason.verdict is verdict
    assert re.search(text, reason.text), reason.text


@pytest.mark.mount
def test_thresholds_move_the_verdicts(told: MountFigures) -> None:
    poor = volume(told, **FULL_CACHE)
    assert of(poor, "Cache", Thresholds(cache_target=60)).verdict is Verdict.OK
    assert of(replace(told, commit_age_s=LATE), "Persistence", Thresholds(commit_age_warning_s=200)).verdict is Verdict.OK
    assert of(told, "Memory", Thresholds(memory_warning=0)).verdict is Verdict.WARNING


@pytest.mark.mount
def test_a_check_is_dated(told: MountFigures) -> None:
    assert of(volume(told, checked_at_ns=DAY_NS), "Integrity", now_ns=3 * DAY_NS).text.endswith("last full check 2 days ago")


def grown(figures: MountFigures, days: float, share: float) -> MountFigures:
    """Return figures of a mount that has taken *share* of its free space in so many days."""
    free = figures.volume.free_blocks * figures.volume.block_bytes
    return replace(figures, space_history=((days * DAY_S, wellness.used_bytes(figures) - int(share * free)), (10.0, 0)))


@pytest.mark.mount
@pytest.mark.parametrize(
    ("days", "share", "verdict", "text"),
    [
        (7, 7 / 80, Verdict.OK, "full in 80 days at this week's rate"),
        (1.5, 0.5, Verdict.WARNING, "full in 3 days at the rate of the last 36 h; plan"),
        (0.2, 0.5, Verdict.OK, "full in 0 days at the rate of the last 4 h$"),  # too short a time to wake anybody
        (0.01, 0.5, Verdict.OK, "free$"),  # nobody has watched for an hour
        (7, -0.1, Verdict.OK, "free$"),
    ],
)
def test_when_it_will_be_full_is_told_if_there_are_figures(
    told: MountFigures, days: float, share: float, verdict: Verdict, text: str
) -> None:
    reason = of(grown(told, days, share), "Space")
    assert (reason.verdict, bool(re.search(text, reason.text))) == (verdict, True), reason.text


@pytest.mark.mount
@pytest.mark.slow
def test_every_form_tells_of_a_mount_as_it_is_now(mounted: Mounted) -> None:
    for number in range(5):
        (mounted.path / f"file {number}").write_bytes(b"text " * 1000)
    shown = run(HEALTH, mounted.path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert re.search(rf"^OK       Mount: served by pid {mounted.pid} at {mounted.path} for \d+ s$", shown.stdout, re.MULTILINE)
    assert "OK       Superblock: " in shown.stdout
    document = json.loads(run(HEALTH, "--json", mounted.image).stdout)
    valid("razorfs-health", document)
    live = document["images"][0]["live"]
    assert live["volume"]["inode_count"] == 6  # the checkpoint knows of the root alone
    assert live["requests"]["mknod"]["counts"].__len__() == 24
    page = run(HEALTH, "--prometheus", mounted.path).stdout
    values = {s.name: s.value for family in text_string_to_metric_families(page) for s in family.samples if len(s.labels) == 1}
    assert (values["razorfs_health"], values["razorfs_inodes"], values["razorfs_superblock_copies_invalid"]) == (0, 6, 0)
    assert page.count("# TYPE razorfs_inodes ") == 1
    nagios = run(HEALTH, "--nagios", mounted.path).stdout
    space = wellness.used_percent(figures_of(mounted))
    assert nagios.startswith(f"RAZORFS OK - all is well | '{mounted.image} space'={space}%;90.0;97.0 '{mounted.image} journal'=")
    assert "OK       Contents: 6 inodes, 1 of them directories" in shown.stdout


TRIED_ELSEWHERE = {  # as processes, too
    "--watch", "--frames", "--interval",  # test_watching_shows_rates_and_ends_by_q_on_a_terminal
    "--seconds", "--output",  # test_a_daemon_is_profiled_while_it_serves
    "--version", "--help", "--debug",  # tests/cli and tests/acceptance: every command has them
}  # fmt: skip
# Words, exit code, what is said. MOUNT is a mount that is well, IMAGE an image of which every node is damaged.
RUNS: list[tuple[str, int, str]] = [
    ("MOUNT --space-warning 0.1 --journal-warning 0 --memory-warning 0 --commit-age-warning -9999 --cache-target 9"
     " --full-warning 1", 1, r"^WARNING  Journal: (?s:.*)^WARNING  Persistence: (?s:.*)^WARNING  Memory: (?s:.*)^WARNING  Sp"),
    ("MOUNT --space-warning 0.1 --space-critical 0.1 --nagios", 2, r"^RAZORFS CRITICAL - .*: Space: "),
    ("IMAGE", 2, r"^CRITICAL Integrity: .*no good copy is left"),
    ("IMAGE --json", 2, r'"verdict": "critical"'),
    ("IMAGE --prometheus", 2, r'^razorfs_health{.*} 2'),
    ("IMAGE --nagios", 2, r"^RAZORFS CRITICAL - .*: Integrity: "),
]  # fmt: skip


ODD_PLACE = "m\n\r#\udcff"


def look_at_an_odd_mount(folder: Path, options: str) -> list[object]:
    made = Mounted(folder, image_name="a#b\udcff.img")
    made.path = made.path.rename(folder / ODD_PLACE)
    try:
        made.mount(*filter(None, [options]))
        done = subprocess.run([*HEALTH, made.path], capture_output=True, timeout=ANSWER_S)
        told = json.loads(run(HEALTH, "--json").stdout)
    finally:
        made.take_away()
    lines = os.fsdecode(done.stdout + done.stderr).split("\n")[:-1]
    return [lines, [Path(one["image"]).name for one in told["images"]], made.complaints]


@pytest.mark.mount
@pytest.mark.parametrize("options", ["", "fsname=foo", "subtype=foo", "fsname=/etc/fstab,subtype=foo"])
def test_a_mount_is_found_whatever_it_is_called(fuse: None, tmp_path: Path, options: str) -> None:
    """The mount table has the names of -o fsname= and -o subtype=, and "#" as a number: none of them was taken for a mount."""
    lines, images, complaints = as_root(look_at_an_odd_mount, tmp_path, options)
    assert lines[0].startswith("OK       Mount: served by pid ")
    assert all(line.startswith("OK  ") for line in lines), lines
    assert (images, complaints) == (["a#b\udcff.img"], [])


@pytest.mark.mount
def test_a_stopped_daemon_is_named_by_its_mount_point(
    unmounted: Mounted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unmounted.mount("fsname=foo")
    monkeypatch.setattr(examination, "PATIENCE_S", 0.1)
    pid = unmounted.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert cli.invoke(front_end.app, front_end.NAME, cli.HEALTH_CODES, [str(unmounted.path)]) == 3
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"the process that serves {unmounted.path} does not say how it is" in capsys.readouterr().err


@pytest.mark.mount
@pytest.mark.slow
def test_every_option_is_run_as_a_process_on_what_is_well_and_what_is_not(mounted: Mounted, tmp_path: Path) -> None:
    declared = {parameter.opts[-1] for parameter in get_command(front_end.app).params if parameter.opts[-1].startswith("--")}
    assert {word for words, _, _ in RUNS for word in words.split() if word.startswith("--")} | TRIED_ELSEWHERE >= declared
    damaged = tmp_path / "damaged"
    damaged.write_bytes(mounted.image.read_bytes().replace(b"RZND", b"XXXX"))
    places = {"MOUNT": str(mounted.path), "IMAGE": str(damaged)}
    for words, exit_code, said in RUNS:
        done = run(HEALTH, *(places.get(word, word) for word in words.split()))
        assert (done.returncode, done.stderr) == (exit_code, ""), words
        assert re.search(said, done.stdout, re.MULTILINE), f"{words}: {done.stdout}"
        if "--json" in words:
            valid("razorfs-health", json.loads(done.stdout))


@pytest.mark.mount
@pytest.mark.slow
def test_watching_shows_rates_and_ends_by_q_on_a_terminal(mounted: Mounted) -> None:
    (mounted.path / "file").write_bytes(b"text")
    piped = run(HEALTH, "--watch", "--frames", "2", "--interval", "0.01", mounted.path)
    assert piped.returncode == 0, piped.stderr
    assert "Requests since the mount" in piped.stdout and re.search(r"^Requests in \d", piped.stdout, re.MULTILINE)
    assert re.search(r"^  mknod +\S+ +\d+ us", piped.stdout, re.MULTILINE)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "60"}
    watching = subprocess.Popen([*HEALTH, "--watch", mounted.path], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        seen = b""
        while b"Compression" not in seen:
            assert select.select([ours], [], [], ANSWER_S)[0], seen
            seen += os.read(ours, 65_536)
        os.write(ours, b"q")
        while select.select([ours], [], [], ANSWER_S)[0]:
            try:
                seen += os.read(ours, 65_536)
            except OSError:  # it has left the terminal
                break
        assert watching.wait(ANSWER_S) == 0
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)
    assert b"Traceback" not in seen


@pytest.mark.mount
def test_a_look_shows_what_happened_since_the_one_before(told: MountFigures) -> None:
    slow = Spread(tuple(10 if number == 20 else 0 for number in range(24)), 30.0)
    sums = Spread(tuple(map(sum, zip(slow.counts, told.requests["mknod"].counts, strict=True))), 31.0)
    later = replace(told, requests={**told.requests, "mknod": sums}, read_bytes=told.read_bytes + (4 << 20))
    answers = iter([told, later, None])
    times = iter([(100.0, 0), (102.0, 0)])
    watcher = Watcher(lambda: next(answers), lambda: next(times), NORMAL)
    assert watcher.look() is not None
    sections = dict(watcher.look() or ())
    operation, rate, *quantiles = sections["Requests in 2.0 s"][1]
    assert (operation, rate) == ("mknod", "5")
    assert quantiles == ["3.2 s", "4.3 s", "4.3 s"]
    assert sections["Data in 2.0 s"][0] == ("read by programs", "2 MiB/s")
    assert watcher.look() is None
    assert (watcher.verdict, watcher.looks) == (Verdict.OK, 2)


@pytest.mark.mount
def test_who_is_told_nothing_sees_the_last_checkpoint_and_why(
    told: MountFigures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Asker, "fetch", lambda self, what: None)
    assert cli.invoke(front_end.app, front_end.NAME, cli.HEALTH_CODES, [told.image]) == 0
    shown = capsys.readouterr().out
    assert "Mount: is served, and tells more only to root and to whoever has mounted it" in shown
    assert "Space: " in shown and "Persistence: " not in shown


@pytest.mark.mount
def test_a_checkpoint_that_is_written_over_while_it_is_looked_at_is_no_damage(
    told: MountFigures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks, examine = [], examination.examine

    def overtaken(*arguments: object, **keywords: object) -> Health:
        looks.append(1)
        found = examine(*arguments, **keywords)  # type: ignore[arg-type]
        if len(looks) < examination.CHECKPOINTS_TRIED:
            return Health(found.image, Verdict.CRITICAL, (Reason(Verdict.CRITICAL, "Integrity", "torn"),), None)
        return found

    monkeypatch.setattr(examination, "examine", overtaken)
    assert cli.invoke(front_end.app, front_end.NAME, cli.HEALTH_CODES, [told.image]) == 0
    assert len(looks) == examination.CHECKPOINTS_TRIED
    assert "Superblock: 6 copies" in capsys.readouterr().out


@pytest.mark.mount
@pytest.mark.slow
def test_a_daemon_is_profiled_while_it_serves(mounted: Mounted, tmp_path: Path) -> None:
    """A machine may forbid it (a container without ptrace): then that is said in a sentence."""
    is_enough = threading.Event()

    def use() -> None:
        number = 0
        while not is_enough.is_set():
            os.path.exists(mounted.path / f"absent {number}")
            number += 1

    user = threading.Thread(target=use)
    user.start()
    try:
        done = run(HEALTH, "profile", mounted.path, "--seconds", "1", "-o", tmp_path / "flame.svg")
    finally:
        is_enough.set()
        user.join()
    if done.returncode:
        assert (done.returncode, "ptrace is allowed" in done.stderr) == (3, True), done.stderr
        return
    graph = (tmp_path / "flame.svg").read_text(encoding="utf-8")
    assert "</svg>" in graph and "pump.py" in graph
    assert "lookup" in done.stdout and "requests waited for" in done.stdout


def test_why_a_daemon_cannot_be_profiled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Error: Failed to get process executable name.\nReason: Permission denied (os error 13)\n"
    assert "see that ptrace is allowed" in profile.explained(7, said)
    assert "while the mount is used" in profile.explained(7, "Error: Failed to write flamegraph: No stack counts found")
    assert profile.explained(7, "\nError: something else\n") == "py-spy has failed: Error: something else"
    monkeypatch.setattr(profile.sys, "executable", "/none/python")
    monkeypatch.setattr(profile.shutil, "which", lambda name: None)
    with pytest.raises(profile.ProfilingFailed, match=r"pip install 'razortools\[profile\]'"):
        profile.record(7, 1, "flame.svg")


@pytest.mark.mount
def test_what_is_not_mounted_cannot_be_watched(unmounted: Mounted) -> None:
    done = run(HEALTH, "--watch", unmounted.image)
    assert done.returncode == 3
    assert "is not mounted, so no process serves it" in done.stderr
