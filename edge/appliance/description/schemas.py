"""JSON Schemas in few words: kinds of values, and objects that have their keys and no other."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

BOOL: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TEXT: Final[Schema] = {"type": "string"}
ANY: Final[Schema] = {"type": "object"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}


def ref(name: str) -> Schema:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def words(*allowed: str) -> Schema:
    """One of these."""
    return {"type": "string", "enum": list(allowed)}


def listed(items: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """This, or null."""
    return schema | {"type": [schema["type"], "null"]}


def closed(optional: Schema | None = None, /, **required: Schema) -> Schema:
    """An object with these keys and no other."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }
