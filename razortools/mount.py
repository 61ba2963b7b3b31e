"""mount.razorfs and umount.razorfs: the commands, also as the helpers that mount(8) and umount(8) call."""

import ctypes
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
from razortools.cli.app import MOUNT_CODES, DebugFlag, ImageArg, VersionFlag
from razortools.engine.store.mounts import Mount
from razortools.errors import ImageBusy, RazorError, UsageError, sentence
from razortools.printable import printable
from razortools.service import daemon, kernel_mount, mountpoints
from razortools.service.awaiting import Watch
from razortools.service.control import Farewell, Waiter
from razortools.service.mountpoints import Holder, MountRefused, NoPermission
from razortools.service.options import MountOptions, parse_options
from razortools.service.remount_plan import kernel_words, kernel_words_after

if TYPE_CHECKING:
    from razortools.service.opening import Place

FUSE_DEVICE = "/dev/fuse"
DESCRIPTORS_MIN = 64  # the image, the log, a listener and who asks, and what comes and goes
SYSTEM_ERROR = 2  # mount(8): the machine lacks something
CLONE_NEWNS = 0x00020000
HOLDERS_SHOWN = 20
BUSY_TRIES = 20  # each looks through all processes, which takes some milliseconds
GREETING_PATIENCE_S = 30.0  # a daemon that lives greets between two requests
MOUNTED_PATIENCE_S = 5.0  # to hear of which image; that it is a mount of ours is known without
LAZY_PATIENCE_S = 1.0  # somebody listens, so it is ours; how it is does not matter
ELSEWHERE_LOOK_S = 0.5  # the kernel has let go of a mount when umount(2) returns, unless it is mounted elsewhere
ELSEWHERE = Farewell("it is mounted elsewhere, too")  # nobody says so: the daemon goes on

app = cli.new_app()
umount_app = cli.new_app()

DirArg = Annotated[str, typer.Argument(metavar="DIR", help="Mount point.", show_default=False)]
NamespaceOption = Annotated[str | None, typer.Option("-N", "--namespace", metavar="NS", help="Mount namespace, a pid or a path.")]
TypeOption = Annotated[str | None, typer.Option("-t", "--types", metavar="TYPE", help="Ignored; mount(8) passes it.")]
NoMtabFlag = Annotated[bool, typer.Option("-n", "--no-mtab", help="Ignored: there is no mtab to write.")]
MountVerboseFlag = Annotated[bool, typer.Option("-v", "--verbose", help="Tell what is done.")]


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
    descriptor = _namespace_descriptor(namespace)
    if chosen.remount:
        _enter(descriptor)
        return 0 if fake else _remount(image, mountpoints.canonical(mount_point), texts, sloppy=sloppy, verbose=verbose)
    _check_image(source, image, writable=not chosen.read_only)
    target = mountpoints.canonical(mount_point)
    for name, place in (("log", chosen.log), ("audit", chosen.audit)):
        if place is not None and Path(target) in Path(place).parents:
            raise UsageError(f"option {name}: {place}: lies in the mount, which would wait for itself; choose another place")

    def prepare() -> None:
        _enter(descriptor)
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
            _show_holders(mountpoints.holders(mounted), sentence)
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
        return Waiter(mounted.device, GREETING_PATIENCE_S)
    except TimeoutError:
        raise _silence(target) from None
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


def _namespace_descriptor(namespace: str | None) -> int:
    """Open the mount namespace that -N names; -1 for ours. Raises MountRefused."""
    if namespace is None:
        return -1
    path = f"/proc/{namespace}/ns/mnt" if namespace.isdigit() else namespace
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failed:
        raise MountRefused(f"{path}: not a mount namespace: {failed.strerror}") from None


def _enter(descriptor: int) -> None:
    """Go into a mount namespace."""
    if descriptor < 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNS) != 0:
        raise NoPermission(f"the mount namespace cannot be entered: {os.strerror(ctypes.get_errno())}")


