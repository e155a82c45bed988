"""One text for one value: JSON in the canonical form of RFC 8785 (JCS).

Keys in the order of their UTF-16 code units, no white space, strings with the fewest escapes, numbers as ECMAScript
prints them. So whoever holds the value can write the same bytes again, in any language, and hash them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from fairlayer.errors import ParameterError

__all__ = ["canonical"]

_LARGEST_INTEGER = 2**53  # beyond it, two integers share one double
_quoted = json.JSONEncoder(ensure_ascii=False).encode


def canonical(value: object) -> bytes:
    """Return the canonical JSON of a value, as UTF-8.

    Args:
        value: None, bool, int, finite float, str, or lists and mappings (with text for keys) of these.

    Raises:
        ParameterError: the value is of another type, not finite, an integer beyond 2^53, or text that is no Unicode.

    Source: RFC 8785, section 3.2.

    Example:
        >>> canonical({"b": [1.0, 1e-7, None], "a": "x"})
        b'{"a":"x","b":[1,1e-7,null]}'
    """
    try:
        return _written(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ParameterError(f"a text holds half a surrogate pair, which has no UTF-8 ({error}).") from error
    except RecursionError as error:
        raise ParameterError("a value for the trail is nested too deeply, or holds itself.") from error


def _written(value: object) -> str:
    if isinstance(value, str):
        return _quoted(str(value))
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, int):
        return _integer(int(value))
    if isinstance(value, float):
        return _number(float(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_quoted(key)}:{_written(value[key])}" for key in _sorted_keys(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    raise ParameterError(
        f"a value for the trail is of type {type(value).__name__}, which JSON does not know. "
        "Give None, bool, int, float, str, or lists and dictionaries of these."
    )


def _sorted_keys(value: Mapping[object, object]) -> list[str]:
    keys = [str(key) for key in value if isinstance(key, str)]
    if len(keys) != len(value):
        raise ParameterError(f"a dictionary for the trail has keys that are no text: {list(value)[:5]}.")
    return sorted(keys) if all(map(str.isascii, keys)) else sorted(keys, key=lambda key: key.encode("utf-16-be"))


def _integer(value: int) -> str:
    if abs(value) > _LARGEST_INTEGER:
        raise ParameterError(
            f"the integer {value} lies beyond 2^53, where JSON readers round. Give it as text: '{value}'."
        )
    return str(value)


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ParameterError(f"a number for the trail is {value}, which JSON does not know. Give a finite number.")
    text = repr(value)
    if text.endswith(".0") or "e" in text or abs(value) < 1e-3:
        return _as_ecmascript(value)
    return text


def _as_ecmascript(value: float) -> str:
    # Number::toString of ECMA-262: value = 0.d1...dk * 10^point, with the shortest digits that read back as the same
    # double. Python's repr has these digits; only where the point stands, and when an exponent is written, differ.
    if value == 0.0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    written = whole + fraction
    digits = written.lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(written) - len(digits))
    digits = digits.rstrip("0")
    return ("-" if value < 0.0 else "") + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{rest}e{point - 1:+d}"
