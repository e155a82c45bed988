"""Old, foreign and misspelt names of arguments, answered with the name that is meant.

Every public package ends with `explain_public(__name__)`: its functions, and the constructors and methods of its
classes, then answer a keyword that they do not have with `KeywordError`, and the package a name that it does not have
(`fairlayer._names`). Type checkers read the source, which stays as it is written.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from enum import Enum
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from fairlayer._names import answering_names
from fairlayer.errors import KeywordError

__all__ = ["explain_keywords", "explain_public", "explained", "ours_for", "refuse_foreign_keywords"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_ANSWERING: WeakSet[type] = WeakSet()
_MARK = "__answers_keywords__"
_OWNERS = {"self", "cls", "_cls"}
_BY_POSITION = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
_MANY = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}

# Our name -> what other libraries, and older versions, call it.
FOREIGN = {
    "y": ("labels", "label", "target", "targets", "y_true"),
    "tolerance": ("fairness_tolerance", "eps", "epsilon", "slack", "tol", "difference_bound", "max_gap"),
    "sensitive_features": (
        "groups",
        "group",
        "sensitive",
        "protected",
        "sensitive_feature",
        "sensitive_attribute",
        "sensitive_attributes",
        "protected_attribute",
        "protected_attributes",
        "A",
    ),
    "on": ("feature", "features", "attribute", "group", "groups", "sensitive_features", "sensitive_feature"),
    "sample_weight": ("weights", "weight", "sample_weights"),
    "label_probabilities": ("label_probs", "y_prob", "soft_labels"),
    "protected_attr_idx": ("sensitive_idx", "protected_idx", "protected_attr_index"),
    "bounds": ("bound", "limits", "clip", "prediction_bounds"),
    "backbone": ("custom_network", "network", "net", "base_model"),
    "constraints": ("constraint", "fairness_metric", "fairness_metrics", "fairness_criterion"),
    "ratio": ("ratio_bound", "min_ratio"),
    "memory": ("half_life",),
    "in_features": ("input_dim", "inputs", "in_dim"),
    "hidden": ("hidden_dims", "hidden_sizes", "layers"),
    "out_features": ("output_dim", "outputs", "out_dim"),
    "hide_features": ("exclude_protected_from_backbone", "drop_sensitive", "exclude_sensitive", "hide_sensitive"),
}


# Arguments of the projection that not every entrance serves, and what to say there.
ELSEWHERE = dict.fromkeys(
    ("geometry", "from_logits"),
    "; it serves the euclidean geometry on a box only, and other geometries are for project, FairProjection and "
    "FairModel",
)

# Arguments that are gone, and what to say of them.
GONE = {
    "non_blocking": "; it is gone: the step of a stream takes scores of any device without it",
    "eta_0": "; there is no step size here: the policy of the stream says how it corrects",
}

# Arguments that describe a network, where one is given as the backbone.
OF_A_NETWORK = ("input_dim", "hidden_dims", "output_dim", "activation")


def ours_for(name: str, known: Collection[str]) -> str | None:
    """Return the known name that a foreign one stands for; None where it stands for none of them.

    Example:
        >>> ours_for("labels", ("x", "y")), ours_for("labels", ("x",))
        ('y', None)
    """
    return next((ours for ours, theirs in FOREIGN.items() if name in theirs and ours in known), None)


def refuse_foreign_keywords(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise where names are given that are not known, and say which known ones they stand for.

    Raises:
        KeywordError: a name is not known.

    Example:
        >>> refuse_foreign_keywords("project", ["labels"], ("scores", "y"))
        Traceback (most recent call last):
        fairlayer.errors.KeywordError: project has no argument 'labels'; here it is called 'y'. Its arguments are: ...
    """
    answers = [f"no argument {name!r}{_answer(name, known)}" for name in given if name not in known]
    if answers:
        found = ", and ".join(answers)
        end = "" if found.endswith("?") else "."
        raise KeywordError(f"{where} has {found}{end} Its arguments are: {', '.join(known)}.")


