"""mount.razorfs: the command, also as the helper that mount(8) calls. What takes a mount away again is in umount.py."""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import (
    MOUNT_CODES,
    DebugFlag,
    DirArg,
    ImageArg,
    MountVerboseFlag,
    NamespaceOption,
    NoMtabFlag,
    TypeOption,
    VersionFlag,
)
from razortools.engine.store.mounts import Mount
from razortools.errors import RazorError, UsageError, sentence
from razortools.service import awaiting, daemon, kernel_mount, mount_namespace, mount_users, mountpoints
from razortools.service.control import Waiter
from razortools.service.mountpoints import MountRefused, NoPermission
from razortools.service.options import MountOptions, parse_options
from razortools.service.remount_plan import kernel_words, kernel_words_after

if TYPE_CHECKING:
    from razortools.service.opening import Place

FUSE_DEVICE = "/dev/fuse"
DESCRIPTORS_MIN = 64  # the image, the log, a listener and who asks, and what comes and goes
SYSTEM_ERROR = 2  # mount(8): the machine lacks something
MOUNTED_PATIENCE_S = 5.0  # to hear of which image; that it is a mount of ours is known without

app = cli.new_app()


class FuseMissing(RazorError):
    """This machine cannot mount through FUSE: install or load what is missing."""


@app.command(help="Mount the RAZORFS filesystem in IMAGE at DIR.")
def mount(
    image: ImageArg,
    mount_point: DirArg,
    options: Annotated[
        list[str] | None, typer.Option("-o", "--options", metavar="OPTIONS", help="Mount options, separated by commas.")
    ] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Serve in this process instead of a daemon.")] = False,
    sloppy: Annotated[bool, typer.Option("-s", "--sloppy", help="Ignore unknown mount options.")] = False,
    no_mtab: NoMtabFlag = False,
    verbose: MountVerboseFlag = False,
    fake: Annotated[bool, typer.Option("-f", "--fake", help="Check everything, mount nothing.")] = False,
    namespace: NamespaceOption = None,
    types: TypeOption = None,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Check what can be checked, then serve; return the exit code as mount has it."""
    texts = options or []
    chosen = parse_options(texts, sloppy=sloppy)
    source = os.path.realpath(image)
    descriptor = mount_namespace.opened(namespace)
    if chosen.remount:
        mount_namespace.enter(descriptor)
        return 0 if fake else _remount(image, mountpoints.canonical(mount_point), texts, sloppy=sloppy, verbose=verbose)
    _check_image(source, image, writable=not chosen.read_only)
    target = mountpoints.canonical(mount_point)
    for name, place in (("log", chosen.log), ("audit", chosen.audit)):
        if place is not None and Path(target) in Path(place).parents:
            raise UsageError(f"option {name}: {place}: lies in the mount, which would wait for itself; choose another place")

    def prepare() -> None:
        mount_namespace.enter(descriptor)
        if not chosen.nonempty:
            _check_not_mounted(target)
        mountpoints.prepare(target, nonempty=chosen.nonempty)

    try:
        _check_fuse()
    except FuseMissing as missing:
        render.error(f"mount.razorfs: {missing}")
        return SYSTEM_ERROR
    if descriptor < 0:  # in another namespace only after the image, which is in this one, has been opened
        prepare()
    if fake:
        return 0
    _judge_descriptors()
    from razortools.service.opening import Place  # late: trio and pyfuse3 are not needed to refuse

    return _serve(Place(source, target), chosen, prepare, foreground=foreground, verbose=verbose)


def _judge_descriptors() -> None:
    """Make sure that as many files may be open at once as serving takes. Raises MountRefused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < DESCRIPTORS_MIN:
        raise MountRefused(f"only {hard} files may be open here at once, and a mount takes {DESCRIPTORS_MIN}; see ulimit -n")
    if 0 <= soft < DESCRIPTORS_MIN:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MIN, hard))


def _serve(place: "Place", options: MountOptions, prepare: Callable[[], None], *, foreground: bool, verbose: bool) -> int:
    """Serve in this process or in a daemon; return the exit code."""
    from razortools.service import logs, server

    def body(ready: Callable[[], None]) -> daemon.Outcome:
        try:
            logs.start(options, foreground=foreground)
            server.serve(place, options, ready, before_mounting=prepare)
        except KeyboardInterrupt:
            return daemon.Outcome(MOUNT_CODES.interrupted, "interrupted")
        except Exception as failure:
            if not foreground:  # there it goes to stderr anyway
                logs.log.error("%s", failure, exc_info=not isinstance(failure, RazorError | OSError))
            return daemon.Outcome(cli.exit_code_of(failure, MOUNT_CODES), sentence(failure))
        return daemon.Outcome(0)

    outcome = body(lambda: None) if foreground else daemon.start(body)
    if outcome.exit_code:
        render.error(f"mount.razorfs: {outcome.sentence}")
    elif verbose and not foreground:
        render.message(f"mount.razorfs: {place.image} mounted at {place.mount_point}")
    return outcome.exit_code


