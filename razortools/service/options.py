"""Mount options: the words after -o, as one value.

Accepts everything that mount(8) and fstab pass on their own account; what only the kernel acts on is handed to it untouched.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from razortools.engine.attributes import AtimePolicy
from razortools.errors import UsageError
from razortools.format.compression import Policy, parse_policy
from razortools.units import KIB, MIB, parse_size


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int  # 0: any that is free

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """What -o asked for."""

    read_only: bool = False
    recover: bool = True
    atime: AtimePolicy = AtimePolicy.RELATIVE
    allow_other: bool | None = None  # None: only when root mounts, as with any filesystem
    commit_interval_s: float = 5.0
    checkpoint_interval_s: float = 30.0
    rest_s: float = 300.0  # what was not stored for so long is stored anew, harder, when nothing else is to be done; 0: never
    record_cache_bytes: int = 256 * MIB
    metadata_cache_bytes: int = 128 * MIB
    dirty_bytes: int = 64 * MIB
    compression: Policy | None = None  # None: as mkfs.razorfs was told
    readahead_bytes: int = 4 * MIB  # four requests: one is read, one decompressed, one handed over while the program has the last
    low_latency: bool | None = None  # keep idle processors awake meanwhile; None: if there are so few that it costs little
    writeback: bool = False
    discard: bool = False
    nonempty: bool = False
    remount: bool = False
    source_name: str | None = None  # None: the image's path
    subtype: str = "razorfs"
    record: str | None = None  # absolute path
    log: str | None = None  # syslog, stderr or an absolute path; None: stderr in the foreground, otherwise syslog
    log_level: str = "info"
    kernel_flags: tuple[str, ...] = field(default=())  # nosuid, sync and the like
    metrics: Address | None = None
    log_format: str = "text"
    slow_s: float | None = None  # requests that take so long are logged
    audit: str | None = None  # absolute path

    def is_for_all(self, *, is_root: bool) -> bool:
        """Whether other users may use a mount that root, or somebody else, makes."""
        return is_root if self.allow_other is None else self.allow_other


# What fstab and mount(8) say to each other, or what is so anyway.
_IGNORED = frozenset((
    "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail", "mand", "nomand", "loud",
    "silent", "loop", "default_permissions", "diratime", "nodiratime", "norelatime", "nostrictatime", "lazytime", "nolazytime",
    "noiversion", "iversion", "comment",
))  # fmt: skip
_KERNEL_FLAGS = {  # with the flag that takes each back
    "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev", "exec": "noexec", "noexec": "exec",
    "sync": "async", "async": "sync", "dirsync": "", "nosymfollow": "symfollow", "symfollow": "nosymfollow",
}  # fmt: skip
# What the kernel's mount table says of every mount of ours; mount(8) reads it there and hands it back when it remounts.
_IGNORED_VALUES = frozenset(("comment", "user", "uhelper", "user_id", "group_id", "rootmode", "fd", "max_read", "blksize"))
_LOG_FORMATS = ("text", "json")
_LOG_LEVELS = ("debug", "info", "warning", "error")
_SWITCHES: dict[str, tuple[str, object]] = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "norecovery": ("recover", False),
    "noload": ("recover", False),
    "noatime": ("atime", AtimePolicy.NEVER),
    "relatime": ("atime", AtimePolicy.RELATIVE),
    "atime": ("atime", AtimePolicy.RELATIVE),
    "strictatime": ("atime", AtimePolicy.ALWAYS),
    "allow_other": ("allow_other", True),
    "noallow_other": ("allow_other", False),
    "lowlatency": ("low_latency", True),
    "nolowlatency": ("low_latency", False),
    "writeback": ("writeback", True),
    "nowriteback": ("writeback", False),
    "discard": ("discard", True),
    "nodiscard": ("discard", False),
    "nonempty": ("nonempty", True),
    "remount": ("remount", True),
}


def _seconds(text: str) -> float:
    """Return *text* as seconds. Raises ValueError."""
    value = float(text)
    if not 0 < value <= 86_400:
        raise ValueError(f"'{text}' is not a number of seconds between 0 and 86400")
    return value


def _seconds_or_off(text: str) -> float:
    """Return *text* as seconds, 0 for the word off. Raises ValueError."""
    return 0.0 if text == "off" else _seconds(text)


def _cache_size(text: str) -> int:
    """Return *text* as the size of a cache. Raises ValueError."""
    value = parse_size(text)
    if value < 1 * MIB:
        raise ValueError(f"'{text}' is too small; it takes at least 1M")
    return value


def _readahead(text: str) -> int:
    """Return *text* as a read-ahead size; 0 turns it off. Raises ValueError."""
    value = parse_size(text)
    if value % (4 * KIB) or value > 64 * MIB:
        raise ValueError(f"'{text}' is not a multiple of 4K up to 64M")
    return value


def _log_level(text: str) -> str:
    """Return *text* if it is a log level. Raises ValueError."""
    if text not in _LOG_LEVELS:
        raise ValueError(f"'{text}' is none of {', '.join(_LOG_LEVELS)}")
    return text


def _log_format(text: str) -> str:
    """Return *text* if it is a form of the log. Raises ValueError."""
    if text not in _LOG_FORMATS:
        raise ValueError(f"'{text}' is none of {', '.join(_LOG_FORMATS)}")
    return text


def _word(text: str) -> str:
    """Return *text* unless it is empty. Raises ValueError."""
    if not text:
        raise ValueError("it needs a value")
    return text


def _log_place(text: str) -> str:
    """Return *text* as a place for the log: a word, or an absolute path. Raises ValueError."""
    return text if text in ("syslog", "stderr") else _file(text)


def _file(text: str) -> str:
    """Return *text* as an absolute path: the daemon works in another directory. Raises ValueError."""
    return os.path.abspath(_word(text))


def _address(text: str) -> Address:
    """Return *text*, as in 127.0.0.1:9464 or [::1]:9464, as an address. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"'{text}': write an IPv6 address in brackets, as in [::1]:9464")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"'{text}' is not an address and a port, as in 127.0.0.1:9464")
    return Address(host, int(port))