def explained(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function answer a keyword that it does not have with `KeywordError`; its signature stays as it is.

    Example:
        >>> @explained
        ... def add(left, right):
        ...     return left + right
        >>> try:
        ...     add(1, rihgt=2)
        ... except KeywordError as error:
        ...     print(error)
        add has no argument 'rihgt'; did you mean 'right'? Its arguments are: left, right.
    """

    @wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            explain_keywords(function, kwargs, error)
            _note_positions(function, args, error)
            raise

    called.__dict__[_MARK] = True
    return called


def explain_public(package: str, *, inner: Collection[str] = ()) -> None:
    """Let the public functions and classes of a package answer a keyword that they do not have with `KeywordError`.

    A class and its bases are changed in place, and a function in the module that defines it too, so that pickle finds
    under its name what it was given. Exceptions and enumerations are left as they are.

    Args:
        package: the name of a module with `__all__`.
        inner: classes whose methods, and methods "Class.name", that a projection or a stream calls in every batch: they
            stay as they are, since answering takes a tenth of a microsecond of each call.
    """
    module = sys.modules[package]
    for name in module.__all__:
        public = getattr(module, name)
        if inspect.isclass(public):
            _explain_class(public, inner)
        elif inspect.isfunction(inspect.unwrap(public)) and _MARK not in public.__dict__:
            answering = explained(public)
            setattr(sys.modules[public.__module__], public.__name__, answering)
            setattr(module, name, answering)
    module.__dict__.setdefault("__getattr__", answering_names(module))


def _explain_class(public: type, inner: Collection[str]) -> None:
    if public in _ANSWERING or issubclass(public, BaseException | Enum):
        return
    _ANSWERING.add(public)
    methods = public.__name__ not in inner
    made: dict[Any, Any] = {}  # a method under two names stays one
    constructor = inspect.getattr_static(public, "__init__")  # also where a library outside wrote it
    _explain_attribute(public, "__init__", constructor, made)
    for owner in public.__mro__:
        if owner.__module__.partition(".")[0] != __name__.partition(".")[0]:
            continue
        for name, found in list(vars(owner).items()):
            constructs = name == "__init__" or (name == "__new__" and issubclass(owner, tuple))
            called = methods and (name == "__call__" or not name.startswith("_"))
            if constructs or (called and f"{public.__name__}.{name}" not in inner):
                _explain_attribute(owner, name, found, made)


def _explain_attribute(owner: type, name: str, found: Any, made: dict[Any, Any]) -> None:
    bound = isinstance(found, classmethod | staticmethod)
    function = found.__func__ if bound else found
    if inspect.isfunction(function) and _MARK not in function.__dict__:
        answering = made[function] = made.get(function) or explained(function)
        setattr(owner, name, type(found)(answering) if bound else answering)


def explain_keywords(function: Callable[..., object], given: Collection[str], error: TypeError) -> None:
    """Raise `KeywordError` where an error of a call came of a keyword that the function does not have.

    Example:
        >>> explain_keywords(explained, (), TypeError("something else"))
    """
    if not given or isinstance(error, KeywordError):
        return
    where = function.__qualname__.removesuffix(".__init__").removesuffix(".__new__")
    parameters = inspect.signature(function).parameters.values()
    known = tuple(each.name for each in parameters if each.kind not in _MANY and each.name not in _OWNERS)
    if any(each.kind is each.VAR_KEYWORD for each in parameters):  # what takes the others may have its own names
        refused = [name for name in given if f"'{name}'" in str(error) and ours_for(name, known)]
        refuse_foreign_keywords(f"{where}, or what it hands its keywords to,", refused, known)
    else:
        refuse_foreign_keywords(where, given, known)


def _note_positions(function: Callable[..., object], args: tuple[Any, ...], error: TypeError) -> None:
    """Add to the error of a call with too many positions which arguments go by keyword."""
    parameters = inspect.signature(function).parameters.values()
    by_position = [each for each in parameters if each.kind in _BY_POSITION]
    by_keyword = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    if by_keyword and len(args) > len(by_position) and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        error.add_note(f"These arguments go by keyword: {', '.join(f'{name}=' for name in by_keyword)}.")


def _answer(name: str, known: Collection[str]) -> str:
    ours = ours_for(name, known)
    if ours is not None:
        return f"; here it is called {ours!r}"
    if name in OF_A_NETWORK and "backbone" in known:
        return "; make the network first, as by fairlayer.mlp(inputs, hidden=(64, 32)), and give it as the backbone"
    if name in ELSEWHERE or name in GONE:
        return {**ELSEWHERE, **GONE}[name]
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
