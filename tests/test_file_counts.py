"""What was copied, counted by kind: in words, and in the documents of all that copy."""

from dataclasses import fields

from razortools.check.salvage_report import SalvageReport
from razortools.debug.copy_out import Copied
from razortools.file_counts import FileCounts

NAMES = ["files", "directories", "symlinks", "hard_links", "specials", "total_bytes"]


def test_the_words_tell_files_directories_and_bytes() -> None:
    assert FileCounts(1, 2, 3, 4, 5, 4096).amount == "1 file, 2 directories, 4 KiB"
    assert FileCounts().amount == "0 files, 0 directories, 0 B"


def test_links_and_special_files_are_the_others() -> None:
    assert FileCounts(1, 2, 10, 200, 3000, 4).others == 3210


def test_documents_tell_the_counts_first_and_by_these_names() -> None:
    assert [one.name for one in fields(FileCounts)] == NAMES
    assert [one.name for one in fields(Copied)] == [*NAMES, "not_kept"]
    assert list(SalvageReport().as_json())[:6] == NAMES


def test_a_salvage_of_the_root_directory_alone_is_nothing_if_more_is_missing() -> None:
    assert SalvageReport(directories=1, not_copied_count=1).is_nothing
    assert not SalvageReport(directories=1).is_nothing, "the image was empty"
    for name in ("files", "symlinks", "hard_links", "specials"):
        report = SalvageReport(directories=1, not_copied_count=1)
        setattr(report, name, 1)
        assert not report.is_nothing, name
    assert not SalvageReport(directories=2, not_copied_count=1).is_nothing
