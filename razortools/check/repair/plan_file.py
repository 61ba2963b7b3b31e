"""The plan file: the edits of all rounds as JSON, one to a line, for people to read and to thin out, and for --apply.

The head tells which image in which state the plan is for: an image that was used since, or another one, is refused.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from razortools.check.repair.edits import Edit, Round, whole_number
from razortools.check.repair.plan_place import judge_place, place
from razortools.check.repair.surveying import believed
from razortools.engine.store.device import Device
from razortools.errors import UsageError
from razortools.units import KIB

FORMAT = "razorfsck plan 1"
HEAD = f'{{\n "format": "{FORMAT}",\n'  # how every file begins that write_plan() makes
PLAN_CHARACTERS_MAX = 1 << 30  # a file that never ends is none
PLAN_ROUNDS_MAX = 32  # more than a repair makes
IDENTITY_BYTES = 256 * KIB  # both slots of the superblock lie here, whatever the block size is


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do to which image."""

    identity: str  # of the state it was made for
    uuid: str
    generation: int
    backup_block: int | None
    rounds: tuple[Round, ...]


def identity_of(device: Device) -> str:
    """Return what tells this state of the image from every other one that mounts and repairs lead to."""
    digest = hashlib.blake2b(str(device.size_bytes).encode(), digest_size=16)
    digest.update(device.read(0, min(IDENTITY_BYTES, device.size_bytes)))
    return digest.hexdigest()


def plan_for(device: Device, rounds: list[Round], backup_block: int | None) -> Plan:
    """Return the plan that does *rounds* to the image on *device*."""
    facts = believed(device, backup_block)
    uuid, generation = (facts.image.superblock.uuid.hex(), facts.image.superblock.generation) if facts else ("", 0)
    return Plan(identity_of(device), uuid, generation, backup_block, tuple(rounds))


def write_plan(plan: Plan, image: str, path: str) -> None:
    """Write *plan* for people and programs. Raises DeviceFailed, and UsageError if something else stands at *path*."""
    head: dict[str, Any] = {
        "format": FORMAT, "image": image, "uuid": plan.uuid, "generation": plan.generation, "identity": plan.identity,
        "backup_block": plan.backup_block,
        "note": "lines of the list may be deleted; --apply does the rest, checks the result, and drops it if it is worse",
    }  # fmt: skip
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    edits = [json.dumps({"round": number} | edit.as_json()) for number, one in enumerate(plan.rounds, 1) for edit in one]
    text = "\n".join(["{", *lines, ' "edits": [', ",\n".join(f"  {edit}" for edit in edits), " ]", "}", ""])
    judge_place(path, image, HEAD)
    place(path, text)


def read_plan(path: str) -> Plan:
    """Return the plan in the file at *path*. Raises UsageError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(PLAN_CHARACTERS_MAX + 1)
    except (OSError, ValueError) as failed:
        raise UsageError(f"{path}: cannot be read as a plan: {getattr(failed, 'strerror', None) or failed}") from None
    if len(text) > PLAN_CHARACTERS_MAX:
        raise UsageError(f"{path}: is no plan of a repair: it is too long")
    text = re.sub(r",\s*\]\s*\}\s*\Z", "]}", text)  # the last line may have been deleted
    try:
        return _plan_from_json(json.loads(text))
    except UsageError as wrong:
        raise UsageError(f"{path}: {wrong}") from None
    except RecursionError:
        raise UsageError(f"{path}: is no plan of a repair: it is nested too deeply") from None
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as wrong:
        raise UsageError(f"{path}: is no plan of a repair: {wrong}") from None


def _plan_from_json(told: Any) -> Plan:
    """Return the plan that *told* holds. Raises UsageError, or whatever values of the wrong type lead to."""
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise UsageError(f"is no plan of a repair ({FORMAT})")
    rounds: dict[int, list[Edit]] = {}
    for edit in told["edits"]:
        rounds.setdefault(whole_number(edit["round"]), []).append(Edit.from_json(edit))
    if len(rounds) > PLAN_ROUNDS_MAX:
        raise UsageError(f"is no plan of a repair: it has {len(rounds)} rounds, and no repair takes more than {PLAN_ROUNDS_MAX}")
    backup = told.get("backup_block")
    return Plan(
        str(told["identity"]), str(told["uuid"]), whole_number(told["generation"]),
        None if backup is None else whole_number(backup), tuple(tuple(rounds[number]) for number in sorted(rounds)),
    )  # fmt: skip


def judge_plan(plan: Plan, device: Device) -> None:
    """Raise UsageError if *plan* was not made for what *device* holds now."""
    facts = believed(device, plan.backup_block)
    uuid = facts.image.superblock.uuid.hex() if facts else ""
    if uuid != plan.uuid:
        raise UsageError(f"{device.name}: the plan is for another filesystem ({plan.uuid or 'without a superblock'})")
    if identity_of(device) != plan.identity:
        raise UsageError(f"{device.name}: was used or changed since the plan was made; make a new one with --plan")