def _remount(image: str, target: str, texts: list[str], *, sloppy: bool, verbose: bool) -> int:
    """Change the options of a mount; return the exit code. The daemon's half of it, and the order: service/remount.py."""
    mounted = mountpoints.mount_at(target)
    if mounted is None:
        raise MountRefused(f"{target}: is not mounted, so there is nothing to remount")
    with closing(_waiter(mounted, target)) as waiter:
        if not _names(image, mounted, waiter.greeting.image):
            raise MountRefused(f"{target}: is a mount of {waiter.greeting.image}, not of {image}")
        _ask(waiter, target, {"options": texts, "sloppy": sloppy})
        words = kernel_words_after(mounted, texts)
        try:
            if words != kernel_words(mounted):
                kernel_mount.remount(target, words)
        except PermissionError:
            raise NoPermission(f"{target}: only root can change the kernel's flags of a mount") from None
        except OSError as failed:
            if failed.errno != errno.EBUSY:
                raise MountRefused(f"{target}: the host refuses the remount: {failed.strerror}") from None
            sentence = f"mount.razorfs: {target}: cannot become read-only: files are open for writing, or deleted"
            found = mount_users.users_of(mounted)
            render.error(sentence + mount_users.by_whom(found), mount_users.lines(found))
            return MOUNT_CODES.failed
        _ask(waiter, target, {"done": True})
    if verbose:
        render.message(f"mount.razorfs: {target} remounted")
    return 0


def _waiter(mounted: Mount, target: str) -> Waiter:
    """Return a connection to the daemon that serves a mount. Raises MountRefused if there is none."""
    if not mounted.is_fuse:
        raise MountRefused(f"{target}: is a mount of {mounted.filesystem}, not of razorfs")
    try:
        return Waiter(mounted.device, awaiting.GREETING_PATIENCE_S)
    except TimeoutError:
        raise awaiting.silence(target) from None
    except OSError:
        if mountpoints.is_dead(target):
            raise MountRefused(f"{target}: its daemon has died; mount it anew, without remount") from None
        raise MountRefused(f"{target}: no daemon of razorfs serves it") from None


def _names(source: str, mounted: Mount, image: str) -> bool:
    """Whether *source* is what a mount of *image* may be called: mount(8) takes it from fstab or from the mount table."""
    return source in (image, os.fsdecode(mounted.source)) or os.path.realpath(source) == image


def _ask(waiter: Waiter, target: str, request: dict[str, object]) -> None:
    """Ask a daemon for something. Raises MountRefused with what it says against it."""
    refusal = waiter.ask(request)
    if refusal is None:
        raise MountRefused(f"{target}: its daemon has ended meanwhile")
    if refusal:
        raise (UsageError if refusal.startswith("option ") else MountRefused)(refusal)


def _check_image(source: str, shown: str, *, writable: bool) -> None:
    """Raise NoPermission for an image that the caller may not use: a case with an exit code of its own."""
    try:
        os.stat(source)
    except PermissionError:
        raise NoPermission(f"{shown}: no permission to look for it; run as its owner or as root") from None
    except OSError:
        return  # who opens it says it best
    if not os.access(source, os.R_OK | (os.W_OK if writable else 0), effective_ids=True):
        if writable and os.access(source, os.R_OK, effective_ids=True):
            if os.statvfs(source).f_flag & os.ST_RDONLY:
                return  # it is the filesystem, and nobody's permission would help: who opens it says so
            raise NoPermission(f"{shown}: no permission to write it; run as its owner or as root, or mount with -o ro")
        raise NoPermission(f"{shown}: no permission to read it; run as its owner or as root")


def _check_not_mounted(target: str) -> None:
    """Raise MountRefused if a RAZORFS is mounted at *target* and served; it is not asked, for its daemon may be stopped."""
    mounted = mountpoints.mount_at(target)
    if mounted is None or not mounted.is_fuse:
        return
    try:
        waiter = Waiter(mounted.device, MOUNTED_PATIENCE_S)
    except TimeoutError:
        image = os.fsdecode(mounted.source)
    except OSError:
        return  # not ours, or dead
    else:
        waiter.close()
        image = waiter.greeting.image
    raise MountRefused(f"{target}: {image} is already mounted there; unmount it first, or mount with -o nonempty to hide it")


def _check_fuse() -> None:
    """Raise FuseMissing or NoPermission if this machine, or this user, cannot mount."""
    if not os.path.exists(FUSE_DEVICE):
        raise FuseMissing(f"FUSE is not available: {FUSE_DEVICE} is missing; load it with: modprobe fuse")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise FuseMissing("FUSE is not available to users: fusermount3 is missing; install the package fuse3, or mount as root")
    if os.geteuid() == 0 and not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):  # for users fusermount3 opens it
        raise NoPermission(f"{FUSE_DEVICE}: no permission to use FUSE, although root; is this a container without it?")
    try:
        import pyfuse3  # noqa: F401
    except ImportError as failed:
        raise FuseMissing(f"FUSE is not available: pyfuse3 cannot be loaded ({failed}); install libfuse3 and pyfuse3") from None


def main() -> NoReturn:
    """Run mount.razorfs."""
    cli.run(app, "mount.razorfs", MOUNT_CODES)


if __name__ == "__main__":
    main()
