"""The problems razorfsck knows, one row each. Codes are permanent: E, the phase (two digits), a number.

A code is never given to another problem. The sentence is a format string; the pass that finds the problem fills it in.
"""

from dataclasses import replace

from razortools.check.findings import Finding, Repair, Severity
from razortools.check.problem import Problem

NOTE, WARNING, ERROR, FATAL = Severity.NOTE, Severity.WARNING, Severity.ERROR, Severity.FATAL

PROBLEMS: dict[str, Problem] = {}


def _row(code: str, severity: Severity, noun: str, sentence: str, cause: str, risk: str, repair: Repair) -> Problem:
    assert code not in PROBLEMS, f"{code} stands twice in the table"
    PROBLEMS[code] = Problem(code, severity, noun, sentence, cause, risk, repair)
    return PROBLEMS[code]


_ROT = "A bad sector, bad memory, or another program wrote over the image."
_BUG = "A defect of the software that wrote it, or a deliberate edit: its checksum is right."
_NO_RISK = "None."

# ---- phase 1: superblock ---------------------------------------------------------------------------------------------
SUPERBLOCK_DAMAGED = _row(
    "E0101", ERROR, "damaged superblock", "superblock at block {block} is damaged: {reason}",
    _ROT, "None while the other slot is good; if both are lost, only a backup superblock opens the image.", Repair.REWRITE_COPY,
)  # fmt: skip
SUPERBLOCK_FIELD = _row(
    "E0102", ERROR, "wrong superblock field", "superblock at block {block}: {field} is {value}, expected {expected}",
    _BUG, "Commands may look for data in wrong places or refuse to open the image.", Repair.RESET_FIELD,
)  # fmt: skip
SLOTS_DISAGREE = _row(
    "E0103", ERROR, "superblock disagreement", "the superblocks at blocks 0 and 1 disagree about {field}",
    "Blocks of another image were copied into this one, or a slot was edited.",
    "A mount may pick the wrong one of the two.", Repair.REWRITE_COPY,
)  # fmt: skip
BACKUP_DAMAGED = _row(
    "E0104", WARNING, "damaged backup superblock", "backup superblock at block {block} is damaged: {reason}",
    _ROT, "One way less to open the image should both superblocks be lost.", Repair.REWRITE_COPY,
)  # fmt: skip
BACKUP_FOREIGN = _row(
    "E0105", WARNING, "foreign backup superblock", "backup superblock at block {block} disagrees about {field}",
    "The image was copied over an older one, or an update of the backups was cut short.",
    "A rescue from this backup would look in wrong places.", Repair.REWRITE_COPY,
)  # fmt: skip
BACKUP_USED = _row(
    "E0106", ERROR, "unusable superblock", "both superblocks are damaged; went on from the backup at block {block}",
    "Something wrote over the start of the image.",
    "The image cannot be mounted. A backup knows only the state of its day: what changed later may be missing from this check.",
    Repair.REWRITE_COPY,
)  # fmt: skip
GEOMETRY_WRONG = _row(
    "E0107", ERROR, "impossible layout", "superblock at block {block}: {reason}",
    _BUG, "The image cannot be opened from this superblock.", Repair.REWRITE_COPY,
)  # fmt: skip
ERRORS_RECORDED = _row(
    "E0108", WARNING, "recorded error", "{reason}, so this check was asked for",
    "A read or write failed, or a checksum did not match, while the image was in use; or a repair could not mend everything.",
    "See the other findings; if there are none the error has passed or was mended.", Repair.RESET_STATE,
)  # fmt: skip
DEVICE_LARGER = _row(
    "E0109", NOTE, "unused tail", "the file or device is {spare} larger than the filesystem in it",
    "The device was enlarged, or its size is no multiple of the block size.", _NO_RISK, Repair.NOTHING,
)  # fmt: skip
NOT_AN_IMAGE = _row(
    "E0110", FATAL, "foreign image", "this is not a RAZORFS image: no superblock was found at any place where one may lie",
    "The wrong file or device was named, or it was overwritten from start to end.",
    "Nothing was checked.", Repair.BY_HAND,
)  # fmt: skip
TRUNCATED = _row(
    "E0111", FATAL, "truncated image",
    "the image is truncated: the filesystem has {expected} bytes, the file only {found}; restore the missing end",
    "An incomplete copy or download, or a device smaller than the one it was made on.",
    "Whatever lay behind the end is missing.", Repair.BY_HAND,
)  # fmt: skip
NEWER_VERSION = _row(
    "E0112", FATAL, "newer format", "format version {version} is newer than version {known}, the last that this razorfsck knows",
    "The image was made by newer razortools.", "Nothing was checked.", Repair.BY_HAND,
)  # fmt: skip
UNKNOWN_FEATURE = _row(
    "E0113", FATAL, "unknown feature", "the image uses features {bits:#x} that this razorfsck does not know; update it",
    "The image was made or changed by newer razortools.", "Nothing was checked.", Repair.BY_HAND,
)  # fmt: skip
NO_SUPERBLOCK = _row(
    "E0114", FATAL, "lost superblock", "no superblock and no backup verifies, so nothing else can be checked",
    "Large parts of the image were overwritten.", "The files may still be there, but nothing says where.", Repair.REBUILD_TREE,
)  # fmt: skip
UNKNOWN_READ_ONLY_FEATURE = _row(
    "E0115", NOTE, "unknown feature", "the image uses features {bits:#x} that this razorfsck does not know and cannot check",
    "The image was changed by newer razortools.", "What these features keep was not checked.", Repair.NOTHING,
)  # fmt: skip
MOVED_ON = _row(
    "E0116", FATAL, "unfinished look",
    "the image is in use, and what was looked at was written over each of {count} times before it could be judged; "
    "unmount it, or look as root or as who has mounted it, so that the mount can hold a checkpoint",
    "A mount writes over what its last checkpoint but one named. Nothing says that anything is damaged.",
    "What is told besides was confirmed; the rest was not judged.", Repair.BY_HAND,
)  # fmt: skip
COPIES_NOT_JUDGED = _row(
    "E0117", NOTE, "unjudged superblock copy",
    "the image is in use, and copies of its superblock may be on their way to the disk: only the newest was judged",
    "The mount could not be asked to hold still.", _NO_RISK, Repair.NOTHING,
)  # fmt: skip
RESIZED = _row(
    "E0118", NOTE, "superblock from before a resizing",
    "the superblock at block {block} still tells the size from before a resizing, {blocks} blocks",
    "The resizing was cut off after the image had got its new size.",
    "None: the next mount brings all superblocks up to date.", Repair.NOTHING,
)  # fmt: skip
ADMIN_HISTORY = _row(
    "E0119", NOTE, "damaged admin history", "the superblock at block {block}: {fault}; no file depends on it",
    _BUG, "What was done to the image is not told in full.", Repair.NOTHING,
)  # fmt: skip
OTHER_FILESYSTEM = _row(
    "E0120", NOTE, "superblock of another filesystem",
    "at byte {place} lies a superblock of another filesystem, {other} in blocks of {unit} bytes; "
    "went on with {uuid}, which was written last",
    "The filesystem was made where another one had been, by something that left rests of that.",
    "None if the right one was believed; if not, -b BLOCK names a superblock to believe.", Repair.NOTHING,
)  # fmt: skip

