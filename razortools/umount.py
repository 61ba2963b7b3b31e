"""umount.razorfs: the command, also as the helper that umount(8) calls. It returns when the image is closed."""

import os
from contextlib import closing
from typing import Annotated, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import (
    MOUNT_CODES,
    DebugFlag,
    DirArg,
    MountVerboseFlag,
    NamespaceOption,
    NoMtabFlag,
    TypeOption,
    VersionFlag,
)
from razortools.engine.store.mounts import Mount
from razortools.errors import ImageBusy
from razortools.service import awaiting, mount_namespace, mount_users, mountpoints
from razortools.service.control import Farewell, Waiter
from razortools.service.mount_users import MountUser
from razortools.service.mountpoints import MountRefused

BUSY_TRIES = 20  # each looks through all processes, which takes some milliseconds
LAZY_PATIENCE_S = 1.0  # somebody listens, so it is ours; how it is does not matter
ELSEWHERE_LOOK_S = 0.5  # the kernel has let go of a mount when umount(2) returns, unless it is mounted elsewhere
ELSEWHERE = Farewell("it is mounted elsewhere, too")  # nobody says so: the daemon goes on

app = cli.new_app()


@app.command(help="Unmount DIR; return when everything is durable and the image is closed.")
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
    mount_namespace.enter(mount_namespace.opened(namespace))
    target = mountpoints.canonical(mount_point)
    mounted = mountpoints.mount_at(target)
    if mounted is None:
        raise MountRefused(f"{mount_point}: is not mounted")
    if not mounted.is_fuse:
        raise MountRefused(f"{mount_point}: is a mount of {mounted.filesystem}, not of razorfs; use umount")
    try:
        waiter = Waiter(mounted.device, LAZY_PATIENCE_S if lazy else awaiting.GREETING_PATIENCE_S)
    except TimeoutError:
        if not lazy:
            raise awaiting.silence(target) from None
        mountpoints.detach(target)
        return 0
    except OSError:
        return _unmount_dead(target)
    with closing(waiter):
        return _unmount(waiter, mounted, target, lazy=lazy, verbose=verbose)


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

    watch = awaiting.Watch(waiter.pid, waiter.greeting.image, tell)
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
    found: list[MountUser] = []
    for _ in range(BUSY_TRIES):
        try:
            mountpoints.unmount(target)
        except ImageBusy:
            found = mount_users.users_of(mounted)
            if found or os.geteuid():
                break
        else:
            return True
    render.error(f"umount.razorfs: {target}: is in use{mount_users.by_whom(found)}", mount_users.lines(found))
    return False


def main() -> NoReturn:
    """Run umount.razorfs."""
    cli.run(app, "umount.razorfs", MOUNT_CODES)


if __name__ == "__main__":
    main()
