"""Constraints written as text: `demographic_parity(sex, 0.02)`, `equalized_odds(sex+race, 0.05)`."""

from __future__ import annotations

import ast
import inspect
import re
from difflib import get_close_matches
from typing import Any

import fairlayer.constraints
from fairlayer.constraints import Constraint
from fairlayer.errors import ConstraintDefinitionError

__all__ = ["known_constraints", "parse_constraint", "write_constraint"]


def known_constraints() -> dict[str, type[Constraint]]:
    """Return every constraint that can be written as text, by its name in snake_case: those that name their limit.

    Example:
        >>> "demographic_parity" in known_constraints()
        True
    """
    found = [getattr(fairlayer.constraints, name) for name in fairlayer.constraints.__all__]
    classes = [c for c in found if isinstance(c, type) and issubclass(c, Constraint)]
    return {_snake_case(c.__name__): c for c in classes if c.limit_argument is not None}


def parse_constraint(text: str) -> Constraint:
    """Read one constraint. The text is parsed, never evaluated.

    The first argument is a feature name, or several joined with `+` for their intersections; the second is
    the limit (`tolerance`, `ratio`, `cap` or `floor`); further arguments are named, classes joined with `+` as in
    `classes=0+2`. Names with other characters than letters, digits and `_` go in quotes.

    Raises:
        ConstraintDefinitionError: the text is no such call, or its values are refused by the constraint.

    Example:
        >>> parse_constraint("demographic_parity(sex+race, 0.05)")
        DemographicParity(('sex', 'race'), tolerance=0.05)
        >>> parse_constraint("conditional_parity(sex, 0.02, given=education)").given
        ('education',)
    """
    name, call = _call(text)
    kind = known_constraints()[name]
    if len(call.args) > 2:
        raise _refusal(text, "more than two arguments without a name")
    named = {keyword.arg or "**": keyword.value for keyword in call.keywords}
    unnamed = dict(zip(("on", str(kind.limit_argument)), call.args, strict=False))
    if repeated := unnamed.keys() & named.keys():
        raise _refusal(text, f"'{min(repeated)}' twice")
    return _build(kind, {name: _argument(name, node, text) for name, node in (unnamed | named).items()}, text)


def write_constraint(constraint: Constraint) -> str:
    """Return the text that `parse_constraint` reads as this constraint.

    Raises:
        ConstraintDefinitionError: no text says it: its class is not of this package, or it holds more than names and
            numbers.

    Example:
        >>> write_constraint(parse_constraint("demographic_parity(sex+race, 0.05)"))
        "demographic_parity(on='sex'+'race', tolerance=0.05)"
    """
    kind = type(constraint)
    name = _snake_case(kind.__name__)
    if known_constraints().get(name) is not kind:
        raise ConstraintDefinitionError(f"{constraint.name} cannot be written as text: only the known constraints can.")
    values = [(each, getattr(constraint, each.name)) for each in inspect.signature(kind).parameters.values()]
    said = [f"{each.name}={_written(constraint, value)}" for each, value in values if value is not each.default]
    return f"{name}({', '.join(said)})"


def _written(constraint: Constraint, value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(part, str | int) for part in value):
        return "+".join(map(repr, value))
    if isinstance(value, bool | int):
        return repr(value)
    if isinstance(value, float):
        return repr(float(value))  # not numpy's way to write its own
    raise ConstraintDefinitionError(
        f"{constraint.name} cannot be written as text, for it holds a {type(value).__name__}: names and numbers can be."
    )


def _call(text: str) -> tuple[str, ast.Call]:
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise _refusal(text, f"text that cannot be read ({error.msg})") from error
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise _refusal(text, "something else than name(arguments)")
    if node.func.id not in known_constraints():
        near = get_close_matches(node.func.id, known_constraints(), n=1)
        raise _refusal(text, f"the unknown name '{node.func.id}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
    return node.func.id, node


def _build(kind: type[Constraint], arguments: dict[str, Any], text: str) -> Constraint:
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        raise _refusal(text, f"arguments that do not fit ({error})", kind) from error
    return kind(**arguments)


def _argument(name: str, node: ast.expr, text: str) -> Any:
    if name in {"on", "given"}:
        return _joined(node, text, str, "a feature name was expected")
    if name == "classes":
        return _joined(node, text, int, "a class, a whole number, was expected")
    return _value(node, text)


def _value(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Constant(value=str() | int() | float() | bool() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    raise _refusal(text, f"'{ast.unparse(node)}', which is neither a name, a number, nor names joined with +")


def _joined(node: ast.expr, text: str, kind: type, expected: str) -> tuple[Any, ...]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (*_joined(node.left, text, kind, expected), *_joined(node.right, text, kind, expected))
    value = _value(node, text)
    if type(value) is not kind:
        raise _refusal(text, f"'{ast.unparse(node)}' where {expected}")
    return (value,)


def _refusal(text: str, found: str, kind: type[Constraint] | None = None) -> ConstraintDefinitionError:
    form = "demographic_parity(sex, 0.02)"
    if kind is not None:
        parameters = inspect.signature(kind).parameters.values()
        needed = ", ".join(f"{each.name}=..." for each in parameters if each.default is each.empty)
        optional = ", ".join(f"{each.name}=..." for each in parameters if each.default is not each.empty)
        form = f"{_snake_case(kind.__name__)}({needed}), where {optional} may follow"
    return ConstraintDefinitionError(
        f"a constraint was expected in the text '{text}', but it holds {found}. Write for example "
        f"{form}, sex+race for intersections, and quotes around a name with blanks or signs ('marital status'). "
        f"Known: {', '.join(known_constraints())}."
    )


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