# ---- phase 2: journal ------------------------------------------------------------------------------------------------
REPLAY_PENDING = _row(
    "E0201", NOTE, "pending transaction",
    "the image was not unmounted cleanly; transactions to replay at the next mount: {count}",
    "The machine or the mount was stopped without unmounting.", _NO_RISK, Repair.REPLAY,
)  # fmt: skip
TORN_TAIL = _row(
    "E0202", NOTE, "unfinished transaction", "the unfinished transaction at the journal's end is dropped: {reason}",
    "The machine stopped while a commit was being written; nobody was told that it had succeeded.", _NO_RISK, Repair.REPLAY,
)  # fmt: skip
JOURNAL_DAMAGED = _row(
    "E0203", ERROR, "damaged journal entry", "journal entry {sequence} at block {block} is damaged: {reason}",
    _ROT, "Changes that were safe cannot be replayed; files changed last are as before.", Repair.CUT_JOURNAL,
)  # fmt: skip
JOURNAL_FIELD = _row(
    "E0204", ERROR, "wrong journal entry", "journal entry {sequence} at block {block}: {reason}",
    _BUG, "The next mount would put nonsense into the tree, and miss what was meant.", Repair.REPLAY_AS_MEANT,
)  # fmt: skip
COMMIT_WRONG = _row(
    "E0205", ERROR, "wrong commit entry", "commit entry {sequence} at block {block}: {field} is {value}, expected {expected}",
    _BUG, "Replay may stop too early or apply an incomplete transaction.", Repair.CUT_JOURNAL,
)  # fmt: skip
JOURNAL_PADDING = _row(
    "E0206", WARNING, "stray journal byte", "stray bytes behind the commit entry at block {block}: {count}",
    _ROT, "None for this transaction; the blocks around it deserve a look.", Repair.REPLAY,
)  # fmt: skip
REPLAY_FAILED = _row(
    "E0207", ERROR, "failed replay", "the journal cannot be replayed ({reason}); the last checkpoint was checked instead",
    "The journal, or a node that it changes, is damaged.",
    "The next mount will be refused; changes since the last checkpoint are missing from this check.", Repair.CUT_JOURNAL,
)  # fmt: skip
CLEAN_WITH_ENTRIES = _row(
    "E0208", ERROR, "unexpected transaction", "the image is marked clean, but transactions wait in its journal: {count}",
    "An old superblock was written back over a newer one, or its state was edited.",
    "A mount that believes the mark forgets these changes.", Repair.REPLAY,
)  # fmt: skip
COMMITTED_SINCE = _row(
    "E0209", NOTE, "newer transaction",
    "the image is in use: what was committed after its last checkpoint is not part of this look; transactions: {count}",
    "The mount goes on while its image is looked at.", _NO_RISK, Repair.NOTHING,
)  # fmt: skip

JOURNAL_HIDDEN = _row(
    "E0210", ERROR, "hidden journal",
    "the superblock expects journal entry {expected} at block {block}, but entry {sequence} of transaction {number} waits",
    _BUG, "The next mount forgets what waits; it is missing from this check.", Repair.EXPECT_WAITING,
)  # fmt: skip

# ---- phase 3: inode table --------------------------------------------------------------------------------------------
NODE_COPY_DAMAGED = _row(
    "E0301", WARNING, "damaged node copy", "one of the two copies of the tree node at block {block} is damaged: {reason}",
    _ROT, "None while the other copy is good.", Repair.REWRITE_COPY,
)  # fmt: skip
NODE_LOST = _row(
    "E0302", ERROR, "lost tree node", "tree node at block {block} is damaged and has no good copy ({reason}); it held {held}",
    _ROT, "Files and directories described in it are damaged or lost; reading them gives an I/O error.", Repair.REBUILD_TREE,
)  # fmt: skip
NODE_FIELD = _row(
    "E0303", ERROR, "wrong node header", "tree node at block {block}: {field} is {value}, expected {expected}",
    "An old or foreign node was written here, or a defect of the software that wrote it.",
    "What stands in it may be out of date or belong elsewhere.", Repair.REBUILD_TREE,
)  # fmt: skip
NODE_KEYS = _row(
    "E0304", ERROR, "disordered node", "tree node at block {block}: {reason}",
    _BUG, "Items in it may not be found.", Repair.REBUILD_TREE,
)  # fmt: skip
NODE_SHARED = _row(
    "E0305", ERROR, "shared tree node", "tree node at block {block} is pointed at twice",
    _BUG, "A change in one place shows up in another.", Repair.REBUILD_TREE,
)  # fmt: skip
ITEM_UNKNOWN = _row(
    "E0306", ERROR, "unknown item", "the tree node at block {block} holds an item with a senseless key: {reason}",
    _BUG, "Nothing finds this item; what it held is missing.", Repair.DROP_ITEM,
)  # fmt: skip
ITEM_SHAPE = _row(
    "E0307", ERROR, "malformed item", "{what} of inode {inode} cannot be read: {reason}",
    _BUG, "What the item held is lost; using the file may fail.", Repair.DROP_ITEM,
)  # fmt: skip
INODE_MISSING = _row(
    "E0308", ERROR, "missing inode", "inode {inode} is missing, but {what} of it are there",
    "The inode stood in a node that is lost, or a defect.", "The file cannot be opened.", Repair.MAKE_INODE,
)  # fmt: skip
INODE_FIELD = _row(
    "E0309", ERROR, "wrong inode field", "inode {inode}: {field} is {value}, expected {expected}",
    _BUG, "The file may be unusable or show wrong attributes.", Repair.RESET_FIELD,
)  # fmt: skip
INODE_NUMBER = _row(
    "E0310", ERROR, "wrong next inode number",
    "the next new inode would get number {next_inode}; the highest that exists is {inode}",
    _BUG, "A new file would overwrite an existing one, or none can be made.", Repair.RECOUNT,
)  # fmt: skip
XATTR_WRONG = _row(
    "E0311", ERROR, "wrong extended attribute", "inode {inode}: extended attribute {name}: {reason}",
    _BUG, "The attribute cannot be found or read.", Repair.DROP_ITEM,
)  # fmt: skip
XATTR_FLAG = _row(
    "E0312", ERROR, "wrong attribute mark", "inode {inode} has {found} extended attributes, but its flag says {flag}",
    _BUG, "Attributes, access control lists among them, may be overlooked.", Repair.RECOUNT,
)  # fmt: skip
ROOT_WRONG = _row(
    "E0313", ERROR, "missing root directory", "the root directory (inode 1) is {reason}",
    "It stood in a node that is lost, or a defect.", "No file can be reached.", Repair.REBUILD_LINK,
)  # fmt: skip
ORPHAN_WRONG = _row(
    "E0314", ERROR, "wrong orphan", "inode {inode} stands in the table of orphans, but {reason}",
    _BUG, "The next mount may delete a file that is in use, or keep one for ever.", Repair.DROP_ITEM,
)  # fmt: skip
ORPHANS_PENDING = _row(
    "E0315", NOTE, "unfinished file", "files that were deleted or cut while open, for the next mount to finish: {count}",
    "The machine or the mount was stopped while programs held them open.", _NO_RISK, Repair.FINISH_ORPHAN,
)  # fmt: skip
COUNTERS_MISSING = _row(
    "E0316", ERROR, "missing counter", "the volume's counters are missing",
    "They stood in a node that is lost, or a defect.", "The image cannot be mounted.", Repair.RECOUNT,
)  # fmt: skip
INODE_COUNT = _row(
    "E0317", ERROR, "wrong inode count", "{place}: {field} is {value}, but {counted} were counted",
    _BUG, "Wrong numbers in df; nothing is lost.", Repair.RECOUNT,
)  # fmt: skip
ORPHAN_UNMARKED = _row(
    "E0318", ERROR, "unfinished inode", "inode {inode} has no name left and does not stand in the table of orphans",
    _BUG, "Its space is never freed.", Repair.LOST_AND_FOUND,
)  # fmt: skip

