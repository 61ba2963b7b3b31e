"""What docs/OPERATIONS.md tells of a mount in production: backups of what is mounted, and rotating its log."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.mount.mounts import ANSWER_S, Mounted, run

pytestmark = pytest.mark.mount

FSCK = [sys.executable, "-m", "razortools.fsck"]
HEALTH = [sys.executable, "-m", "razortools.health"]
DEBUG = [sys.executable, "-m", "razortools.debugfs"]
MOUNT = [sys.executable, "-m", "razortools.mount"]


def fill(folder: Path) -> dict[str, bytes]:
    """Write some files; return what they hold."""
    (folder / "sub").mkdir()
    contents = {f"sub/{number}": bytes([number]) * 3000 * number for number in range(60)}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return contents


def test_an_image_whose_mount_is_read_only_can_be_copied_and_is_whole(mounted: Mounted, tmp_path: Path) -> None:
    contents = fill(mounted.path)
    copy = tmp_path / "copy.img"
    assert run(MOUNT, mounted.image, mounted.path, "-o", "remount,ro").returncode == 0
    assert (mounted.path / "sub" / "7").read_bytes() == contents["sub/7"]  # programs read on
    shutil.copyfile(mounted.image, copy)
    assert run(MOUNT, mounted.image, mounted.path, "-o", "remount,rw").returncode == 0
    (mounted.path / "later").write_text("goes on")
    assert run(FSCK, "-n", copy).stdout.rstrip().endswith(": clean")
    assert run(DEBUG, "-R", f"get /sub {tmp_path / 'back'}", copy).returncode == 0
    assert {f"sub/{path.name}": path.read_bytes() for path in (tmp_path / "back").iterdir()} == contents


def test_a_copy_that_is_taken_at_one_instant_is_recovered_with_all_that_was_synced(mounted: Mounted, tmp_path: Path) -> None:
    """As a snapshot of the volume below it is: what a power cut would leave."""
    contents = fill(mounted.path)
    for name in contents:
        with open(mounted.path / name, "rb") as file:
            os.fsync(file.fileno())
    pid, copy = mounted.pid, tmp_path / "copy.img"
    os.kill(pid, signal.SIGSTOP)
    try:
        shutil.copyfile(mounted.image, copy)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert run(FSCK, "-n", copy).returncode == 0
    assert run(DEBUG, "-R", f"get /sub {tmp_path / 'back'}", copy).returncode == 0
    assert {f"sub/{path.name}": path.read_bytes() for path in (tmp_path / "back").iterdir()} == contents


def test_the_process_to_tell_of_a_rotated_log_is_in_the_document_of_health(mounted: Mounted, tmp_path: Path) -> None:
    told = json.loads(run(HEALTH, "--json", mounted.path).stdout)
    pid = told["images"][0]["live"]["pid"]
    assert pid == mounted.pid
    rotated = tmp_path / "log.1"
    mounted.log.rename(rotated)
    os.kill(pid, signal.SIGHUP)
    end = time.monotonic() + ANSWER_S
    while not mounted.log.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
