"""The projection as one operator, for `torch.compile` and `torch.export`, which cannot look into a solver.

A graph holds the call `fairlayer::project(scores, columns, y, label_probabilities, sample_weight, which)`. While a
program runs in this process, `which` names the layer itself, so that its tolerance and its categories are those of the
moment. An exported program has to live without the layer: `which` is then its text, constraints and options and
categories, and the process that loads the program needs `import fairlayer` and nothing else.

Beside the projected scores it returns what holds them: limits, faces and prices, as numbers in a tensor of one length
(see `_state_of`). The backward starts from those, so that it solves nothing, and limits that changed in between do not
reach it.

The operator never meets a transform of torch.func, for which `fairlayer.projection.autograd` has the form with
tangents.
"""

from __future__ import annotations

import json
import math
import uuid
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import with_graph
from fairlayer.constraints.text import parse_constraint, write_constraint
from fairlayer.edge import feature_names
from fairlayer.errors import ConstraintDefinitionError, TracingError
from fairlayer.groups import Vocabulary
from fairlayer.projection.exact import ExactProblem, HeldSolution
from fairlayer.projection.options import Options
from fairlayer.projection.plan import Plan
from fairlayer.projection.result import Projection

if TYPE_CHECKING:
    from fairlayer.projection.layer import FairProjection

__all__ = ["NOT_IN_A_GRAPH", "as_text", "like", "new_handle", "project_in_graph"]

NOT_IN_A_GRAPH = (
    "fairlayer: this call cannot be part of one graph. Only one with features, labels and weights given as tensors, "
    "with limits and bounds that are numbers, and with constraints that do the same in training and evaluation can. "
    "Use torch.compile without fullgraph=True, or compile model.amortised(loader) or model.without_layer()."
)
_INSTEAD = (
    "Pass every feature as a tensor of numbers or codes; or export model.amortised(loader) or model.without_layer(), "
    "which are plain modules."
)
_layers: weakref.WeakValueDictionary[str, FairProjection] = weakref.WeakValueDictionary()


def new_handle(layer: FairProjection) -> str:
    """Return the name under which graphs of this process find a layer."""
    handle = f"layer {uuid.uuid4().hex}"  # which no other process knows
    _layers[handle] = layer
    return handle


def as_text(layer: FairProjection) -> str:
    """Return all that a layer's answer depends on.

    Raises:
        TracingError: its constraints or options have no text, or it knows no categories yet.
    """
    plan, options = layer.plan, layer.options
    names = feature_names(plan.constraints)
    unknown = [name for name in names if name not in layer.vocabulary.categories]
    if unknown:
        raise TracingError(
            f"an exported program needs the categories of {unknown[0]!r}, but the layer has not met any. Call "
            f"fit_categories({{{unknown[0]!r}: ...}}) on data that has every group, and export then."
        )
    plain = {
        "margin": options.margin,
        "geometry": options.geometry,
        "from_logits": options.from_logits,
        "on_empty": options.on_empty,
        "on_infeasible": options.on_infeasible,
    }
    try:
        written = [write_constraint(constraint) for constraint in plan.constraints]
        text = json.dumps(
            {
                "constraints": written,
                "options": {**plain, "bounds": options.bounds},
                "categories": {name: list(layer.vocabulary.categories[name]) for name in names},
            }
        )
    except (ConstraintDefinitionError, TypeError) as error:
        raise TracingError(
            f"an exported program holds its constraints and options as text, but these have none: {error}. {_INSTEAD}"
        ) from error
    if options.backend != "exact" or options.ranks is not None:
        raise TracingError(f"a program is exported with backend='exact' and process_group=None only. {_INSTEAD}")
    return text


def project_in_graph(  # noqa: PLR0917 - the inputs of a call
    layer: FairProjection, scores: Tensor, features: Any, y: Any, label_probabilities: Any, sample_weight: Any
) -> Tensor | None:
    """Return the projection as a node of the graph that is being recorded; None where only a graph break helps.

    Raises:
        TracingError: it is being exported, and a feature, or a label, is not a tensor, or the layer has no text.
    """
    exporting = _is_exporting()
    if layer.anchors or layer.running is not None:
        if not exporting:
            return None
        raise TracingError(
            f"{layer.constraints[0].name} reads labels, for which training and evaluation differ, and no exported "
            f"program can hold both. {_INSTEAD}"
        )
    if not layer.plain_box or any(isinstance(each.limit_value(), Tensor) for each in layer.constraints):
        if not exporting:
            return None  # a gradient of a limit or a bound is not an output of the operator
        raise TracingError(f"limits and bounds of an exported program are numbers, but one is a tensor. {_INSTEAD}")
    columns = _columns(features, layer.feature_names)
    others = (y, label_probabilities, sample_weight)
    if columns is None or not all(each is None or isinstance(each, Tensor) for each in others):
        if not exporting:
            return None
        raise TracingError(
            f"an exported program takes tensors, but {_named(features)} was given as sensitive_features (or labels or "
            f"weights that are not tensors). {_INSTEAD}"
        )
    which = _text_of(layer.handle) if exporting else layer.handle
    answer: Tensor = torch.ops.fairlayer.project(scores, columns, *others, which)[0]
    return answer