PATCH_WRONG = _row(
    "E0319", ERROR, "wrong patch", "{what} of inode {inode}: {reason}",
    _BUG, "The next mount may lay bytes over the file that do not belong there.", Repair.DROP_ITEM,
)  # fmt: skip

# ---- phase 4: directory structure ------------------------------------------------------------------------------------
LINK_COUNT = _row(
    "E0401", ERROR, "wrong link count", "inode {inode}: link count is {value}, but {counted} were counted",
    _BUG, "Too low: deleting one name may free a file that another still names. Too high: it is never freed.", Repair.RECOUNT,
)  # fmt: skip
DANGLING_ENTRY = _row(
    "E0402", ERROR, "dangling entry", "this name leads to inode {inode}, which is not there",
    "The inode stood in a node that is lost, or a defect.", "The file cannot be opened.", Repair.DROP_ENTRY,
)  # fmt: skip
ENTRY_UNCONFIRMED = _row(
    "E0403", ERROR, "unconfirmed entry", "this name leads to inode {inode}, whose back link {link_no} does not lead back here",
    "The back link stood in a node that is lost, or a defect.", "Deleting or renaming this name may fail.", Repair.REBUILD_LINK,
)  # fmt: skip
BACK_LINK_UNCONFIRMED = _row(
    "E0404", ERROR, "lost name",
    "inode {inode} is said to be named here (back link {link_no}), but the directory has no such entry",
    "The entry stood in a node that is lost, or a defect.", "The file cannot be found under this name.", Repair.REBUILD_LINK,
)  # fmt: skip
ENTRY_TYPE = _row(
    "E0405", ERROR, "wrong entry type", "this name says that inode {inode} is a {value}; it is a {expected}",
    _BUG, "Programs that trust readdir treat it wrongly.", Repair.RECOUNT,
)  # fmt: skip
ENTRY_NAME_MISSING = _row(
    "E0406", ERROR, "nameless entry", "an entry of this directory has the name id {name_id}, which is not in the string table",
    "The name stood in a node that is lost, or a defect.", "Nobody can open what stood under it.", Repair.NAME_BY_NUMBER,
)  # fmt: skip
ENTRY_HASH = _row(
    "E0407", ERROR, "misplaced entry", "this name is filed under {value:#x}, but its hash is {expected:#x}",
    _BUG, "The name shows up in listings but cannot be opened.", Repair.REBUILD_LINK,
)  # fmt: skip
DUPLICATE_NAME = _row(
    "E0408", ERROR, "duplicate name", "this directory has the name twice",
    _BUG, "Only one of the two can be reached.", Repair.RENAME_ENTRY,
)  # fmt: skip
DIRECTORY_SIZE = _row(
    "E0409", ERROR, "wrong directory size", "directory says it has {value} entries, but {counted} were counted",
    _BUG, "Removing the directory may fail or lose entries.", Repair.RECOUNT,
)  # fmt: skip
UNREACHABLE = _row(
    "E0410", ERROR, "unreachable inode", "inode {inode} is there, but no name leads to it",
    "Its directory's entries stood in a node that is lost, or a defect.", "The file cannot be opened.", Repair.LOST_AND_FOUND,
)  # fmt: skip
DIRECTORY_CYCLE = _row(
    "E0411", ERROR, "directory cycle", "directory inode {inode} contains itself, so no path leads to it",
    _BUG, "Everything in it cannot be reached.", Repair.LOST_AND_FOUND,
)  # fmt: skip
TWO_PARENTS = _row(
    "E0412", ERROR, "twice-named directory", "directory inode {inode} has {counted} names",
    _BUG, "Programs that walk the tree may loop; '..' is right for only one of them.", Repair.DROP_ENTRY,
)  # fmt: skip
NOT_A_DIRECTORY = _row(
    "E0413", ERROR, "misplaced entry", "inode {inode} is no directory but has entries",
    _BUG, "What they name cannot be reached.", Repair.LOST_AND_FOUND,
)  # fmt: skip
LINK_NUMBER = _row(
    "E0414", ERROR, "wrong next link number", "inode {inode}: back link {link_no} exists, but the next one gets {next_link_no}",
    _BUG, "A new hard link would overwrite an existing one's record.", Repair.RECOUNT,
)  # fmt: skip

