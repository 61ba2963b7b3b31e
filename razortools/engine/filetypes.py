"""Which type of file this is, by its first bytes: for the suspicion that it is compressed already, and for the statistics.

A guess from a few bytes: good enough to count by, and never a reason to store anything otherwise without a look at the data.
"""

# Formats that are compressed already, by their first bytes. What stands at an offset is in the second table.
COMPRESSED_STARTS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"PK\x03\x04": "zip",  # jar, docx, odt, whl
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x04\x22\x4d\x18": "lz4",  # its frame
    b"LZIP": "lzip",
    b"OggS": "ogg",
    b"fLaC": "flac",
    b"ID3": "mp3",
    b"\x1a\x45\xdf\xa3": "matroska",  # WebM
    b"wOF2": "woff2",
    b"\x00\x00\x00\x0cJXL ": "jpegxl",
    b"\xff\x0a": "jpegxl",
    b"hsqs": "squashfs",
    b"MSCF": "cabinet",
}
COMPRESSED_INSIDE = {(4, b"ftyp"): "mp4", (8, b"WEBP"): "webp", (8, b"AVI "): "avi"}  # MOV, HEIF, AVIF; and what RIFF carries
OTHER_STARTS = {
    b"\x7fELF": "elf",
    b"%PDF-": "pdf",
    b"SQLite format 3\0": "sqlite",
    b"RIFF": "riff",  # WAV
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"\xca\xfe\xba\xbe": "java",
    b"!<arch>\n": "ar",  # deb, static libraries
}
TEXT, BINARY, UNKNOWN = "text", "binary", "unknown"  # unknown: its first bytes have not been seen
TYPES = frozenset((*COMPRESSED_STARTS.values(), *COMPRESSED_INSIDE.values(), *OTHER_STARTS.values(), TEXT, BINARY, UNKNOWN))
LOOK_BYTES = 256  # for text

_STARTS = {**COMPRESSED_STARTS, **OTHER_STARTS}
_ALL_STARTS = tuple(_STARTS)
_COMPRESSED_STARTS = tuple(COMPRESSED_STARTS)
_INSIDE_4 = tuple(magic for at, magic in COMPRESSED_INSIDE if at == 4)
_INSIDE_8 = frozenset(magic for at, magic in COMPRESSED_INSIDE if at == 8)


def is_compressed_format(start: bytes) -> bool:
    """Tell whether a file that starts like this is compressed already."""
    return start.startswith(_COMPRESSED_STARTS) or any(start.startswith(magic, at) for at, magic in COMPRESSED_INSIDE)


def type_of(start: bytes) -> str:
    """Return the type of a file that starts like this, one of TYPES but UNKNOWN."""
    look = bytes(start[:LOOK_BYTES])
    if look[4:12].startswith(_INSIDE_4) or look[8:12] in _INSIDE_8:
        return next(name for (at, magic), name in COMPRESSED_INSIDE.items() if look.startswith(magic, at))
    if look.startswith(_ALL_STARTS):
        return next(name for magic, name in _STARTS.items() if look.startswith(magic))
    return TEXT if 0 not in look and (look.isascii() or _is_utf8(look)) else BINARY


def _is_utf8(look: bytes) -> bool:
    """Tell whether *look* is UTF-8, but for a character that its end may have cut."""
    return any(_decodes(look[: len(look) - cut]) for cut in range(4))


def _decodes(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
