"""One text for one value: JSON in the canonical form of RFC 8785 (JCS).

Keys in the order of their UTF-16 code units, no white space, strings with the fewest escapes, numbers as ECMAScript
prints them. So whoever holds the value can write the same bytes again, in any language, and hash them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

from fairlayer.errors import ParameterError

__all__ = ["canonical"]

_LARGEST_INTEGER = 2**53  # beyond it, two integers share one double


def canonical(value: object) -> bytes:
    """Return the canonical JSON of a value, as UTF-8.

    Args:
        value: None, bool, int, finite float, str, or lists and mappings (with text for keys) of these.

    Raises:
        ParameterError: the value is of another type, not finite, an integer beyond 2^53, or text that is not Unicode.

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
    writer = _WRITERS.get(type(value))  # the common types first; then what derives from them
    return writer(value) if writer is not None else _derived(value)


def _derived(value: object) -> str:
    for kind, writer in _WRITERS.items():
        if isinstance(value, kind):
            return writer(value)
    if isinstance(value, Mapping):
        return _object(value)
    raise ParameterError(
        f"a value for the trail is of type {type(value).__name__}, which JSON does not know. "
        "Give None, bool, int, float, str, or lists and dictionaries of these."
    )


def _object(value: Mapping[str, object]) -> str:
    try:
        keys = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=_utf16)
    except TypeError as error:
        raise ParameterError(f"a dictionary for the trail has keys that are not text: {list(value)[:5]}.") from error
    return "{" + ",".join([f"{encode_basestring(key)}:{_written(value[key])}" for key in keys]) + "}"


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")


def _array(value: Sequence[object]) -> str:
    return "[" + ",".join([_written(one) for one in value]) + "]"


def _integer(value: int) -> str:
    if abs(value) > _LARGEST_INTEGER:
        raise ParameterError(
            f"the integer {value} lies beyond 2^53, where JSON readers round. Give it as text: '{value}'."
        )
    return int.__repr__(value)


def _number(value: float) -> str:
    if 1e-3 <= abs(value) < 1e15 and not value.is_integer():
        return float.__repr__(value)  # here both write the same
    if not math.isfinite(value):
        raise ParameterError(f"a number for the trail is {value}, which JSON does not know. Give a finite number.")
    return _as_ecmascript(value)


def _as_ecmascript(value: float) -> str:
    # Number::toString of ECMA-262: value = 0.d1...dk * 10^point, with the shortest digits that read back as the same
    # double. Python's repr has these digits; only where the point stands, and when an exponent is written, differ.
    if value == 0.0:
        return "0"
    mantissa, _, exponent = float.__repr__(abs(value)).partition("e")
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


_WRITERS: dict[type, Callable[[Any], str]] = {
    str: encode_basestring,
    float: _number,
    bool: lambda value: "true" if value else "false",
    int: _integer,
    type(None): lambda _: "null",
    dict: _object,
    list: _array,
    tuple: _array,
}
