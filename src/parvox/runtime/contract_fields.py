"""Reading a contract's JSON field by field: every one of the right type, or an error that names it."""

from __future__ import annotations

import math
from typing import Any

from parvox.errors import ModelFileError

_KINDS = {
    str: "text",
    int: "whole number",
    float: "finite number",
    bool: "true or false",
    dict: "JSON object",
    list: "list",
}


def field(values: dict[str, Any], key: str, kind: type, inside: str = "") -> Any:
    """``values[key]``, which must be of `kind` (an int passes for a float, a bool never for a number)."""
    if key not in values:
        raise ModelFileError(f"contract: {inside}{key} is missing; export the model again")
    value = values[key]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not right or (isinstance(value, float) and not math.isfinite(value)):
        raise ModelFileError(f"contract: {inside}{key} is {_short(value)}; a {_KINDS[kind]} is expected")
    return value


def optional(values: dict[str, Any], key: str, kind: type, inside: str = "") -> Any:
    """``values[key]`` of `kind`, or None where it is null or was not yet written."""
    return None if values.get(key) is None else field(values, key, kind, inside)


def vector(values: dict[str, Any], key: str, inside: str = "") -> tuple[float, ...]:
    """``values[key]``, a list of finite numbers."""
    given = values.get(key)
    if not isinstance(given, list) or not all(type(x) in (int, float) and math.isfinite(x) for x in given):
        raise ModelFileError(f"contract: {inside}{key} is {_short(given)}; a list of finite numbers is expected")
    return tuple(float(x) for x in given)


def span(values: dict[str, Any], key: str, inside: str = "") -> tuple[float, float] | None:
    """``values[key]``, a lower and an upper end, or None where it is null or was not yet written."""
    if values.get(key) is None:
        return None
    ends = vector(values, key, inside)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ModelFileError(f"contract: {inside}{key} is {_short(values[key])}; a lower and an upper end are expected")
    return ends[0], ends[1]


def texts(values: dict[str, Any], key: str, inside: str = "") -> dict[str, str]:
    """``values[key]``, text by name; empty where it is null or was not yet written."""
    given = optional(values, key, dict, inside) or {}
    return {name: field(given, name, str, f"{inside}{key}.") for name in given}


def whole(digits: str) -> int:
    """For `json.loads`: whole numbers, but none so long that reading it takes a while."""
    if len(digits) > 19:
        raise ValueError("no field of a contract is that large")
    return int(digits)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