# ---- phase 5: file data blocks ---------------------------------------------------------------------------------------
ORPHANED_BLOCKS = _row(
    "E0501", WARNING, "orphaned block", "blocks {first} to {last} are marked used but nothing points at them",
    "A defect, or a part of the tree was lost.", "None for the files; the space is missing.", Repair.FREE_BLOCKS,
)  # fmt: skip
DOUBLY_CLAIMED = _row(
    "E0502", ERROR, "doubly claimed block", "{owner} claims blocks {first} to {last}, which something else claims too",
    _BUG, "A change of one owner destroys the data of the other.", Repair.COPY_SHARED,
)  # fmt: skip
CLAIMED_BUT_FREE = _row(
    "E0503", ERROR, "unprotected block", "blocks {first} to {last} hold data but are marked free",
    "A defect, or an old space map was written back.", "The next write may overwrite them.", Repair.MARK_USED,
)  # fmt: skip
RECORD_FIELD = _row(
    "E0504", ERROR, "wrong data record", "{what}: {reason}",
    _BUG, "These bytes of the file cannot be read.", Repair.CUT_OUT,
)  # fmt: skip
BEYOND_END = _row(
    "E0505", ERROR, "stray record", "{what} holds data behind the end of the file ({size} bytes)",
    _BUG, "Old contents may reappear when the file grows.", Repair.DROP_ITEM,
)  # fmt: skip
STORED_BLOCKS = _row(
    "E0506", ERROR, "wrong block count", "inode {inode} says it takes {value} blocks, but {counted} were counted",
    _BUG, "Wrong numbers in du; nothing is lost.", Repair.RECOUNT,
)  # fmt: skip
CONTENT_WRONG = _row(
    "E0507", ERROR, "wrong content", "inode {inode}: {reason}",
    _BUG, "The file may read as something else than was written.", Repair.DROP_ITEM,
)  # fmt: skip
MAP_PAGE_DAMAGED = _row(
    "E0508", ERROR, "damaged space map page", "space map page at block {block} is damaged: {reason}",
    _ROT, "The image cannot tell used blocks from free ones here and refuses to be mounted for writing.", Repair.REBUILD_MAP,
)  # fmt: skip
MAP_COUNT = _row(
    "E0509", ERROR, "wrong free count", "space map page at block {block}: {value} free blocks are told, {counted} were counted",
    _BUG, "Writes may fail although there is space, or the other way round.", Repair.REBUILD_MAP,
)  # fmt: skip
DATA_COUNT = _row(
    "E0510", ERROR, "wrong data count", "the volume's counters: {field} is {value}, but {counted} were counted",
    _BUG, "Wrong numbers in df and statistics; nothing is lost.", Repair.RECOUNT,
)  # fmt: skip
FREE_BLOCKS_WRONG = _row(
    "E0511", ERROR, "wrong free count", "the superblock tells {value} free blocks, the space map {counted}",
    _BUG, "Writes may fail although there is space, or the other way round.", Repair.RECOUNT,
)  # fmt: skip
SPACE_NOT_JUDGED = _row(
    "E0512", NOTE, "unjudged space map", "the space map was not compared with the files, as parts of the tree cannot be read",
    "See the damaged nodes above.", "None by itself.", Repair.REBUILD_MAP,
)  # fmt: skip
CUT_OUT = _row(
    "E0513", NOTE, "unreadable range", "{what} was cut out by an earlier repair; reading it gives an I/O error",
    "The data did not verify when the image was repaired.", "Restore the file from elsewhere.", Repair.NOTHING,
)  # fmt: skip
SPARE_MAP_DAMAGED = _row(
    "E0514", WARNING, "damaged spare space map page", "page at block {block} of the spare space map is damaged: {reason}",
    _ROT, "None while the newer superblock is good.", Repair.REBUILD_MAP,
)  # fmt: skip
MAP_NOT_KEPT = _row(
    "E0515", NOTE, "unjudged space map",
    "the image is in use, and its space map, which changes meanwhile, is too large to be kept: not compared with the files",
    "The image is very large.", "None by itself; check it when it is unmounted.", Repair.NOTHING,
)  # fmt: skip
RECORD_SIZE = _row(
    "E0517", ERROR, "wrong record size", "inode {inode} says that its records hold {value} bytes; they agree with {agreed}",
    _BUG, "The file reads cut, with zeros in it or with pieces in the wrong places.", Repair.RESIZE_RECORDS,
)  # fmt: skip
LATE_FLAG = _row(
    "E0516", ERROR, "wrong late page mark", "inode {inode} has records with late pages, but its flag says none",
    _BUG, "If nodes are lost, a repair may take older versions of such records for the current ones.", Repair.RECOUNT,
)  # fmt: skip

