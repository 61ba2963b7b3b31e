"""The log as people and machines read it, slow requests with what they waited for, and the audit log."""

import io
import json
import logging
import os
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from razortools import fsck
from razortools.cli import app as cli
from razortools.engine import namespace
from razortools.engine.store.device import open_image
from razortools.errors import UsageError
from razortools.format.admin import Action, entry
from razortools.format.inode import ROOT_INODE
from razortools.service import log_format, logs
from razortools.service.audit import Trail
from razortools.service.logs import log
from razortools.service.options import parse_options
from razortools.service.phases import Phase
from razortools.service.slow import SlowLog
from razortools.units import InodeNo
from tests.check.editing import edit_inode, find_inode
from tests.images import make_image, open_for_writing
from tests.mount.mounts import Mounted


def formatted(formatter: logging.Formatter, level: int, text: str, **fields: object) -> str:
    record = logging.LogRecord("razorfs", level, "", 0, text, None, None)
    record.__dict__.update(fields)
    return formatter.format(record)


def test_json_carries_the_fields_that_came_with_a_line() -> None:
    told = json.loads(formatted(log_format.as_json(), logging.ERROR, "read of /a: broken", path="/a", inode=5, advice="run it"))
    assert (told["event"], told["level"], told["process"]) == ("read of /a: broken", "error", os.getpid())
    assert (told["path"], told["inode"], told["advice"]) == ("/a", 5, "run it")
    assert told["time"].endswith("Z")


def test_json_of_an_exception_is_still_one_line() -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        record = logging.LogRecord("razorfs", logging.ERROR, "", 0, "a bug", None, sys.exc_info())
    line = log_format.as_json().format(record)
    assert "\n" not in line
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_journald_gets_priorities_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    assert formatted(log_format.of_stderr(), logging.ERROR, "two\nlines") == "<3>two\n<3>lines"
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
    assert " ERROR text" in formatted(log_format.of_stderr(), logging.ERROR, "text")


def test_a_slow_request_is_told_with_what_it_waited_for_and_the_next_ones_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, now_s = io.StringIO(), [100.0]
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(log, "handlers", [handler])
    monkeypatch.setattr("razortools.service.slow.time.monotonic", lambda: now_s[0])
    with open_for_writing(make_image(tmp_path / "a.img")) as volume:
        slow = SlowLog(volume, 0.5)
        slow.tell("read", InodeNo(1), 2.0, {Phase.QUEUE: 0.25, Phase.READ: 1.5})
        slow.tell("write", InodeNo(1), 3.0, {})
        now_s[0] += 1.5
        slow.tell("fsync", InodeNo(99), 4.0, {Phase.COMMIT: 4.0})
    first, second = stream.getvalue().splitlines()
    assert first == "slow: read of / took 2.000 s (queue 0.250 s, read 1.500 s, engine 0.250 s)"
    assert second == "slow: fsync of inode 99 took 4.000 s (commit 4.000 s, engine 0.000 s); 1 more since the last such line"


def test_an_audit_log_is_only_its_owners_is_appended_to_and_follows_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.write_text("before\n", encoding="utf-8")
    trail = Trail(str(path))
    trail.note("mode", (1000, 100, 7), path="/a")
    path.rename(tmp_path / "audit.1")
    trail.note("owner", None)
    trail.close()
    before, mode = (tmp_path / "audit.1").read_text(encoding="utf-8").splitlines()
    assert before == "before"
    told = json.loads(mode)
    assert {key: told[key] for key in ("event", "uid", "gid", "pid", "path")} == {
        "event": "mode", "uid": 1000, "gid": 100, "pid": 7, "path": "/a",
    }  # fmt: skip
    assert json.loads(path.read_text(encoding="utf-8"))["event"] == "owner"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_audit_log_that_fails_is_told_once_and_fails_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    trail = Trail("/dev/full")
    for _ in range(3):
        trail.note("mode")
    assert [record.getMessage() for record in caplog.records] == [
        "the audit log /dev/full cannot be written to; see whether its disk is full"
    ]


