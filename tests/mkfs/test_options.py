"""Each option of mkfs.razorfs does what the manual says, or is refused with a sentence."""

import stat
import uuid
from pathlib import Path

import pytest

from razortools.engine.create import OPTIONAL_FEATURES, RECORD_BYTES
from razortools.engine.store.device import open_image
from razortools.engine.store.superblocks import find_copies, newest
from razortools.engine.volume import open_volume
from razortools.format.compression import Algorithm
from razortools.format.geometry import geometry_of
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.superblock import State, Superblock
from razortools.units import KIB, MIB, parse_size
from tests.mkfs.conftest import Mkfs


def superblock(image: Path) -> Superblock:
    with open_image(image, writable=False) as device:
        return open_volume(device, read_only=True).store.superblock


def root(image: Path) -> Inode:
    with open_image(image, writable=False) as device:
        return open_volume(device, read_only=True).inodes.get(ROOT_INODE)


def test_without_options_everything_is_as_usual(run_mkfs: Mkfs, image: Path) -> None:
    run = run_mkfs(image, "64M")
    assert (run.code, run.err) == (0, "")
    made = superblock(image)
    assert image.stat().st_size == 64 * MIB
    assert (made.block_bytes, made.block_count, made.record_bytes) == (4096, 16384, RECORD_BYTES)
    assert (made.metadata_copies, made.compression, made.state) == (2, Algorithm.AUTO, State.CLEAN)
    assert (made.inode_count, made.directory_count) == (1, 1)
    assert stat.S_IMODE(root(image).mode) == 0o755


