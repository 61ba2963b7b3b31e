"""The five incidents: an image that is full, a disk with bad blocks, a slow mount, files deleted by mistake, a killed daemon."""

import mmap
import os
import random

from razortools.engine import namespace
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
from razortools.format.data import DataRecord
from razortools.format.keys import Kind, kind_range
from razortools.units import KIB, MIB
from tools.incidents.contents import contents_of, differences
from tools.incidents.scene import Incident, Meanwhile, Scene, Typed

NOTES = "".join(f"note {number}\n" for number in range(40)).encode()


def noise(seed: int, size_bytes: int) -> bytes:
    """Return bytes that do not compress, the same for the same seed: what photographs are made of."""
    return random.Random(seed).randbytes(size_bytes)


def losses(scene: Scene) -> list[str]:
    """Return how the image differs from what its owner wants to find."""
    return differences(contents_of(scene.image), scene.wanted)


# An image that is full.

PHOTOS = {f"photos/beach-{number}.jpg": noise(number, 2 * MIB) for number in range(4)}
INCOMING = {f"photos/hills-{number}.jpg": noise(10 + number, 2 * MIB) for number in range(3)}


def fill_up(scene: Scene) -> None:
    """Photographs, and a log that nobody needs, in an image in which the new photographs find no room."""
    scene.fill({**PHOTOS, "logs/old.log": noise(20, 5 * MIB // 2)})
    del scene.wanted["logs/old.log"]
    (scene.folder / "incoming").mkdir()
    for path, contents in INCOMING.items():
        (scene.folder / "incoming" / os.path.basename(path)).write_bytes(contents)
    scene.wanted |= INCOMING
    scene.mounted.mount()


FULL = Incident(
    name="full",
    image_bytes=16 * MIB,
    prepare=fill_up,
    steps=(
        Typed("cp incoming/* mnt/photos/", (r"hills-2.jpg.: No space left on device",), exit_code=1),
        Typed("razorfs-health mnt", (r"^CRITICAL Space: .*; delete something, or enlarge it with resize",), 2, only="^[^O]"),
        Typed("du -sh mnt/*", (r"^2\.\d*M\tmnt/logs$",)),
        Typed("rm mnt/logs/old.log"),
        Typed("cp incoming/* mnt/photos/"),
        Typed("razorfs-health mnt", (r"^WARNING  Space: 9\d % of 16 MiB used, .*; plan for more room$",), 1, only="^[^O]"),
        Typed("umount.razorfs mnt"),
        Typed("razorfs-debug -w -R 'resize 64M' disk.img", (r"^16 MiB -> 64 MiB",)),
        Typed("mount.razorfs disk.img mnt"),
        Typed("razorfs-health mnt", (r"^OK       Space: 2\d % of 64 MiB used",), only="Space"),
        Typed("umount.razorfs mnt"),
    ),
    losses=losses,
)


# A disk with bad blocks.

BACKUP = {"photos/beach.jpg": noise(1, 200_000), "photos/hills.jpg": noise(2, 90_000), "notes.txt": NOTES}


def lose_blocks(scene: Scene) -> None:
    """A copy of a disk, as ddrescue makes it: zeros where two blocks could not be read, and a map that tells where.

    One holds a part of a photograph, the other a part of one of two copies of the tree's root.
    """
    scene.fill(BACKUP)
    for path, contents in BACKUP.items():
        kept = scene.folder / "backup" / path
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(contents)
    with open_volume(open_image(scene.image, writable=False), read_only=True) as volume:
        ino = namespace.resolve(volume, b"/photos/beach.jpg")
        _, first = next(volume.store.items(*kind_range(ino, Kind.DATA_RECORD)))
        data_block = DataRecord.decode(first).runs(volume.block_bytes)[0][0] + 8
        node_block, block_bytes = volume.store.superblock.root.address, volume.block_bytes
    lost = sorted(block * block_bytes for block in (data_block, node_block))
    lines, at = ["# Mapfile. Created by GNU ddrescue version 1.27", "0x00000000     +               1"], 0
    with scene.image.open("r+b") as file:
        for start in lost:
            file.seek(start)
            file.write(bytes(block_bytes))
            lines += [f"0x{at:08X}  0x{start - at:08X}  +", f"0x{start:08X}  0x{block_bytes:08X}  -"]
            at = start + block_bytes
    lines.append(f"0x{at:08X}  0x{scene.image.stat().st_size - at:08X}  +")
    (scene.folder / "disk.map").write_text("\n".join(lines) + "\n")


BAD_BLOCKS = Incident(
    name="bad blocks",
    image_bytes=16 * MIB,
    prepare=lose_blocks,
    steps=(
        Typed("cat disk.map"),
        Typed(
            "razorfs-debug -R 'whois --ddrescue disk.map' disk.img",
            (
                r"data, record 0 +/photos/beach.jpg +bytes 0 to 131071 of the file",
                r"2 bad areas in 2 blocks; 1 files? (is|are) hurt",
            ),
        ),
        Typed("razorfs-debug -R 'cat /photos/beach.jpg' disk.img", (r"checksum",), exit_code=1),
        Typed("razorfsck --repair disk.img", (r"/photos/beach.jpg",), exit_code=1),
        Typed("razorfs-debug -w -R 'put backup/photos/beach.jpg /photos' disk.img", (r"1 files?",)),
        Typed("razorfsck disk.img", (r"disk.img: clean",), only="Summary|clean"),
        Typed("razorfs-debug -R admin disk.img", (r"UTC +repair +\S+ +\d+ errors? and \d+ warnings? found, none left$",)),
    ),
    losses=losses,
)


# A slow mount.

DATABASE = {"database": noise(3, 4 * MIB)}
READS = 1200


def query(scene: Scene) -> None:
    """A database at work: small reads all over its file, which it caches itself, so that the kernel does not."""
    chance = random.Random(4)
    page = mmap.mmap(-1, 4 * KIB)  # in memory as O_DIRECT wants it
    descriptor = os.open(scene.mount_point / "database", os.O_RDONLY | os.O_DIRECT)
    try:
        for _ in range(READS):
            os.preadv(descriptor, [page], chance.randrange(1 * KIB) * 4 * KIB)
    finally:
        os.close(descriptor)


def serve_with_too_little(scene: Scene) -> None:
    """A mount whose cache is smaller than what is read again and again."""
    scene.fill(DATABASE)
    scene.mounted.mount("cache=1M")
    query(scene)


SLOW = Incident(
    name="slow",
    image_bytes=16 * MIB,
    prepare=serve_with_too_little,
    steps=(
        Typed("razorfs-health mnt", (r"^WARNING  Cache: hit rate .*Working set is larger than cache=1M",), 1),
        Typed(
            "razorfs-health --watch --frames 1 mnt",
            (r"^  read  ", r"requests waited for  queue .*, read \d", r"^  data records  \d+ %  .*  1 MiB$"),
            1,
            only=r"^Requests|a second|^  read  |waited|^Caches|hits|data records",
        ),
        Typed("mount.razorfs disk.img mnt -o remount,cache=64M"),
        Meanwhile(query),
        Typed("razorfs-health mnt", (r"^OK       Cache: hit rate",), only="Cache|Memory"),
        Typed("umount.razorfs mnt"),
    ),
    losses=losses,
)


# Files deleted by mistake.

ALBUM = {"photos/beach.jpg": noise(1, 200_000), "photos/hills.jpg": noise(2, 90_000), "notes.txt": NOTES}


def keep_an_album(scene: Scene) -> None:
    """Photographs that have been there for a while, and a mount."""
    scene.fill(ALBUM)
    scene.mounted.mount()


def losses_of_copies_too(scene: Scene) -> list[str]:
    """Return what is wrong with the image, and with what was copied out of it."""
    copies = {f"photos/{path.name}": path.read_bytes() for path in scene.folder.glob("*.jpg")}
    return losses(scene) + differences(copies, {path: ALBUM[path] for path in ALBUM if path.endswith(".jpg")})


DELETED = Incident(
    name="deleted",
    image_bytes=16 * MIB,
    prepare=keep_an_album,
    steps=(
        Typed("rm -r mnt/photos"),
        Typed("umount.razorfs mnt"),
        Typed(
            "razorfs-debug -R 'undelete --list' disk.img",
            (r"^ *3 +200000 +whole .*/photos/beach.jpg$", r"^ *4 +90000 +whole .*/photos/hills.jpg$"),
        ),
        Typed(
            "razorfs-debug -R 'undelete 3 --out beach.jpg' -R 'undelete 4 --out hills.jpg' disk.img", (r"beach.jpg on the host",)
        ),
        Typed(
            "razorfs-debug -w -R 'mkdir /photos' -R 'undelete 3' -R 'undelete 4' -R 'ls -l /photos' disk.img",
            (r"-> /photos/beach.jpg: 200000 bytes$", r"-rw-r--r-- .* 90000 .* hills.jpg$"),
        ),
        Typed("razorfsck disk.img", (r"disk.img: clean",), only="Summary|clean"),
    ),
    losses=losses_of_copies_too,
)


# A killed daemon.

SAVED = {"letter.txt": NOTES * 100, "photo.jpg": noise(5, 300_000)}
UNSAVED = noise(6, 500_000)


def be_killed_at_work(scene: Scene) -> None:
    """Two files that programs have synced, one that nobody has, and then the daemon is gone."""
    scene.mounted.mount("commit=3600,checkpoint=3600")  # so that nothing but a sync makes anything durable
    for name, contents in SAVED.items():
        with (scene.mount_point / name).open("wb") as file:
            file.write(contents)
            os.fsync(file.fileno())
    scene.wanted |= SAVED
    (scene.mount_point / "unsaved").write_bytes(UNSAVED)
    scene.kill_the_daemon()


def losses_of_synced(scene: Scene) -> list[str]:
    """Return what is wrong: what was synced must be there, what was not may be as it was after one of its writes."""
    found = contents_of(scene.image)
    unsaved = found.pop("unsaved", b"")
    told = [] if UNSAVED.startswith(unsaved) else ["unsaved: holds what nobody has written"]
    return told + differences(found, scene.wanted)


KILLED = Incident(
    name="killed",
    image_bytes=16 * MIB,
    prepare=be_killed_at_work,
    steps=(
        Typed("df mnt", (r"Transport endpoint is not connected",), exit_code=1),  # a question that no cache answers
        Typed(
            "razorfs-health mnt",
            (
                r"^CRITICAL Mount: .*/mnt has died, .* mount.razorfs ",
                r"^WARNING  State: was not unmounted; the next mount replays \d",
            ),
            2,
        ),
        Typed("mount.razorfs disk.img mnt"),
        Typed("ls mnt", (r"^letter.txt$", r"^photo.jpg$")),
        Typed("umount.razorfs mnt"),
        Typed("razorfsck disk.img", (r"disk.img: clean",), only="Summary|clean"),
    ),
    losses=losses_of_synced,
)

INCIDENTS = (FULL, BAD_BLOCKS, SLOW, DELETED, KILLED)