def _text_of(handle: str) -> str:
    """Return the text of a layer; Dynamo, which an export with strict=True runs in, does not look inside."""
    return as_text(_layers[handle])


def _is_exporting() -> bool:
    """Return whether a program is being exported; the Dynamo of torch 2.8 and 2.10 says so of all that it compiles."""
    return torch.compiler.is_exporting()


# What `torch.compiler.assume_constant_result` sets; reaching for that decorator imports Dynamo, which takes long.
_text_of._dynamo_marked_constant = True  # type: ignore[attr-defined]
_is_exporting._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _columns(features: Any, names: Sequence[str]) -> list[Tensor] | None:
    if isinstance(features, Tensor):
        if features.ndim == 1 and len(names) == 1:
            return [features]
        return list(features.unbind(1)) if features.ndim == 2 and features.shape[1] == len(names) else None
    if not isinstance(features, Mapping) or any(name not in features for name in names):
        return None
    columns = [features[name] for name in names]
    return columns if all(isinstance(column, Tensor) for column in columns) else None


def _named(features: Any) -> str:
    if isinstance(features, Mapping):
        return "a dict with " + ", ".join(f"{name!r}: {type(each).__name__}" for name, each in features.items())
    return type(features).__name__


class _Call(NamedTuple):
    """The inputs of the operator."""

    columns: list[Tensor]
    y: Tensor | None
    label_probabilities: Tensor | None
    sample_weight: Tensor | None
    which: str

    def plan(self) -> tuple[Plan, Vocabulary, dict[str, Tensor]]:
        """Return what they are projected by, and the features by their names."""
        layer = _layers.get(self.which)
        if layer is not None:
            plan, words, names = layer.plan, layer.known(), layer.feature_names
        else:
            plan, words, names = _read(self.which)
        return plan, words, dict(zip(names, self.columns, strict=True))

    @property
    def others(self) -> dict[str, Any]:
        """What else a projection takes, by name."""
        return {
            "y": self.y,
            "label_probabilities": self.label_probabilities,
            "sample_weight": self.sample_weight,
        }


@lru_cache(maxsize=64)
def _read(text: str) -> tuple[Plan, Vocabulary, tuple[str, ...]]:
    try:
        stated = json.loads(text)
    except json.JSONDecodeError as error:
        raise TracingError(
            "a graph asks for a layer that is not in this process, because it was deleted. Compile the model again, or "
            "export it: an exported program holds the layer as text."
        ) from error
    options = stated["options"]
    bounds = options["bounds"]
    plan = Plan(
        [parse_constraint(each) for each in stated["constraints"]],
        Options(**{**options, "bounds": tuple(bounds) if isinstance(bounds, list) else bounds}),
    )
    categories = {name: tuple(each) for name, each in stated["categories"].items()}
    return plan, Vocabulary(categories, open=False), tuple(categories)


_FACE = 4  # numbers of a face: block, first, second, price
_STATE = 8192  # numbers of a state, whatever the batch; one with more faces keeps its limits alone


def _state_of(plan: Plan, result: Projection) -> Tensor:
    """Return what holds a result: limits of the constraints, then of each problem its widening and its faces."""
    limits = [float("nan") if limit is None else limit for limit in _limits(plan)]
    numbers, state = [*limits], torch.zeros(_STATE, dtype=torch.float64)
    for column in result.columns:
        assert isinstance(column, ExactProblem)
        found = HeldSolution.of(column)
        numbers += [found.widening, float(len(found.faces))]
        for key, price in zip(found.faces, found.multipliers.tolist(), strict=True):
            numbers += [*map(float, key), price]
    if len(numbers) > _STATE - 1:
        numbers = limits
    state[0] = float(len(numbers))
    state[1 : len(numbers) + 1] = torch.tensor(numbers, dtype=torch.float64)
    return state