@umount_app.command(help="Unmount DIR; return when everything is durable and the image is closed.")
def umount(
    mount_point: DirArg,
    lazy: Annotated[bool, typer.Option("-l", "--lazy", help="Detach it although it is in use, and do not wait.")] = False,
    no_mtab: NoMtabFlag = False,
    verbose: MountVerboseFlag = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="Ignored; umount(8) passes it.")] = False,
    read_only: Annotated[bool, typer.Option("-r", "--read-only", help="Ignored; umount(8) passes it.")] = False,
    namespace: NamespaceOption = None,
    types: TypeOption = None,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Unmount and wait for the daemon; return the exit code as umount has it."""
    _enter(_namespace_descriptor(namespace))
    target = mountpoints.canonical(mount_point)
    mounted = mountpoints.mount_at(target)
    if mounted is None:
        raise MountRefused(f"{mount_point}: is not mounted")
    if not mounted.is_fuse:
        raise MountRefused(f"{mount_point}: is a mount of {mounted.filesystem}, not of razorfs; use umount")
    try:
        waiter = Waiter(mounted.device, LAZY_PATIENCE_S if lazy else GREETING_PATIENCE_S)
    except TimeoutError:
        if not lazy:
            raise _silence(target) from None
        mountpoints.detach(target)
        return 0
    except OSError:
        return _unmount_dead(target)
    with closing(waiter):
        return _unmount(waiter, mounted, target, lazy=lazy, verbose=verbose)


def _silence(target: str) -> MountRefused:
    """Return what to say of a daemon that listens, so it has not died, but says nothing."""
    waited = f"its daemon has not answered for {GREETING_PATIENCE_S:g} s; is it stopped, or its disk?"
    return MountRefused(f"{target}: {waited} Nothing has been done; let it go on (kill -CONT), or detach it: umount.razorfs -l")


def _unmount_dead(target: str) -> int:
    """Clean up a mount that nobody serves; return the exit code."""
    if not mountpoints.is_dead(target):
        raise MountRefused(f"{target}: no daemon of razorfs serves it; use umount or fusermount3 -u")
    mountpoints.detach(target)
    render.message(f"umount.razorfs: {target}: its daemon had died; the next mount recovers the image")
    return 0


def _unmount(waiter: Waiter, mounted: Mount, target: str, *, lazy: bool, verbose: bool) -> int:
    """Unmount a living mount; return the exit code."""
    if lazy:
        mountpoints.detach(target)
        return 0
    if not _unmount_idle(mounted, target):
        return MOUNT_CODES.failed
    farewell = _farewell(waiter, mounted, target)
    if farewell is ELSEWHERE:
        return 0
    if farewell is None:
        raise MountRefused(f"{target}: unmounted, but its daemon died; the next mount recovers the image")
    if farewell.reason:
        raise MountRefused(f"{target}: unmounted, but {farewell.reason}")
    if verbose:
        render.message(f"umount.razorfs: {target} unmounted, {waiter.greeting.image} closed")
    return 0


def _farewell(waiter: Waiter, mounted: Mount, target: str) -> Farewell | None:
    """Wait until the image is closed; return how it was, None if the daemon died instead, or ELSEWHERE."""

    def tell(text: str) -> None:
        render.message(f"umount.razorfs: {target}: unmounted; {text}")

    watch = Watch(waiter.pid, waiter.greeting.image, tell)
    try:
        while True:
            try:
                return waiter.wait(ELSEWHERE_LOOK_S)
            except TimeoutError:
                if mountpoints.is_elsewhere(mounted):
                    render.message(f"umount.razorfs: {target}: unmounted here; {waiter.greeting.image} is mounted elsewhere, too")
                    return ELSEWHERE
                watch.look()
    except KeyboardInterrupt:
        watch.part()
        raise


def _unmount_idle(mounted: Mount, target: str) -> bool:
    """Unmount what nobody uses; whether that was so, else it has been told by whom it is used.

    Who looks at all mounts (df, monitoring) is in each for a moment only: whom nobody can name any more has gone.
    """
    found: list[Holder] = []
    for _ in range(BUSY_TRIES):
        try:
            mountpoints.unmount(target)
        except ImageBusy:
            found = mountpoints.holders(mounted)
            if found or os.geteuid():
                break
        else:
            return True
    _show_holders(found, f"umount.razorfs: {target}: is in use")
    return False


def _show_holders(found: list[Holder], sentence: str) -> None:
    """Tell in one sentence what does not work, and who keeps the mount busy."""
    by_kernel = " by the kernel: swap, an NFS export, or another mount namespace"
    unknown = "; run as root to see by whom" if os.geteuid() else by_kernel
    render.error(sentence + (" by:" if found else unknown))
    for holder in found[:HOLDERS_SHOWN]:
        who = f"pid {holder.pid}" if holder.pid else "kernel"
        render.message(printable(f"  {who}  {holder.command}  {holder.path}"))
    if len(found) > HOLDERS_SHOWN:
        render.message(f"  and {len(found) - HOLDERS_SHOWN} more")


def main() -> NoReturn:
    """Run mount.razorfs."""
    cli.run(app, "mount.razorfs", MOUNT_CODES)


def umount_main() -> NoReturn:
    """Run umount.razorfs."""
    cli.run(umount_app, "umount.razorfs", MOUNT_CODES)


if __name__ == "__main__":
    main()
