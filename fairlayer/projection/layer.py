"""The projection as a layer, which keeps the categories and the latest result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack
from warnings import warn

import torch
from torch import Tensor, nn

from fairlayer._arrays import holds_no_numbers
from fairlayer._typing import called_like
from fairlayer.constraints import Constraint
from fairlayer.edge import Stated, feature_names, read_per_sample
from fairlayer.errors import FairlayerWarning
from fairlayer.groups import Vocabulary
from fairlayer.projection.anchor import check_anchor
from fairlayer.projection.device import UnreadOnDevice
from fairlayer.projection.labelled import anchors, held_in_training, running_scores, running_shifts_of
from fairlayer.projection.lean import Unread
from fairlayer.projection.options import Options, ProjectionOptions, options_of
from fairlayer.projection.plan import Plan
from fairlayer.projection.result import Projection
from fairlayer.projection.traced import NOT_IN_A_GRAPH, like, new_handle, project_in_graph
from fairlayer.tensor_state import ROOM_OF_WORDS, check_states, read_tensor, refuse_foreign, to_tensor
from fairlayer.tracing import refuse_tracing

__all__ = ["FairProjection"]


class FairProjection(nn.Module):
    """The projection as a layer, for use inside any module.

    Args:
        constraints: what must hold for the mean predictions of each batch.
        anchor: in training mode, with labels given to MeanResidualParity or GroupCalibration: share of a pull that
            keeps the raw scores at the level of the emitted ones, see `docs/labels-at-inference.md`; 0 for the exact
            derivative alone.
        options: `bounds`, `margin`, `geometry`, `from_logits`, `on_empty`, `on_infeasible`, `backend` and
            `process_group`, as for `project`.

    The categories of the sensitive features are learnt by `fit_categories`, or from the batches seen in training
    mode (in evaluation mode, from the first batch); they travel in the `state_dict`.

    Example:
        >>> import torch, fairlayer as fl
        >>> layer = fl.FairProjection([fl.DemographicParity("sex", tolerance=0.0)])
        >>> layer(torch.tensor([1.0, 3.0]), sensitive_features={"sex": ["F", "M"]})
        tensor([2., 2.])
    """

    def __init__(self, constraints: Stated, *, anchor: float = 1.0, **options: Unpack[ProjectionOptions]) -> None:
        super().__init__()
        self.plan = Plan(constraints, options_of("FairProjection", options, ("anchor",)))
        self.anchor, self.anchors = check_anchor(anchor), anchors(self.constraints)
        self.running = running_shifts_of(self.constraints, self.options)
        self.vocabulary = Vocabulary()
        self._last: Projection | Unread | UnreadOnDevice | None = None
        self.feature_names = tuple(feature_names(self.plan.constraints))
        self.plain_box = self.options.on_simplex or self.options.fixed_box is not None
        self.handle = new_handle(self)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What must hold."""
        return self.plan.constraints

    @property
    def options(self) -> Options:
        """The options, checked."""
        return self.plan.options

    @property
    def last(self) -> Projection | None:
        """The whole result of the latest forward, detached from the graph.

        It keeps the batch of that forward: the scores, the columns of the features that were read, and the
        predictions.

        Raises:
            ChangedBatchError: those tensors were changed in place before the result was first read.
        """
        if isinstance(self._last, Unread | UnreadOnDevice):
            self._remember(self._last.read())
        return self._last  # type: ignore[return-value]

    @contextmanager
    def relaxed(self) -> Iterator[None]:
        """Widen limits that nothing meets, instead of raising, while the context lasts."""
        before = self.plan
        self.plan = Plan(before.constraints, replace(before.options, on_infeasible="relax"))
        try:
            yield
        finally:
            self.plan = before

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the features, and close the vocabulary: an unseen category is an error.

        With a process group, every process must call it; all learn the categories of all.
        """
        names, ranks = feature_names(self.constraints), self.options.ranks
        if ranks is None:
            self.vocabulary = self.vocabulary.learn(sensitive_features, names)
            return
        with ranks.together():
            here = self.vocabulary.learn(sensitive_features, names).categories
            everywhere = ranks.objects(dict(here), "categories")
        words = self.vocabulary
        for name in dict.fromkeys(name for there in everywhere for name in there):
            words = words.united(name, [there.get(name, ()) for there in everywhere])
        self.vocabulary = words.closed()

    def forward(
        self,
        scores: Tensor,
        *,
        sensitive_features: Any = None,
        y: Any = None,
        label_probabilities: Any = None,
        sample_weight: Any = None,
    ) -> Tensor:
        """Return the projected scores; `last` then holds the whole result, detached from the graph."""
        if torch.compiler.is_compiling():
            recorded = project_in_graph(self, scores, sensitive_features, y, label_probabilities, sample_weight)
            if recorded is not None:
                return recorded
            torch._dynamo.graph_break(msg=NOT_IN_A_GRAPH)
        if sample_weight is None:
            lean = self.plan.lean
            found: Any = None if lean is None else lean(scores, sensitive_features, self.vocabulary)
            if found is None:
                found = self._on_device(scores, sensitive_features, y, label_probabilities)
            elif y is not None or label_probabilities is not None:
                _check_lengths(scores, y, label_probabilities)
            if found is not None:
                value: Tensor
                value, self.__dict__["_last"] = found
                return value
        if isinstance(scores, Tensor) and holds_no_numbers(scores):
            return like(scores)
        if not torch.compiler.is_compiling():
            refuse_tracing("FairProjection")
        if self.running is not None and y is None and label_probabilities is None and not self.training:
            emitted = self._by_running_shifts(scores, sensitive_features)
            if emitted is not None:
                return emitted
        result = self.plan.run(
            scores,
            sensitive_features,
            y,
            label_probabilities=label_probabilities,
            sample_weight=sample_weight,
            vocabulary=self.known(),
        )
        if not isinstance(result, Projection):  # under torch.vmap, which shows no single batch to learn from
            return result.value
        self.learn(result)
        return held_in_training(self, scores, result, y) if self.anchors else result.value

    def _on_device(self, scores: Tensor, features: Any, y: Any, label_probabilities: Any) -> Any:
        """Return the value and the unread result of one parity on the device of the scores; None where it cannot be."""
        way = self.plan.on_device
        if way is None or not isinstance(scores, Tensor) or scores.is_cpu:
            return None
        return way(scores, features, self.known(), {"y": y, "label_probabilities": label_probabilities})

    def learn(self, result: Projection) -> None:
        """Keep a result, and the categories that its batch has shown."""
        self.__dict__["vocabulary"] = Vocabulary(result.groups.vocabulary.categories, self.vocabulary.open)
        self._remember(result)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error

    @property
    def uses_running_shifts(self) -> bool:
        """Whether evaluation without labels uses shifts that were learnt in training."""
        return self.running is not None and self.running.learnt and not self.training

    def _by_running_shifts(self, scores: Tensor, sensitive_features: Any) -> Tensor | None:
        """Return the scores moved by the running shifts, with a result that says so; None where there are none."""
        moved = running_scores(self, scores, sensitive_features, self.known())
        if moved is None:
            return None
        options = replace(self.options, from_logits=False) if self.options.from_logits else self.options
        plan = self.plan if options is self.options else Plan(self.constraints, options)
        result = plan.run(
            moved.detach(), sensitive_features, None, label_probabilities=moved.detach(), vocabulary=self.known()
        )
        result.labels = "running shifts"
        self._remember(result)
        return moved.to(result.value.dtype)

    def alone(
        self,
        scores: Tensor,
        *,
        sensitive_features: Any = None,
        y: Any = None,
        label_probabilities: Any = None,
        sample_weight: Any = None,
    ) -> Tensor:
        """Return what `forward` would without a process group: this process's batch, projected by itself.

        It teaches no categories: a stream, whose batches these are, keeps its own.
        """
        if self.running is not None and y is None and label_probabilities is None:
            emitted = self._by_running_shifts(scores, sensitive_features)
            if emitted is not None:
                return emitted
        result = self.plan.run(
            scores,
            sensitive_features,
            y,
            label_probabilities=label_probabilities,
            sample_weight=sample_weight,
            vocabulary=self.known(),
            alone=True,
        )
        self._remember(result)
        return result.value

    def _remember(self, result: Projection) -> None:
        """Keep the result; a plain attribute, past the registration of nn.Module."""
        self.__dict__["_last"] = result.detached()

    def known(self) -> Vocabulary:
        """Return the categories that a batch may have: in evaluation mode those known, once there are any."""
        words = self.vocabulary
        closed = words.categories and not self.training
        return words.closed() if closed else words

    def get_extra_state(self) -> Tensor:
        """Return the vocabulary as one tensor; see `fairlayer.tensor_state`."""
        state = {**self.vocabulary.to_state(), "limits": self._limits()}
        return to_tensor("vocabulary", state, room=ROOM_OF_WORDS)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the vocabulary; a layer with other limits than those that were saved keeps its own, with a warning.

        Raises:
            CheckpointError: it is no such tensor, was changed, or is of other features; the vocabulary is as before.
        """
        words, limits = self._read_state(state)
        self.vocabulary = words
        own = self._limits()
        for name, limit in limits.items():
            if name in own and own[name] != limit:
                warn(
                    f"the state was saved by a layer with {name} at {limit:g}, but this layer has {own[name]:g}, which "
                    "is what holds from now on. Make the layer with the limit that was saved, if that is meant.",
                    FairlayerWarning,
                    stacklevel=2,
                )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        check_states(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _read_state(self, state: Tensor) -> tuple[Vocabulary, dict[str, float]]:
        """Return the words and the limits that were saved."""
        words, limits = read_tensor("vocabulary", state, lambda saved: (Vocabulary.from_state(saved), saved["limits"]))
        refuse_foreign("vocabulary", words.categories, feature_names(self.constraints))
        return words, limits

    def _limits(self) -> dict[str, float]:
        """Return the limit of each constraint that has a number for it; a tensor may be learnt, and is a weight."""
        each = zip(self.plan.names, self.constraints, strict=True)
        given = {name: c.limit_value() for name, c in each if c.limit_argument is not None}
        return {name: float(limit) for name, limit in given.items() if not isinstance(limit, Tensor)}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None, "handle": ""}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.handle = new_handle(self)

    def extra_repr(self) -> str:
        """Show the constraints, and the options that are not the default."""
        default = Options()
        names = ("bounds", "margin", "geometry", "from_logits", "on_empty", "on_infeasible", "backend")
        given = [(name, getattr(self.options, name)) for name in names]
        said = [f"{name}={value!r}" for name, value in given if value is not getattr(default, name)]
        if self.anchors and self.anchor != 1.0:
            said.append(f"anchor={self.anchor:g}")
        return ", ".join([*map(repr, self.constraints), *said])


def _check_lengths(scores: Tensor, y: Any, label_probabilities: Any) -> None:
    """Say what is wrong with labels at which nobody looks."""
    for what, given in (("y", y), ("label_probabilities", label_probabilities)):
        read_per_sample(what, given, tuple(scores.shape))
