"""Connecting to the kernel: what it and libfuse are told of a mount, and by which way the mount is made."""

import os

from razortools.engine.attributes import AtimePolicy
from razortools.service.kernel_mount import Connection, root_connection
from razortools.service.opening import Place
from razortools.service.options import MountOptions
from razortools.service.user_mount import user_connection


def fuse_options(image: str, options: MountOptions) -> set[str]:
    """Return what libfuse and the kernel are to be told."""
    is_root = os.geteuid() == 0
    chosen = {"default_permissions", f"fsname={_escaped(options.source_name or image)}", f"subtype={_escaped(options.subtype)}"}
    if options.is_for_all(is_root=is_root):
        chosen.add("allow_other")
    chosen.add("ro" if options.read_only else "rw")
    if options.atime is AtimePolicy.NEVER:
        chosen.add("noatime")  # only so that the mount table shows it
    if is_root:
        chosen |= {"suid", "dev"}  # libfuse leaves them out even when root mounts; mount(8) does not
    for flag in options.kernel_flags:
        chosen -= {flag.removeprefix("no"), f"no{flag}"}
        chosen.add(flag)
    return chosen - {"exec", "async"}


def connect(place: Place, options: MountOptions, words: set[str]) -> Connection:
    """Mount: root by the kernel itself, others through fusermount3. Raises MountRefused, NoPermission."""
    unnamed = {word for word in words if not word.startswith(("fsname=", "subtype="))}
    source, subtype = options.source_name or place.image, options.subtype
    if os.geteuid() == 0:
        if options.atime is AtimePolicy.ALWAYS:
            unnamed.add("strictatime")  # libfuse and fusermount3 do not know it; it is there for the mount table
        return root_connection(place.mount_point, source, subtype, unnamed)
    return user_connection(place.mount_point, unnamed | {f"fsname={source}", f"subtype={subtype}"})


def _escaped(text: str) -> str:
    """Return *text* for libfuse's option parser, which knows ASCII only and takes commas and backslashes for its own."""
    ascii_only = text.encode("ascii", "backslashreplace").decode("ascii")
    return ascii_only.replace("\\", "\\\\").replace(",", "\\,")
