"""Metrics: declared by Prometheus' conventions, read by its own parser, and in agreement with the work that was done."""

import json
import os
import re
import socket
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from razortools import fsck
from razortools.cli import app as cli
from razortools.engine import namespace
from razortools.engine.store.device import open_image
from razortools.engine.store.durations import BOUNDS_S
from razortools.errors import UsageError
from razortools.format.inode import ROOT_INODE
from razortools.service import mountpoints
from razortools.service.asking import Asker
from razortools.service.figures import MountFigures
from razortools.service.metrics import METRICS, page
from razortools.service.mountpoints import MountRefused
from razortools.service.options import Address, parse_options
from razortools.service.scrape import Scrape
from razortools.units import plural
from tests.check.editing import edit_inode, find_inode
from tests.images import open_for_writing
from tests.mount.mounts import MOUNT, Mounted, run

Values = dict[str, float]  # by name and labels, the image left out
FILES = 12
HEALTH = [sys.executable, "-m", "razortools.health"]


def read(text: str) -> Values:
    """Return what Prometheus' parser finds on a page."""
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()) if name != "image")
            values[f"{sample.name}{{{labels}}}"] = sample.value
    return values


def scrape(mounted: Mounted) -> str:
    """Return the page of a mount that was told to take any free port."""
    found = re.findall(r"metrics at (http://\S+)", mounted.log.read_text())
    with urllib.request.urlopen(found[-1], timeout=30) as reply:
        return str(reply.read().decode())


def figures_of(mounted: Mounted) -> MountFigures:
    found = mountpoints.mount_at(str(mounted.path))
    assert found is not None
    with closing(Asker(found.device, 30)) as asker:
        told = asker.figures()
    assert told is not None
    return told


def work(folder: Path) -> None:
    """Make files, look for others, sync one, read all back."""
    for number in range(FILES):
        descriptor = os.open(folder / f"file {number}", os.O_CREAT | os.O_RDWR, 0o644)
        os.write(descriptor, b"x" * 1000)
        if number == 0:
            os.fsync(descriptor)
        os.close(descriptor)
        assert not os.path.exists(folder / f"absent {number}")


@pytest.mark.mount
def test_names_that_are_no_utf_8_are_written_out(fuse: None, tmp_path: Path) -> None:
    """The page is UTF-8. Whoever scraped got no answer, and razorfs-health --prometheus ended with UnicodeEncodeError."""
    made = Mounted(tmp_path, image_name="a\udcffb.img")
    made.path = made.path.rename(tmp_path / "mp\udcffx")
    try:
        made.mount("metrics=127.0.0.1:0")
        for text in (scrape(made), run(HEALTH, "--prometheus", made.path).stdout):
            samples = [sample.labels for family in text_string_to_metric_families(text) for sample in family.samples]
            assert {labels["image"] for labels in samples if "image" in labels} == {f"{tmp_path}/a\\udcffb.img"}
            assert {labels["mount_point"] for labels in samples if "mount_point" in labels} == {f"{tmp_path}/mp\\udcffx"}
        made.umount()
        of_image = run(HEALTH, "--prometheus", made.image)  # without prometheus_client; run() reads UTF-8 only
        assert f'razorfs_health{{image="{tmp_path}/a\\\\udcffb.img"}} 0' in of_image.stdout
    finally:
        made.take_away()
    assert made.complaints == []


@pytest.mark.mount
def test_a_page_agrees_with_the_work_that_was_done(unmounted: Mounted) -> None:
    mounted = unmounted.mount("metrics=127.0.0.1:0")
    before = read(scrape(mounted))
    work(mounted.path)
    after = read(scrape(mounted))

    def count(operation: str) -> float:
        name = f"razorfs_request_duration_seconds_count{{operation={operation}}}"
        return after[name] - before.get(name, 0)

    assert (count("mknod"), count("write"), count("fsync")) == (FILES, FILES, 1)
    assert count("lookup") == 2 * FILES
    assert after["razorfs_request_errors_total{error=ENODATA,operation=getxattr}"] == FILES
    assert after["razorfs_written_bytes_total{}"] - before["razorfs_written_bytes_total{}"] == 1000 * FILES
    assert after["razorfs_commit_duration_seconds_count{}"] > before["razorfs_commit_duration_seconds_count{}"]
    assert after["razorfs_flush_duration_seconds_count{}"] > before["razorfs_flush_duration_seconds_count{}"]
    assert after["razorfs_type_raw_bytes_total{type=text}"] == after["razorfs_compression_raw_bytes_total{verdict=zstd}"] > 0
    assert after["razorfs_inodes{}"] - before["razorfs_inodes{}"] == FILES
    assert after["razorfs_last_commit_age_seconds{}"] < 60
    assert after["razorfs_memory_limit_bytes{component=records}"] == 256 * 1024 * 1024
    assert after["process_resident_memory_bytes{}"] > 1_000_000
    assert after["razorfs_corrupt_requests_total{}"] == after["razorfs_has_failed{}"] == 0
    every_count = sum(value for name, value in after.items() if name.startswith("razorfs_request_duration_seconds_count"))
    assert every_count <= mounted.greeting.requests


