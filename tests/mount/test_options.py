"""Mount options and the mount table, without mounting anything."""

import os
from pathlib import Path

import pytest

from razortools.engine.attributes import AtimePolicy
from razortools.engine.store.mounts import mounts
from razortools.errors import UsageError
from razortools.format.compression import Algorithm, Policy
from razortools.service import mountpoints
from razortools.service.connecting import fuse_options
from razortools.service.options import MountOptions, parse_options
from razortools.units import GIB, MIB


def test_no_options_are_the_defaults() -> None:
    assert parse_options([]) == parse_options(["", "defaults,rw"]) == MountOptions()


def test_every_option_has_its_value() -> None:
    text = (
        "ro,norecovery,noatime,allow_other,commit=1.5,checkpoint=60,cache=1G,metadata_cache=64M,dirty=8M,"
        "readahead=0,writeback,compression=zstd:3,discard,nonempty,fsname=a\\,b,subtype=s,log=/l,loglevel=debug,record=/r,nosuid"
    )
    assert parse_options([text]) == MountOptions(
        read_only=True, recover=False, atime=AtimePolicy.NEVER, allow_other=True, commit_interval_s=1.5, checkpoint_interval_s=60,
        record_cache_bytes=GIB, metadata_cache_bytes=64 * MIB, dirty_bytes=8 * MIB, readahead_bytes=0, writeback=True,
        compression=Policy(Algorithm.ZSTD, 3),
        discard=True, nonempty=True, source_name="a,b", subtype="s", log="/l", log_level="debug", record="/r",
        kernel_flags=("nosuid",),
    )  # fmt: skip


def test_later_options_win() -> None:
    assert not parse_options(["ro,noatime", "rw,relatime"]).read_only
    assert parse_options(["rw", "ro"]).read_only


def test_what_fstab_says_to_others_is_passed_over() -> None:
    assert parse_options(["_netdev,nofail,user,x-systemd.automount,x-gvfs-show,comment=hello"]) == MountOptions()


@pytest.mark.parametrize(
    "text",
    ["bogus=1", "commit=0", "commit=x", "ro=1", "cache=12", "readahead=5", "loglevel=loud", "fsname=", "compression=rar"],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=text.partition("=")[0]):
        parse_options([text])


def test_only_unknown_options_pass_when_sloppy() -> None:
    assert parse_options(["bogus,bogus=1,ro"], sloppy=True) == MountOptions(read_only=True)
    with pytest.raises(UsageError):
        parse_options(["commit=x"], sloppy=True)


def test_norecovery_needs_ro() -> None:
    with pytest.raises(UsageError, match="only together with ro"):
        parse_options(["norecovery"])


def test_root_mounts_for_everybody_with_devices_as_mount_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert fuse_options("/i", MountOptions()) == {
        "default_permissions", "allow_other", "rw", "suid", "dev", "fsname=/i", "subtype=razorfs",
    }  # fmt: skip
    assert fuse_options("/i", parse_options(["ro,nodev,noexec,nosuid,noallow_other"])) == {
        "default_permissions", "ro", "nosuid", "nodev", "noexec", "fsname=/i", "subtype=razorfs",
    }  # fmt: skip


def test_users_mount_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert fuse_options("/i", MountOptions()) == {"default_permissions", "rw", "fsname=/i", "subtype=razorfs"}


def test_libfuse_gets_ascii_with_its_separators_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "fsname=/a\\,b\\\\c\\\\xfc" in fuse_options("/a,b\\c\u00fc", MountOptions())


def test_the_mount_table_is_understood(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        b"40 22 0:45 / /mnt/my\\040place rw,nosuid - fuse.razorfs /srv/my\\054image rw,user_id=0\n"
        b"41 40 0:46 / /mnt/my\\040place/\\303\\274 rw shared:3 master:1 - tmpfs  rw\n"
    )
    found = mounts(table)
    assert [(mount.mount_id, mount.parent_id) for mount in found] == [(22, 1), (40, 22), (41, 40)]
    assert [mount.device for mount in found] == [(8, 1), (0, 45), (0, 46)]
    assert [mount.path for mount in found] == [b"/", b"/mnt/my place", b"/mnt/my place/\xc3\xbc"]
    assert [mount.source for mount in found] == [b"/dev/sda1", b"/srv/my,image", b""]
    assert [mount.is_fuse for mount in found] == [False, True, False]


def test_a_mount_point_is_found_through_symlinks(tmp_path: Path) -> None:
    (tmp_path / "real" / "mnt").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "direct").symlink_to("real/mnt")
    expected = str(tmp_path / "real" / "mnt")
    for path in (expected, f"{expected}/", str(tmp_path / "link" / "mnt"), str(tmp_path / "direct"), f"{expected}/../mnt"):
        assert mountpoints.canonical(path) == expected
    assert mountpoints.canonical("/") == "/"