# ---- phase 6: string table -------------------------------------------------------------------------------------------
REFERENCE_COUNT = _row(
    "E0601", ERROR, "wrong reference count", "name {name} (id {name_id}) is counted {value} times, but {counted} entries use it",
    _BUG, "Too low: the name may vanish while entries still use it. Too high: it is never freed.", Repair.RECOUNT,
)  # fmt: skip
UNUSED_NAME = _row(
    "E0602", WARNING, "unused name", "name {name} (id {name_id}) is used by no entry",
    "A defect, or the entries stood in a node that is lost.", "None; it takes a few bytes.", Repair.DROP_NAME,
)  # fmt: skip
NAME_WRONG = _row(
    "E0603", ERROR, "impossible name", "name {name} (id {name_id}): {reason}",
    _BUG, "The kernel refuses such a name, so the file cannot be opened.", Repair.RENAME_ENTRY,
)  # fmt: skip
NAME_NUMBER = _row(
    "E0604", ERROR, "wrong next name id", "the next new name would get id {next_name_id}; the highest that exists is {name_id}",
    _BUG, "A new name would overwrite an existing one, or none can be made.", Repair.RECOUNT,
)  # fmt: skip
NAME_COUNT = _row(
    "E0605", ERROR, "wrong name count", "the volume's counters: name_count is {value}, but {counted} were counted",
    _BUG, "Wrong numbers in statistics; nothing is lost.", Repair.RECOUNT,
)  # fmt: skip