@pytest.mark.mount
def test_what_the_last_razorfsck_found_and_left_is_told(unmounted: Mounted, capsys: pytest.CaptureFixture[str]) -> None:
    with open_for_writing(unmounted.image) as volume:
        for name in (b"one", b"two"):
            namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)
    with open_image(unmounted.image, writable=True) as device:
        edit_inode(device, find_inode(device, "/one"), link_count=9)
        edit_inode(device, find_inode(device, "/two"), mode=0o644)
    words = ["--json", "-p", "-f", str(unmounted.image)]
    assert cli.invoke(fsck.app, "razorfsck", cli.FSCK_CODES, words) == 5
    findings = json.loads(capsys.readouterr().out)["findings"]
    found = Counter(finding["severity"] for finding in findings)
    left = sum(not finding["repaired"] for finding in findings)
    assert (found["error"], left) == (2, 1)  # a mode without a type is for --repair to mend
    told = read(scrape(unmounted.mount("metrics=127.0.0.1:0")))
    assert told["razorfs_fsck_findings{severity=error}"] == found["error"]
    assert told["razorfs_fsck_findings{severity=warning}"] == found["warning"]
    assert told["razorfs_fsck_problems_left{}"] == left
    assert 0 <= time.time() - told["razorfs_last_fsck_timestamp_seconds{}"] < 600
    done = run([sys.executable, "-m", "razortools.health"], unmounted.path)
    assert f"WARNING  Integrity: the last razorfsck has left {plural(left, 'problem')}" in done.stdout


@pytest.mark.mount
def test_the_control_socket_tells_the_same_and_a_second_page_comes_from_it(unmounted: Mounted) -> None:
    mounted = unmounted.mount("metrics=[::1]:0")
    work(mounted.path)
    mounted.remount("metrics=[::1]:0")
    for number in range(FILES):
        assert (mounted.path / f"file {number}").read_bytes() == b"x" * 1000
    figures = figures_of(mounted)
    told, scraped = read(page([figures])), read(scrape(mounted))
    moving = ("age", "mounted_seconds", "getattr", "process_", "duration", "hits", "wait")
    assert {name: value for name, value in told.items() if not any(word in name for word in moving)} == {
        name: value for name, value in scraped.items() if not any(word in name for word in moving)
    }
    assert figures.read_bytes == 1000 * FILES
    assert figures.volume.record_misses + figures.volume.record_hits >= FILES
    assert figures.recovery_s > 0
    assert MountFigures.from_document(figures.document()) == figures


@pytest.mark.mount
def test_a_port_that_is_taken_is_told_and_nothing_is_mounted(unmounted: Mounted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(MOUNT, unmounted.image, unmounted.path, "-o", f"metrics=127.0.0.1:{port},log=stderr")
    assert done.returncode == 32
    assert f"option metrics: 127.0.0.1:{port}: cannot be listened at: Address already in use; choose another port" in done.stderr
    assert "Traceback" not in done.stderr
    assert mountpoints.mount_at(str(unmounted.path)) is None
    unmounted.mount()


def test_the_address_is_free_as_soon_as_it_is_closed() -> None:
    first = Scrape(Address("127.0.0.1", 0))
    first.close()
    second = Scrape(first.address)
    with pytest.raises(MountRefused, match="choose another port"):
        Scrape(second.address)
    second.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9464", Address("127.0.0.1", 9464)), ("[::1]:1", Address("::1", 1)), ("localhost:0", Address("localhost", 0))],
)
def test_an_address_is_read_and_shown_alike(text: str, address: Address) -> None:
    assert parse_options([f"metrics={text}"]).metrics == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["9464", ":9464", "::1:9464", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "[::1]", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="option metrics"):
        parse_options([f"metrics={text}"])


UNITS = ("seconds", "bytes")


def names() -> Iterator[str]:
    for declared in METRICS:
        yield declared.name


def test_names_are_as_prometheus_wants_them() -> None:
    assert len(set(names())) == len(METRICS)
    for declared in METRICS:
        assert re.fullmatch(r"razorfs_[a-z]+(_[a-z]+)*", declared.name), declared.name
        assert not declared.name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_kb", "_percent")), declared.name
        assert declared.meaning.endswith(".") and len(declared.meaning) > 10, declared.name
        if declared.kind is CounterMetricFamily:
            assert declared.series == (f"{declared.name}_total",)
        units = [word for word in UNITS if word in declared.name.split("_")]
        assert len(units) <= 1 and all(declared.name.endswith(unit) for unit in units), declared.name


def test_buckets_rise_and_reach_from_a_cached_answer_to_a_hanging_disk() -> None:
    assert list(BOUNDS_S) == sorted(BOUNDS_S)
    assert BOUNDS_S[0] < 10e-6
    assert BOUNDS_S[-1] > 10
