"""From the bytes of a request to JSON, and from JSON to a model (``requests.py``); whatever is wrong is one 400."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edge.appliance.problems import invalid

DEPTH = 64
"""How deep JSON may be nested; beyond, walking it would exhaust the stack somewhere."""

B = TypeVar("B", bound=BaseModel)


def parse(model: type[B], body: bytes) -> B:
    """The body as a model; an empty body is an empty object. Raises `ApiError` (invalid_request)."""
    return validated(model, parse_object(body))


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as an object; an empty body is an empty one. Raises `ApiError` (invalid_request)."""
    document = read_json(body or b"{}")
    if not isinstance(document, dict):
        raise invalid("The body must be a JSON object.")
    return document


def validated(model: type[B], document: dict[str, Any]) -> B:
    """An object as a model. Raises `ApiError` (invalid_request)."""
    try:
        return model.model_validate(document)
    except ValidationError as e:
        raise invalid(_first(e)) from None


def read_json(text: bytes | str) -> Any:
    """JSON as RFC 8259 has it: no NaN, no infinity, nested at most `DEPTH` deep, and no key twice, because
    readers do not agree on which of both counts.

    Raises `ApiError` (invalid_request).
    """
    try:
        if isinstance(text, bytes):
            # json.loads would also guess UTF-16 and UTF-32.
            text = text.decode("utf-8")
        document = json.loads(
            text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_once
        )
    except RecursionError:
        raise invalid(f"The JSON is nested more than {DEPTH} deep.") from None
    except _Twice as e:
        raise invalid(f"The key {e.key[:100]!r} is there twice in one object.") from None
    except ValueError:
        raise invalid("The body is not JSON in UTF-8.") from None
    if _deeper_than(document, DEPTH):
        raise invalid(f"The JSON is nested more than {DEPTH} deep.")
    return document


class _Twice(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _Twice(counts.most_common(1)[0][0])
    return found


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("too large a number")
    return number


def _deeper_than(document: Any, depth: int) -> bool:
    layer = [document]
    for _ in range(depth):
        inner = [list(x.values()) if isinstance(x, dict) else x for x in layer if _nested(x)]
        if not inner:
            return False
        layer = [child for children in inner for child in children]
    return any(map(_nested, layer))


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))[:200]
    # What our own validators say needs no introduction by pydantic.
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        text = "there is no such setting"
    return f"{where + ': ' if where else ''}{text}"