# ---- phase 7: compression integrity ----------------------------------------------------------------------------------
ALGORITHM_UNKNOWN = _row(
    "E0701", ERROR, "unknown algorithm", "{what} is compressed with algorithm {value}, which does not exist",
    _BUG, "These bytes cannot be read.", Repair.CUT_OUT,
)  # fmt: skip
DOES_NOT_DECOMPRESS = _row(
    "E0702", ERROR, "broken record", "{what} does not decompress, although its checksum is right: {reason}",
    "The data was already wrong when it was written: bad memory, or a defect.", "These bytes cannot be read.", Repair.CUT_OUT,
)  # fmt: skip
INLINE_BROKEN = _row(
    "E0703", ERROR, "broken inline item", "the data kept in the tree for inode {inode} does not decompress: {reason}",
    "The data was already wrong when it was written: bad memory, or a defect.", "The file cannot be read.", Repair.CUT_OUT,
)  # fmt: skip
FEATURE_UNANNOUNCED = _row(
    "E0704", ERROR, "unannounced feature", "the superblock does not announce {feature}, but it is used by {what}: {count}",
    _BUG, "Older software may open the image and fail to read these files.", Repair.RECOUNT,
)  # fmt: skip

# ---- phase 8: checksums ----------------------------------------------------------------------------------------------
DATA_CHECKSUM = _row(
    "E0801", ERROR, "damaged record", "{what} is damaged: checksum {found:#010x} found, {expected:#010x} expected",
    _ROT, "Reading these bytes gives an I/O error; the rest of the file is good.", Repair.CUT_OUT,
)  # fmt: skip
DATA_UNREADABLE = _row(
    "E0802", ERROR, "unreadable record", "{what} cannot be read from the device: {reason}",
    "A failing disk.", "Reading these bytes gives an I/O error; copy the image to another disk soon.", Repair.CUT_OUT,
)  # fmt: skip
COPY_CHECKSUM = _row(
    "E0803", WARNING, "damaged node copy", "the second copy at block {block} of a tree node is damaged: {reason}",
    _ROT, "None while the first copy is good.", Repair.REWRITE_COPY,
)  # fmt: skip
CHECKPOINT_COPY = _row(
    "E0804", WARNING, "damaged old node", "tree node at block {block} of the last checkpoint is damaged: {reason}",
    _ROT, "None once the journal has been replayed; until then a crash may need it.", Repair.REPLAY,
)  # fmt: skip
CHECKPOINT_COUNT = _row(
    "E0807", WARNING, "wrong old count",
    "the superblock of the last checkpoint: {field} is {value}, but {counted} are told by its tree or space map",
    _BUG, "None; the journal's replay counts anew.", Repair.REPLAY,
)  # fmt: skip
SECOND_CHECKSUM = _row(
    "E0805", WARNING, "wrong second checksum",
    "the data of {what} verify, but their second checksum is {found:#010x}, and {expected:#010x} was expected",
    _BUG, "None now; a bit that flips in these data could not be turned back.", Repair.REWRITE_CHECKSUM,
)  # fmt: skip
CUT_OUT_WHOLE = _row(
    "E0806", ERROR, "record cut out for nothing", "{what} is marked as cut out by a repair, but its data verify",
    "A defect, or a disk that could not read these data during the repair can read them again.",
    "Reading these bytes gives an I/O error, although they are there.", Repair.GIVE_BACK,
)  # fmt: skip

# ---- any phase -------------------------------------------------------------------------------------------------------
_UNFINISHED = "This phase met damage that it cannot handle ({reason}); its remaining checks were not made"
_OVERLOOKED = "Problems of this phase may have been overlooked."
_FORESEEN = "Damage of a kind that the check does not foresee, or a failing disk."
PASS_FAILED = {
    number: _row(f"E{number:02}99", ERROR, "unfinished phase", _UNFINISHED, _FORESEEN, _OVERLOOKED, Repair.BY_HAND)
    for number in range(1, 9)
}
_MORE = "further problems with the code {code}, not listed: {count}"
_MANY = "Damage to a place that many files depend on. It is as severe as the worst of the problems that it stands for."
TOO_MANY = {
    number: _row(f"E{number:02}98", ERROR, "further problem", _MORE, _MANY, "As that code's.", Repair.BY_HAND)
    for number in range(1, 9)
}


def further(phase: int, code: str, count: int, worst: Severity | None = None) -> Finding:
    """Return the finding that stands for *count* others that are not listed. *worst* of them: None, that of *code*."""
    severity = PROBLEMS[code].severity if worst is None else worst
    return replace(TOO_MANY[phase].found(where=f"phase {phase}", count=count, code=code), severity=severity)
