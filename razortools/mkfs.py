"""mkfs.razorfs: make a filesystem, and put files into it."""

import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import DebugFlag, ForceFlag, ImageArg, JsonFlag, QuietFlag, VerboseFlag, VersionFlag
from razortools.cli.documents import OneDocument
from razortools.engine.create import OPTIONAL_FEATURES, USUAL_FEATURES, CreatePlan, parse_features
from razortools.engine.make.identity import parse_epoch, parse_uuid_choice
from razortools.engine.make.image import Made, Order, make
from razortools.engine.populate.entry import Entry, show_path
from razortools.errors import UsageError
from razortools.format.compression import Policy, parse_policy
from razortools.units import KIB, format_size, parse_size, plural

app = cli.new_app()

_OWNER = re.compile("([0-9]{1,10}):([0-9]{1,10})")
_ID_MAX = (1 << 32) - 2  # the number above means "nobody" to chown(2)
WAKE_INTERVAL_S = 0.5


def _parse_journal_size(text: str) -> int | None:
    """Return the bytes that *text* means, None for auto. Raises ValueError."""
    return None if text.strip().lower() == "auto" else parse_size(text)


def _parse_owner(text: str) -> tuple[int, int]:
    """Return (uid, gid) of ``UID:GID``. Raises ValueError."""
    match = _OWNER.fullmatch(text)
    if match is None or max(map(int, match.groups())) > _ID_MAX:
        raise ValueError(f"'{text}' is not an owner; write it as UID:GID, such as 1000:1000")
    return int(match[1]), int(match[2])


def _parse_mode(text: str) -> int:
    """Return the permission bits of an octal number. Raises ValueError."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"'{text}' is not a mode; write it in octal, such as 0755")
    return mode


LabelOption = Annotated[str, typer.Option("-L", "--label", metavar="LABEL", help="Label, up to 64 bytes.", show_default=False)]
UuidOption = Annotated[
    Any,
    cli.parsed_option(
        "-U", "--uuid", parser=parse_uuid_choice, metavar="UUID|random|time|content",
        help="UUID; content derives it from what is put in. Usually random, and content under SOURCE_DATE_EPOCH.",
    ),
]  # fmt: skip
BlockOption = Annotated[int, cli.size_option("-b", "--block-size", help="Size of a block: 4K (usual) to 64K.")]
RecordOption = Annotated[int, cli.size_option("--record-size", help="Files are compressed in pieces of this size, usually 128K.")]
JournalOption = Annotated[
    Any, cli.parsed_option("--journal-size", parser=_parse_journal_size, metavar="SIZE|auto", help="Size of the journal.")
]
CopiesOption = Annotated[
    int, typer.Option("--metadata-copies", metavar="1|2", help="Copies of the metadata, usually 2.", show_default=False)
]
CompressionOption = Annotated[
    Any,
    cli.parsed_option(
        "-c", "--compression", parser=parse_policy, metavar="POLICY",
        help="For new files: auto (usual), none, zstd[:LEVEL], lz4 or zlib[:LEVEL].",
    ),
]  # fmt: skip
PopulateOption = Annotated[
    str | None,
    typer.Option(
        "-d", "--populate", metavar="SOURCE", help="Put in a directory, a tarball, or a tar on stdin (-).", show_default=False
    ),
]
FeaturesOption = Annotated[
    Any,
    cli.parsed_option(
        "-O", "--features", parser=parse_features, metavar="LIST",
        help=f"Features, with commas between; ^NAME: without it ({', '.join(OPTIONAL_FEATURES)}).",
    ),
]
OwnerOption = Annotated[
    Any,
    cli.parsed_option("--root-owner", parser=_parse_owner, metavar="UID:GID", help="Owner of the root directory, usually you."),
]
ModeOption = Annotated[
    Any, cli.parsed_option("--root-mode", parser=_parse_mode, metavar="MODE", help="Mode of the root directory, usually 0755.")
]
DryRunFlag = Annotated[
    bool, typer.Option("-n", "--dry-run", help="Print what would be made, backup superblocks included; write nothing.")
]
SizeArg = Annotated[
    str | None, typer.Argument(metavar="SIZE", help="Size, such as 512M or 2G; for what exists: all of it.", show_default=False)
]


@app.command(help="Make a RAZORFS filesystem in IMAGE, a file or block device. A missing file is created with SIZE.")
def mkfs(
    context: typer.Context,
    image: ImageArg,
    size: SizeArg = None,
    label: LabelOption = "",
    uuid_choice: UuidOption = None,
    block_size: BlockOption = 4 * KIB,
    record_size: RecordOption = 128 * KIB,
    journal_size: JournalOption = None,
    metadata_copies: CopiesOption = 2,
    compression: CompressionOption = Policy(),  # noqa: B008  (frozen)
    populate: PopulateOption = None,
    features: FeaturesOption = USUAL_FEATURES,
    root_owner: OwnerOption = None,
    root_mode: ModeOption = None,
    dry_run: DryRunFlag = False,
    force: ForceFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    as_json: JsonFlag = False,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Read the options, make the image, show what was made."""
    document: OneDocument = context.obj
    document.known["image"] = image
    order = Order(
        image=image,
        size_bytes=_size(size),
        label=label,
        uuid=uuid_choice,
        block_bytes=block_size,
        record_bytes=record_size,
        journal_bytes=journal_size,
        metadata_copies=metadata_copies,
        compression=compression,
        features=features,
        source=populate,
        root_owner=root_owner,
        root_mode=root_mode,
        epoch_s=_epoch(),
        dry_run=dry_run,
        force=force,
    )
    with _stopping_cleanly(), _noticing(verbose=verbose, quiet=quiet or as_json or populate is None) as notice:
        made = make(order, sys.stdin.buffer, notice)
    if as_json:
        document.print(_document(image, made))
    elif not quiet:
        render.pairs(_summary(image, made))
    return 0


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as refused:
        raise UsageError(str(refused)) from None


def _epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds, None if it is not set."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    return parse_epoch(text) if text else None


@contextmanager
def _noticing(*, verbose: bool, quiet: bool) -> Iterator[Callable[[Entry], None]]:
    """Yield what to call with each file that goes in: it shows a name or moves a bar."""
    if verbose:
        yield lambda entry: render.message(show_path(entry.path))
        return
    with render.progress("Putting in", None, quiet=quiet) as advance:
        yield lambda entry: advance(1)


@contextmanager
def _stopping_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work as Ctrl-C does: what was half made is removed. What nohup ignores stays ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def look(number: int, frame: FrameType | None) -> None:
        """Do nothing: that the interpreter wakes up is all."""

    wanted = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in wanted}
    # A signal that comes just before a read from a pipe that stays silent would only be noticed after that read; so the
    # read is interrupted now and then.
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, WAKE_INTERVAL_S, WAKE_INTERVAL_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _document(image: str, made: Made) -> dict[str, Any]:
    """Return what --json prints."""
    plan, geometry = made.plan, made.plan.geometry
    populated = None
    if made.populated is not None and made.statistics is not None:
        populated = asdict(made.populated) | {"stored_bytes": made.statistics.data_blocks * geometry.block_bytes}
    return {
        "image": image,
        "dry_run": made.dry_run,
        "size_bytes": made.image_bytes,
        "uuid": str(uuid.UUID(bytes=plan.uuid)),
        "label": _label(plan),
        "block_bytes": geometry.block_bytes,
        "block_count": geometry.block_count,
        "node_bytes": geometry.node_bytes,
        "record_bytes": plan.record_bytes,
        "metadata_copies": plan.metadata_copies,
        "compression": str(plan.compression),
        "features": plan.features.names(),
        "journal": {"start": geometry.journal_start, "blocks": geometry.journal_blocks, "bytes": geometry.journal_bytes},
        "space_maps": list(geometry.spacemap_starts),
        "backup_superblocks": list(geometry.backups),
        "root": {"uid": plan.root_uid, "gid": plan.root_gid, "mode": f"{plan.root_mode:04o}"},
        "made_at_ns": plan.made_at_ns,
        "populated": populated,
    }


def _summary(image: str, made: Made) -> list[tuple[str, str]]:
    """Return what is printed for people."""
    plan, geometry = made.plan, made.plan.geometry
    lines = [
        ("image" if not made.dry_run else "image (not made)", image),
        ("size", f"{format_size(made.image_bytes)}: {geometry.block_count} blocks of {geometry.block_bytes} bytes"),
        ("uuid", str(uuid.UUID(bytes=plan.uuid))),
        ("label", _label(plan) or "none"),
        ("metadata", f"nodes of {format_size(geometry.node_bytes)}, {plural(plan.metadata_copies, 'copy')}"),
        ("data", f"records of {format_size(plan.record_bytes)}, compression {plan.compression}"),
        ("journal", f"{format_size(geometry.journal_bytes)} at block {geometry.journal_start}"),
        ("space maps", "at blocks " + ", ".join(map(str, geometry.spacemap_starts))),
        ("backup superblocks", "at blocks " + ", ".join(map(str, geometry.backups))),
        ("features", ", ".join(plan.features.names())),
        ("root directory", f"mode {plan.root_mode:04o}, owner {plan.root_uid}:{plan.root_gid}"),
    ]
    if made.populated is not None and made.statistics is not None:
        put, stored = made.populated, made.statistics.data_blocks * geometry.block_bytes
        files, directories = plural(put.files, "file"), plural(put.directories, "directory")
        lines.append(("put in", f"{files}, {directories}, {put.others} links and special files"))
        lines.append(("stored", f"{format_size(put.total_bytes)} in {format_size(stored)} of blocks; small files in the tree"))
    return lines


def _label(plan: CreatePlan) -> str:
    return plan.label.rstrip(b"\0").decode("utf-8", "surrogateescape")


def main() -> NoReturn:
    """Run the command and end the process."""
    cli.run(app, "mkfs.razorfs", cli.MKFS_CODES)


if __name__ == "__main__":
    main()
