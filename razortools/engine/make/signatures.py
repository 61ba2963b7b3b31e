"""Signatures: what a file or device looks like that somebody wants to overwrite.

A table of magic bytes at their places, as wipefs(8) and file(1) know them. Pure: judges bytes that the caller read.
"""

from dataclasses import dataclass

from razortools.format.superblock import BLOCK_BYTES_CHOICES, MAGIC
from razortools.units import KIB

HEAD_BYTES = 136 * KIB  # reaches behind the last place in the table
TAIL_BYTES = 4 * KIB


@dataclass(frozen=True, slots=True)
class Signature:
    """Bytes at a place; a negative *offset* counts from the end."""

    what: str
    offset: int
    magic: bytes


def _rows(what: str, *places: tuple[int, bytes]) -> list[Signature]:
    return [Signature(what, offset, magic) for offset, magic in places]


_FILESYSTEMS = [
    *_rows("a RAZORFS filesystem", *((offset, MAGIC[:-1]) for offset in (0, *BLOCK_BYTES_CHOICES))),
    *_rows("an ext2, ext3 or ext4 filesystem", (0x438, b"\x53\xef")),
    *_rows("an XFS filesystem", (0, b"XFSB")),
    *_rows("a btrfs filesystem", (0x10040, b"_BHRfS_M")),
    *_rows("a bcachefs filesystem", (0x1018, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef"))),
    *_rows("a ZFS member", (0x20000, b"\x0c\xb1\xba\0\0\0\0\0"), (0x20000, b"\0\0\0\0\0\xba\xb1\x0c")),
    *_rows("an F2FS filesystem", (1024, b"\x10\x20\xf5\xf2")),
    *_rows("an EROFS filesystem", (1024, b"\xe2\xe1\xf5\xe0")),
    *_rows("a squashfs filesystem", (0, b"hsqs"), (0, b"sqsh")),
    *_rows("a cramfs filesystem", (0, b"\x45\x3d\xcd\x28"), (0, b"\x28\xcd\x3d\x45")),
    *_rows("a romfs filesystem", (0, b"-rom1fs-")),
    *_rows("a DwarFS filesystem", (0, b"DWARFS")),
    *_rows("a ReiserFS filesystem", (0x10034, b"ReIsErFs"), (0x10034, b"ReIsEr2Fs"), (0x10034, b"ReIsEr3Fs")),
    *_rows("a JFS filesystem", (0x8000, b"JFS1")),
    *_rows("a NILFS2 filesystem", (0x406, b"\x34\x34")),
    *_rows("an OCFS2 filesystem", (0x2000, b"OCFSV2")),
    *_rows("a GFS2 filesystem", (0x10000, b"\x01\x16\x19\x70")),
    *_rows("an HFS filesystem", (1024, b"H+\0\x04"), (1024, b"HX\0\x05"), (1024, b"BD\0\x0a")),
    *_rows("an APFS container", (32, b"NXSB")),
    *_rows("an NTFS filesystem", (3, b"NTFS    ")),
    *_rows("an exFAT filesystem", (3, b"EXFAT   ")),
    *_rows("a FAT filesystem", (54, b"FAT12   "), (54, b"FAT16   "), (54, b"FAT     "), (82, b"FAT32   ")),
    *_rows("an ISO 9660 filesystem", (0x8001, b"CD001")),
    *_rows("a UDF filesystem", (0x8001, b"BEA01"), (0x8001, b"NSR02"), (0x8001, b"NSR03")),
    *_rows("a UFS filesystem", (8192 + 1372, b"\x54\x19\x01\0"), (65536 + 1372, b"\x19\x01\x54\x19")),
    *_rows("a MINIX filesystem", (1040, b"\x8f\x13"), (1040, b"\x68\x24"), (1048, b"\x5a\x4d")),
]
_VOLUMES = [
    *_rows("swap space", *((page * KIB - 10, magic) for page in (4, 8, 16, 64) for magic in (b"SWAPSPACE2", b"SWAP-SPACE"))),
    *_rows("a LUKS volume", (0, b"LUKS\xba\xbe"), (0x4000, b"SKUL\xba\xbe")),
    *_rows("an LVM physical volume", *((sector * 512, b"LABELONE") for sector in range(4))),
    *_rows("a RAID member", (0, b"\xfc\x4e\x2b\xa9"), (4096, b"\xfc\x4e\x2b\xa9")),
    *_rows("a bcache device", (0x1018, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"))),
    *_rows("a BitLocker volume", (3, b"-FVE-FS-")),
    *_rows("a GPT partition table", (512, b"EFI PART"), (4096, b"EFI PART"), (-512, b"EFI PART"), (-4096, b"EFI PART")),
    *_rows("an APM partition table", (512, b"PM\0\0")),
    *_rows("a partition table or boot sector", (510, b"\x55\xaa")),
    *_rows("a qcow2 disk image", (0, b"QFI\xfb")),
    *_rows("a VMDK disk image", (0, b"KDMV")),
    *_rows("a VDI disk image", (0x40, b"\x7f\x10\xda\xbe")),
    *_rows("a VHD disk image", (0, b"conectix"), (-512, b"conectix"), (0, b"vhdxfile")),
]
_FILES = [
    *_rows("a zip archive", (0, b"PK\x03\x04"), (0, b"PK\x05\x06"), (0, b"PK\x07\x08"), (-22, b"PK\x05\x06")),
    *_rows("a tar archive", (257, b"ustar")),
    *_rows("gzip compressed data", (0, b"\x1f\x8b\x08")),
    *_rows("bzip2 compressed data", (0, b"BZh")),
    *_rows("xz compressed data", (0, b"\xfd7zXZ\0")),
    *_rows("lzma compressed data", (0, b"\x5d\0\0\x80"), (0, b"\x5d\0\0\0\x04")),
    *_rows("zstd compressed data", (0, b"\x28\xb5\x2f\xfd")),
    *_rows("lz4 compressed data", (0, b"\x04\x22\x4d\x18")),
    *_rows("a 7-Zip archive", (0, b"7z\xbc\xaf\x27\x1c")),
    *_rows("a RAR archive", (0, b"Rar!\x1a\x07")),
    *_rows("a cpio archive", (0, b"070701"), (0, b"070702"), (0, b"070707")),
    *_rows("an ar archive or Debian package", (0, b"!<arch>\n")),
    *_rows("an RPM package", (0, b"\xed\xab\xee\xdb")),
    *_rows("a cabinet archive", (0, b"MSCF")),
    *_rows("an SQLite database", (0, b"SQLite format 3\0")),
    *_rows("a git pack", (0, b"PACK\0\0\0")),
    *_rows("a program", (0, b"\x7fELF"), (0, b"#!/")),
    *_rows("a PDF document", (0, b"%PDF-")),
    *_rows("a picture", (0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"GIF8")),
    *_rows("a video or sound file", (4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (0, b"OggS"), (0, b"RIFF"), (0, b"fLaC")),
]
TABLE = [*_FILESYSTEMS, *_VOLUMES, *_FILES]


def find_signature(head: bytes, tail: bytes) -> str | None:
    """Return what something looks like that starts with *head* and ends with *tail*, or None if it looks like nothing.

    *head* should be HEAD_BYTES long and *tail* TAIL_BYTES, or the whole if that is shorter.
    """
    for row in TABLE:
        if row.offset >= 0:
            found = head[row.offset : row.offset + len(row.magic)]
        else:
            start = len(tail) + row.offset
            found = tail[start : start + len(row.magic)] if start >= 0 else b""
        if found == row.magic:
            return row.what
    return "a tar archive" if _is_old_tar(head[:512]) else None


def _is_old_tar(header: bytes) -> bool:
    """Return whether *header* starts a tar archive from before POSIX, which has a checksum and no magic."""
    text = header[148:156].strip(b" \0")
    if len(header) < 512 or not header[0] or not text or not all(48 <= digit <= 55 for digit in text):
        return False
    return int(text, 8) == sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
