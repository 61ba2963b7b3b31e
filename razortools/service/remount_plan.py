"""What of a mount can change while it is served: the options of the daemon, and the flags of the kernel. Pure.

Invariants: what cannot change is refused by its name, and nothing has changed then; what is not named stays as it is.
"""

from collections.abc import Iterable
from dataclasses import replace

from razortools.engine.attributes import AtimePolicy
from razortools.engine.limits import Limits
from razortools.engine.store.mounts import Mount
from razortools.errors import UsageError
from razortools.service.options import MountOptions, name_of, named_options

CHANGEABLE = frozenset((
    "read_only", "atime", "commit_interval_s", "checkpoint_interval_s", "record_cache_bytes", "metadata_cache_bytes",
    "dirty_bytes", "log_level", "rest_s", "low_latency",
))  # fmt: skip
_ABOUT_MOUNTING = frozenset(("remount", "nonempty"))  # they say how, not what
_CHANGEABLE_FLAGS = frozenset(("suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async"))
_ATIME_WORDS = {AtimePolicy.NEVER: "noatime", AtimePolicy.RELATIVE: "relatime", AtimePolicy.ALWAYS: "strictatime"}


def limits_of(options: MountOptions) -> Limits:
    """Return the engine's limits as *options* want them."""
    return Limits(
        record_cache_bytes=options.record_cache_bytes,
        metadata_cache_bytes=options.metadata_cache_bytes,
        dirty_bytes=options.dirty_bytes,
        commit_interval_s=options.commit_interval_s,
        checkpoint_interval_s=options.checkpoint_interval_s,
    )


def options_after(current: MountOptions, texts: Iterable[str], *, sloppy: bool = False) -> MountOptions:
    """Return *current* with what *texts* name changed.

    Raises UsageError for an option that is unknown (unless *sloppy*) or cannot change. One that keeps its value is welcome:
    mount(8) hands over everything that fstab and the mount table say.
    """
    named, flags = named_options(texts, sloppy=sloppy)
    for key, value in named.items():
        if key not in CHANGEABLE | _ABOUT_MOUNTING and value != getattr(current, key):
            raise UsageError(f"option {name_of(key)}: cannot change while it is mounted; unmount it and mount it again")
    for flag in flags:
        if flag not in _CHANGEABLE_FLAGS and flag not in current.kernel_flags:
            raise UsageError(f"option {flag}: cannot change while it is mounted; unmount it and mount it again")
    return replace(current, **{key: value for key, value in named.items() if key in CHANGEABLE})  # type: ignore[arg-type]


def kernel_words(mount: Mount) -> set[str]:
    """Return the flags that *mount* has in the kernel, one word for each choice."""
    words = {"ro" if mount.is_read_only else "rw"}
    words |= mount.options & {"nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"}
    words |= mount.shared_options & {"sync", "dirsync"}
    return words | ((mount.options & {"noatime", "relatime"}) or {"strictatime"})


def kernel_words_after(mount: Mount, texts: Iterable[str]) -> set[str]:
    """Return the flags that *mount* is to have in the kernel once what *texts* name is changed."""
    named, flags = named_options(texts, sloppy=True)
    words = kernel_words(mount)
    if "read_only" in named:
        words = words - {"ro", "rw"} | {"ro" if named["read_only"] else "rw"}
    atime = named.get("atime")
    if isinstance(atime, AtimePolicy):
        words = words - set(_ATIME_WORDS.values()) | {_ATIME_WORDS[atime]}
    for flag, opposite in (("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("sync", "async")):
        if flag in flags:
            words.add(flag)
        elif opposite in flags:
            words.discard(flag)
    return words