_VALUES = {
    "commit": ("commit_interval_s", _seconds),
    "checkpoint": ("checkpoint_interval_s", _seconds),
    "recompress": ("rest_s", _seconds_or_off),
    "cache": ("record_cache_bytes", _cache_size),
    "metadata_cache": ("metadata_cache_bytes", _cache_size),
    "dirty": ("dirty_bytes", _cache_size),
    "compression": ("compression", parse_policy),
    "readahead": ("readahead_bytes", _readahead),
    "fsname": ("source_name", _word),
    "subtype": ("subtype", _word),
    "record": ("record", _file),
    "log": ("log", _log_place),
    "loglevel": ("log_level", _log_level),
    "metrics": ("metrics", _address),
    "logformat": ("log_format", _log_format),
    "slow": ("slow_s", _seconds),
    "audit": ("audit", _file),
}


def parse_options(texts: Iterable[str], *, sloppy: bool = False) -> MountOptions:
    r"""Return the options in *texts*, each a list separated by commas (``\,`` is a comma in a value); later ones win.

    Raises UsageError for an option that is unknown, unless *sloppy*, or that makes no sense.
    """
    fields, flags = named_options(texts, sloppy=sloppy)
    options = MountOptions(kernel_flags=flags, **fields)  # type: ignore[arg-type]
    if not options.recover and not options.read_only:
        raise UsageError("option norecovery: only together with ro, or changes would be made to a state that is not the last one")
    if options.record is not None and options.audit is not None:
        raise UsageError("option audit: not together with record, which is for tests")
    return options


def named_options(texts: Iterable[str], *, sloppy: bool = False) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return the fields of MountOptions that *texts* name, and the kernel's flags. Raises UsageError as parse_options() does."""
    fields: dict[str, object] = {}
    flags: list[str] = []
    for word in (word for text in texts for word in _split(text)):
        name, equals, value = word.partition("=")
        if name in _KERNEL_FLAGS and not equals:
            flags = [flag for flag in flags if flag not in (name, _KERNEL_FLAGS[name])] + [name]
        elif name in _SWITCHES and not equals:
            key, chosen = _SWITCHES[name]
            fields[key] = chosen
        elif name in _VALUES and equals:
            key, parse = _VALUES[name]
            try:
                fields[key] = parse(value)
            except ValueError as refused:
                raise UsageError(f"option {name}: {refused}") from None
        elif name in _IGNORED or (equals and name in _IGNORED_VALUES) or name.startswith(("x-", "X-")):
            continue
        elif not sloppy:
            raise UsageError(_why_unknown(name, equals))
    return fields, tuple(flags)


def name_of(field_name: str) -> str:
    """Return the option by which an operator knows a field of MountOptions."""
    names = [name for name, (key, _) in (*_VALUES.items(), *_SWITCHES.items()) if key == field_name]
    return names[0] if names else field_name


def _split(text: str) -> list[str]:
    """Return the options in *text*."""
    words = text.replace("\\,", "\0").split(",")
    return [word.replace("\0", ",") for word in words if word]


def _why_unknown(name: str, equals: str) -> str:
    """Return what to say about an option that fits nothing."""
    if name in _VALUES:
        return f"option {name}: it needs a value, as in {name}=..."
    if name in _SWITCHES or name in _KERNEL_FLAGS:
        return f"option {name}: it takes no value"
    return f"'{name}{equals}' is not a mount option"