@pytest.mark.parametrize("text", ["logformat=xml", "slow=0", "slow=x", "audit=", "audit=/a,record=/b"])
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"option (logformat|slow|audit)"):
        parse_options([text])


@pytest.mark.mount
@pytest.mark.slow
def test_a_mount_audits_owners_modes_attributes_and_itself(unmounted: Mounted, tmp_path: Path) -> None:
    audit, log_path = tmp_path / "audit", tmp_path / "json"
    mounted = unmounted.mount(f"audit={audit},log={log_path},logformat=json,slow=0.000001,loglevel=warning")
    path = mounted.path / "file"
    path.write_bytes(b"text")
    path.chmod(0o600)
    os.chown(path, 1, 2)
    os.utime(path)  # nothing for an audit
    os.setxattr(path, "trusted.secret", b"hidden")
    os.setxattr(path, "user.plain", b"open")
    os.removexattr(path, "trusted.secret")
    mounted.umount()
    text = audit.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    made = lines.pop(0)
    assert (made["event"], made["action"], made["image"]) == ("administration", "mkfs", str(unmounted.image))
    assert made["at"] <= made["time"] <= lines[0]["time"]
    assert [line["event"] for line in lines] == ["mount", "mode", "owner", "xattr set", "xattr removed", "unmount"]
    assert lines[1]["after"]["mode"] == "0600" and lines[1]["path"] == "/file" and lines[1]["pid"] == os.getpid()
    assert (lines[2]["before"]["uid"], lines[2]["after"]) == (0, {"mode": "0600", "uid": 1, "gid": 2})
    assert lines[3]["name"] == "trusted.secret" and "hidden" not in text
    assert lines[5]["clean"] is True
    slow = [json.loads(line) for line in log_path.read_text(encoding="utf-8").splitlines()]
    assert slow and all(line["level"] == "warning" and line["operation"] and line["seconds"] > 0 for line in slow)


@pytest.mark.parametrize(
    ("at_ns", "at"), [(0, "1970-01-01T00:00:00"), ((1 << 63) - 1, "2262-04-11T23:47:16"), (-(1 << 63), "1677-09-21T00:12:43")]
)
def test_the_history_of_an_image_is_audited_whatever_its_clock_was(tmp_path: Path, at_ns: int, at: str) -> None:
    trail = Trail(str(tmp_path / "audit"))
    trail.note_history([entry(Action.LABEL, at_ns)], image="/disk.img")
    trail.close()
    line = json.loads((tmp_path / "audit").read_text(encoding="utf-8"))
    assert (line["event"], line["action"], line["at_ns"], line["image"]) == ("administration", "label", at_ns, "/disk.img")
    assert line["at"].startswith(at)


@pytest.mark.mount
@pytest.mark.slow
def test_a_repair_is_audited_by_the_next_mount(unmounted: Mounted, tmp_path: Path) -> None:
    """What razorfsck did the image knows: it has no audit log of its own."""
    audit = tmp_path / "audit"
    unmounted.mount(f"audit={audit}").umount()
    with open_for_writing(unmounted.image) as volume:  # a mount as well
        namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    with open_image(unmounted.image, writable=True) as device:
        edit_inode(device, find_inode(device, "/file"), link_count=9)
    began = datetime.now(UTC).isoformat(timespec="milliseconds")
    assert cli.invoke(fsck.app, "razorfsck", cli.FSCK_CODES, ["-y", str(unmounted.image)]) == 1
    unmounted.mount(f"audit={audit}").umount()
    lines = [json.loads(line) for line in audit.read_text(encoding="utf-8").splitlines()]
    events = ["administration", "mount", "unmount", "administration", "mount", "unmount"]
    assert [line["event"] for line in lines] == events
    repair = lines[3]
    assert (repair["action"], repair["outcome"], repair["errors"]) == ("repair", "done", 1)
    assert began <= repair["at"] <= repair["time"]


def test_the_start_of_a_log_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"option audit: .*cannot be written to"):
        Trail(str(tmp_path / "none" / "audit"))
    with pytest.raises(UsageError, match="option log"):
        logs.start(parse_options([f"log={tmp_path}/none/log"]), foreground=True)
