"""What --json prints, against the schemas in docs/schemas: a key that no schema knows is a fault of one of the two."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"


@cache
def schema(command: str) -> dict[str, Any]:
    """Return the schema of a command's documents."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{command}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(found)
    return found


@cache
def _registry(command: str) -> Registry[Any]:
    return Registry().with_resource(command, Resource.from_contents(schema(command))).crawl()


@cache
def _validator(command: str, part: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"{command}#/$defs/{part}" if part else command}, registry=_registry(command))


def valid(command: str, document: Any, part: str = "") -> Any:
    """Return *document* if it is what the schema of *command* says; *part*: what stands under that name in it."""
    _validator(command, part).validate(document)
    return document