def test_all_copies_of_the_superblock_are_valid(run_mkfs: Mkfs, image: Path) -> None:
    assert run_mkfs(image, "64M").code == 0
    with open_image(image, writable=False) as device:
        copies = find_copies(device)
    assert [copy.superblock is not None for copy in copies].count(True) >= 1 + 4
    places = [copy.offset // 4096 for copy in copies[2:]]
    made = superblock(image)
    assert places == list(geometry_of(made).backups) == [1024, 4096, 8192, 16383]


@pytest.mark.parametrize("label", ["", "data", "Größe 日本", "x" * 64])
def test_the_label_is_kept(run_mkfs: Mkfs, image: Path, label: str) -> None:
    assert run_mkfs(image, "1M", "-L", label).code == 0
    assert superblock(image).label.rstrip(b"\0").decode() == label


def test_a_given_uuid_is_kept(run_mkfs: Mkfs, image: Path) -> None:
    wanted = uuid.uuid4()
    run = run_mkfs(image, "1M", "--uuid", str(wanted).upper())
    assert uuid.UUID(bytes=superblock(image).uuid) == wanted
    assert str(wanted) in run.out


@pytest.mark.parametrize(("choice", "version"), [("random", 4), ("time", 1), ("content", 8), (None, 4)])
def test_a_uuid_says_how_it_was_chosen(run_mkfs: Mkfs, image: Path, choice: str | None, version: int) -> None:
    words = [] if choice is None else ["-U", choice]
    first = uuid.UUID(run_mkfs(image, "1M", *words, "--json").document["uuid"])
    second = uuid.UUID(run_mkfs(image, "1M", *words, "--json", "-f").document["uuid"])
    assert first.bytes[6] >> 4 == second.bytes[6] >> 4 == version
    assert (first == second) == (choice == "content")


@pytest.mark.parametrize("block", ["4096", "8K", "16K", "32K", "64K"])
def test_every_block_size_works(run_mkfs: Mkfs, image: Path, block: str) -> None:
    assert run_mkfs(image, "20M", "-b", block).code == 0
    made = superblock(image)
    assert made.block_bytes == int(block.rstrip("K")) * (KIB if block.endswith("K") else 1)
    assert made.block_count == 20 * MIB // made.block_bytes


@pytest.mark.parametrize("record", ["4K", "128K", "1M"])
def test_the_record_size_is_kept(run_mkfs: Mkfs, image: Path, record: str) -> None:
    assert run_mkfs(image, "20M", "--record-size", record).code == 0
    assert 1 << root(image).record_log2 == superblock(image).record_bytes == parse_size(record)


def test_a_small_image_refuses_records_whose_items_would_not_fit_its_nodes(run_mkfs: Mkfs, image: Path) -> None:
    refused = run_mkfs(image, "4M", "--record-size", "1M")
    assert refused.code == 2 and "choose 256 KiB at the most" in refused.err
    assert not image.exists()
    assert run_mkfs(image, "4M", "--record-size", "256K").code == 0


@pytest.mark.parametrize(("wanted", "blocks"), [("64K", 16), ("2M", 512), ("auto", 256)])
def test_the_journal_has_the_size_wanted(run_mkfs: Mkfs, image: Path, wanted: str, blocks: int) -> None:
    assert run_mkfs(image, "64M", "--journal-size", wanted).code == 0
    assert superblock(image).journal_blocks == blocks


@pytest.mark.parametrize("copies", [1, 2])
def test_metadata_is_kept_once_or_twice(run_mkfs: Mkfs, image: Path, copies: int) -> None:
    assert run_mkfs(image, "64M", "--metadata-copies", copies).code == 0
    made = superblock(image)
    assert made.metadata_copies == copies
    assert bool(made.root.mirror) == (copies == 2)


@pytest.mark.parametrize(
    ("policy", "algorithm", "level"),
    [("none", 0, 0), ("zstd", 1, 0), ("zstd:19", 1, 19), ("lz4", 2, 0), ("zlib:9", 3, 9), ("auto", 255, 0)],
)
def test_the_compression_is_that_of_new_files(run_mkfs: Mkfs, image: Path, policy: str, algorithm: int, level: int) -> None:
    assert run_mkfs(image, "1M", "-c", policy).code == 0
    made = superblock(image)
    assert (made.compression, made.compression_level) == (algorithm, level)
    assert (root(image).compression, root(image).compression_level) == (algorithm, level)


def test_the_root_belongs_to_whom_it_should(run_mkfs: Mkfs, image: Path) -> None:
    assert run_mkfs(image, "1M", "--root-owner", "1000:2000", "--root-mode", "1777").code == 0
    made = root(image)
    assert (made.uid, made.gid, stat.S_IMODE(made.mode)) == (1000, 2000, 0o1777)


def test_the_help_names_every_feature_that_may_be_left_out(run_mkfs: Mkfs, image: Path) -> None:
    shown = " ".join(run_mkfs("--help").out.split())
    assert f"without it ({', '.join(OPTIONAL_FEATURES)})." in shown


def test_all_features_can_be_named(run_mkfs: Mkfs, image: Path) -> None:
    run = run_mkfs(image, "1M", "-O", "zstd,lz4,zlib,string_table,patches,second_checksum,late_pages,admin_history", "--json")
    named = ["zstd", "lz4", "zlib", "string_table", "patches", "second_checksum", "late_pages", "admin_history"]
    assert run.document["features"] == named


def test_what_older_versions_do_not_know_can_be_left_out(run_mkfs: Mkfs, image: Path) -> None:
    run = run_mkfs(image, "1M", "-O", "^second_checksum,^late_pages,^admin_history", "--json")
    assert run.document["features"] == ["zstd", "lz4", "zlib", "string_table", "patches"]
    with open_image(image, writable=False) as device:
        assert (newest(device).incompat, newest(device).compat) == (31, 0)


@pytest.mark.parametrize(
    "words",
    [
        ["-U", "nonsense"],
        ["-b", "4095"],
        ["-b", "1M"],
        ["--record-size", "100K"],
        ["--record-size", "2M"],
        ["-b", "64K", "--record-size", "4K"],
        ["--journal-size", "1K"],
        ["--journal-size", "32M"],
        ["--metadata-copies", "3"],
        ["-c", "brotli"],
        ["-c", "zstd:99"],
        ["-c", "lz4:3"],
        ["-c", "zstd:" + "9" * 5000],
        ["-O", "encryption"],
        ["-O", "^zstd"],
        ["--root-owner", "root"],
        ["--root-owner", "9" * 5000 + ":0"],
        ["--root-owner", "1:4294967295"],
        ["--root-mode", "999"],
        ["--root-mode", "17777"],
        ["-L", "x" * 65],
        ["-L", "ä" * 33],
        ["-L", "two\nlines"],
        ["--no-such-option"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error_and_leaves_nothing(run_mkfs: Mkfs, image: Path, words: list[str]) -> None:
    run = run_mkfs(image, "64M", *words)
    assert run.code == 2
    assert run.out == ""
    assert run.err.startswith("mkfs.razorfs: ")
    assert run.err.count("\n") == 1
    assert "integer string conversion" not in run.err  # Python's advice about itself is none to an operator
    assert not image.exists()


@pytest.mark.parametrize("size", ["1023K", "0", "many", "-5", "1MB2", ""])
def test_an_impossible_size_is_a_usage_error(run_mkfs: Mkfs, image: Path, size: str) -> None:
    assert run_mkfs(image, size).code == 2
    assert not image.exists()


def test_a_missing_image_needs_a_size(run_mkfs: Mkfs, image: Path) -> None:
    run = run_mkfs(image)
    assert run.code == 2
    assert "give the size" in run.err


def test_quiet_says_nothing(run_mkfs: Mkfs, image: Path) -> None:
    run = run_mkfs(image, "1M", "-q")
    assert (run.code, run.out, run.err) == (0, "", "")


def test_json_is_one_document_with_everything(run_mkfs: Mkfs, image: Path) -> None:
    made = run_mkfs(image, "64M", "-L", "name", "--json").document
    assert made["image"] == str(image)
    assert made["size_bytes"] == 64 * MIB
    assert made["backup_superblocks"] == [1024, 4096, 8192, 16383]
    assert (made["label"], made["dry_run"], made["populated"]) == ("name", False, None)
    assert made["journal"] == {"start": 4, "blocks": 256, "bytes": MIB}


@pytest.mark.parametrize("json", [True, False])
def test_a_dry_run_tells_all_and_writes_nothing(run_mkfs: Mkfs, image: Path, json: bool) -> None:
    run = run_mkfs(image, "64M", "-n", *(["--json"] if json else []))
    assert run.code == 0
    for backup in ("1024", "4096", "8192", "16383"):
        assert backup in run.out
    assert list(image.parent.iterdir()) == []


def test_a_dry_run_does_not_touch_what_exists(run_mkfs: Mkfs, image: Path) -> None:
    image.write_bytes(b"\xaa" * (2 * MIB))
    before = image.stat()
    assert run_mkfs(image, "-n").code == 0
    assert run_mkfs(image, "4M", "-n").code == 0
    assert image.read_bytes() == b"\xaa" * (2 * MIB)
    assert image.stat().st_mtime_ns == before.st_mtime_ns


def test_version_and_help_are_there(run_mkfs: Mkfs) -> None:
    assert run_mkfs("--version").out.startswith("razortools ")
    text = run_mkfs("-h").out
    sizes = ["--block-size", "--record-size", "--journal-size", "--metadata-copies"]
    others = ["--label", "--uuid", "--compression", "--populate", "--features", "--root-owner", "--root-mode"]
    flags = ["-n, --dry-run", "-f, --force", "-q, --quiet", "-v, --verbose", "--json", "-V, --version", "-h, --help"]
    for option in sizes + others + flags:
        assert option in text


def test_a_dry_run_plans_what_the_real_run_makes(run_mkfs: Mkfs, image: Path, epoch: None) -> None:
    planned = run_mkfs(image, "8M", "-n", "--json").document
    assert planned | {"dry_run": False} == run_mkfs(image, "8M", "--json").document