def _limits(plan: Plan) -> list[float | None]:
    given = (constraint.limit_value() for constraint in plan.constraints)
    return [None if limit is None else float(limit) for limit in given]


def _plan_of(plan: Plan, state: Tensor) -> tuple[Plan, list[HeldSolution]]:
    """Return the plan at the limits of a state, and what held each problem; nothing where the state had no room."""
    numbers: list[float] = state[1 : int(state[0]) + 1].tolist()
    limits = [None if math.isnan(limit) else limit for limit in numbers[: len(plan.constraints)]]
    found, at = [], len(limits)
    while at < len(numbers):
        widening, count = numbers[at], int(numbers[at + 1])
        rows = np.array(numbers[at + 2 : at + 2 + count * _FACE]).reshape(count, _FACE)
        keys = tuple((int(block), int(first), int(second)) for block, first, second in rows[:, :3].tolist())
        found.append(HeldSolution(keys, rows[:, 3], 0, widening))
        at += 2 + count * _FACE
    return plan.at_limits(limits), found


# Stated, not inferred: torch up to 2.6 cannot read `list[Tensor]`.
_INPUTS = "Tensor scores, Tensor[] columns, Tensor? y, Tensor? label_probabilities, Tensor? sample_weight, str which"


@torch.library.custom_op("fairlayer::project", mutates_args=(), schema=f"({_INPUTS}) -> (Tensor, Tensor)")
def _project(  # noqa: PLR0917
    scores: Tensor,
    columns: list[Tensor],
    y: Tensor | None,
    label_probabilities: Tensor | None,
    sample_weight: Tensor | None,
    which: str,
) -> tuple[Tensor, Tensor]:
    """Return the projected scores, and what holds them."""
    call = _Call(columns, y, label_probabilities, sample_weight, which)
    plan, words, features = call.plan()
    result = plan.run(scores.detach(), features, vocabulary=words, **call.others)
    layer = _layers.get(which)
    if layer is not None:
        layer.learn(result)
    return result.value.clone(memory_format=torch.contiguous_format), _state_of(plan, result)


@_project.register_fake
def _(scores: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
    return like(scores), torch.empty(_STATE, dtype=torch.float64, device="cpu")


@torch.library.custom_op(
    "fairlayer::project_adjoint", mutates_args=(), schema=f"(Tensor upstream, Tensor state, {_INPUTS}) -> Tensor"
)
def _adjoint(  # noqa: PLR0917
    upstream: Tensor,
    state: Tensor,
    scores: Tensor,
    columns: list[Tensor],
    y: Tensor | None,
    label_probabilities: Tensor | None,
    sample_weight: Tensor | None,
    which: str,
) -> Tensor:
    """Return the gradient of the scores for an upstream of the shape of the projected ones, at what held them."""
    call = _Call(columns, y, label_probabilities, sample_weight, which)
    plan, words, features = call.plan()
    then, found = _plan_of(plan, state)
    with with_graph():
        followed = scores.detach().requires_grad_()
        if found:
            result = then.resume(followed, features, words, found, **call.others)
        else:
            result = then.run(followed, features, vocabulary=words, **call.others)
        (gradient,) = torch.autograd.grad(result.value, followed, upstream.detach())
    return gradient.clone(memory_format=torch.contiguous_format)


@_adjoint.register_fake
def _(upstream: Tensor, state: Tensor, scores: Tensor, *inputs: Any) -> Tensor:
    return torch.empty(scores.shape, dtype=scores.dtype, device=scores.device)


def like(scores: Tensor) -> Tensor:
    """Return an empty tensor of the shape, dtype and device of what is returned for the scores."""
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return torch.empty(scores.shape, dtype=dtype, device=scores.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    scores, columns, y, label_probabilities, sample_weight, ctx.which = inputs
    ctx.columns = len(columns)
    ctx.given = [each is not None for each in (y, label_probabilities, sample_weight)]
    others = [each for each in (y, label_probabilities, sample_weight) if each is not None]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], scores, *columns, *others)


def _backward(ctx: Any, upstream: Tensor, of_state: Any) -> tuple[Any, ...]:
    state, scores, *rest = ctx.saved_tensors
    columns, others = rest[: ctx.columns], iter(rest[ctx.columns :])
    optional = [next(others) if given else None for given in ctx.given]
    gradient = torch.ops.fairlayer.project_adjoint(upstream, state, scores, columns, *optional, ctx.which)
    return gradient, [None] * ctx.columns, None, None, None, None


_project.register_autograd(_backward, setup_context=_keep)
