"""FairModel: batch -> backbone -> cells -> projection -> prediction. Owns no arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from fairlayer._keywords import explain_keywords
from fairlayer._typing import called_like
from fairlayer.constraints import Constraint
from fairlayer.constraints.statements import Tolerance
from fairlayer.distillation import AmortisedModel, WithoutLayer
from fairlayer.distillation.amortise import amortise
from fairlayer.distillation.without_layer import ScoresOf, as_scores
from fairlayer.edge import Stated, as_constraints, feature_names, plain_bounds
from fairlayer.errors import CategoryError, OutputError, ParameterError
from fairlayer.model.arguments import as_backbone, as_batch_size, as_indices, column_constraints, hidden_from
from fairlayer.model.columns import read_batches, with_columns
from fairlayer.model.projecting import check_shifting, project_batch
from fairlayer.model.stream import ModelStream
from fairlayer.projection import FairProjection
from fairlayer.projection.options import ProjectionOptions, options_of
from fairlayer.projection.result import Projection
from fairlayer.streaming import InferenceState, Policy, Recorder
from fairlayer.streaming.policies import as_policy
from fairlayer.streaming.reporting.batches import StreamGaps
from fairlayer.streaming.setting import as_memory, as_window
from fairlayer.tensor_state import check_states
from fairlayer.tracing import refuse_tracing
from fairlayer.trail import AuditTrail

__all__ = ["FairModel"]

_STREAM_KEYWORDS = ("policy", "memory", "window", "hold", "transition")
_OWN_KEYWORDS = (
    "anchor",
    "backbone",
    "constraints",
    "b_tau",
    *_STREAM_KEYWORDS,
    "hide_features",
    "protected_attr_idx",
    "tolerance",
    "trail",
)


class FairModel(nn.Module):
    """Any module whose predictions meet affine fairness constraints on every batch.

        forward(x) = projection of scores(x) onto the constraints and bounds, differentiably

    Wrap a backbone, or subclass and define `scores(self, *args, **kwargs)`.

    Args:
        backbone: module whose output is (n,), (n, 1), or (n, k) for k independent scores (or has such `.logits`).
        constraints: what must hold for the mean predictions of each batch.
        bounds: (lower, upper) of the predictions, for example (0.0, 1.0); None for no bounds.
        margin: inner box (lower + margin, upper - margin), so that a log loss keeps its gradient.
        b_tau: batch size from which `inference=True` projects the batch by itself; smaller ones are streamed.
        policy: how a stream is held: "present", "tracking", "anytime", "per_batch", or a policy object.
        memory: samples that a stream counts as recent, see `InferenceState`.
        window: the window over which the gaps of a stream are reported: samples, or a time such as "30d".
        hold: "window" to hold the gap of the window too.
        transition: samples over which a stream reaches a changed limit.
        trail: an `AuditTrail`, or a `Recorder` of one, that gets a row for each prediction of `inference=True`, at the
            time `at=`. A copy of the model keeps none.
        protected_attr_idx: a column of x, or several, used as sensitive features named `x[i]`.
        hide_features: with `protected_attr_idx`: keep these columns of x from the backbone, which then takes x without
            them; the constraints read them all the same.
        tolerance: with `protected_attr_idx`: one DemographicParity(`x[i]`, tolerance) for each column.
        anchor: see `FairProjection`.
        on_empty: "skip" or "raise", see `project`.
        on_infeasible: "raise" or "relax", see `project`.
        backend: "exact", or "cvxpylayers", the reference.
        process_group: None, "world", or a torch.distributed group, see `project`; `inference=True` keeps to this
            process, whose stream `inference_state.sync()` joins with the others'.

    Raises:
        FairlayerError: a named subclass; see `fairlayer.errors`.

    Example:
        >>> import torch, fairlayer as fl
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Sigmoid())
        >>> model = fl.FairModel(net, [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0))
        >>> scores = model(torch.randn(64, 3), sensitive_features={"sex": torch.arange(64) % 2})
        >>> scores.shape, model.last_projection.certificate.holds
        (torch.Size([64, 1]), True)
    """

    def __init__(
        self,
        backbone: nn.Module | None = None,
        constraints: Stated = (),
        *,
        b_tau: int = 256,
        policy: str | Policy = "present",
        memory: float | None = None,
        window: Any = None,
        hold: str | None = None,
        transition: float | None = None,
        trail: AuditTrail | Recorder | None = None,
        protected_attr_idx: int | Sequence[int] | None = None,
        hide_features: bool = False,
        tolerance: Tolerance | None = None,
        anchor: float = 1.0,
        **options: Unpack[ProjectionOptions],
    ) -> None:
        super().__init__()
        options_of(type(self).__name__, options, _OWN_KEYWORDS)
        self.protected_attr_idx = as_indices(protected_attr_idx)
        self.backbone = as_backbone(backbone)
        if hide_features:
            self.backbone = hidden_from(self.backbone, self.protected_attr_idx)
        self.b_tau = as_batch_size(b_tau)
        stream = {
            "policy": as_policy(policy),
            "memory": as_memory(memory),
            "window": as_window(window),
            "hold": hold,
            "transition": transition,
        }
        self.projection = FairProjection(
            [*as_constraints(constraints), *column_constraints(self.protected_attr_idx, tolerance)],
            anchor=anchor,
            **options,
        )
        self._label_based = tuple(c.name for c in self.projection.constraints if c.needs_labels)
        recorder = Recorder(trail) if isinstance(trail, AuditTrail) else trail
        self._stream = ModelStream(recorder, self._label_based, **stream)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What must hold."""
        return self.projection.constraints

    @property
    def last_projection(self) -> Projection | None:
        """The whole result of the latest forward, detached from the graph."""
        return self.projection.last

    @property
    def inference_state(self) -> InferenceState:
        """What the stream of `inference=True` predictions has done so far."""
        return self._stream.begun(self.projection)

    def reset_inference_state(self) -> None:
        """Begin a new stream."""
        self.inference_state.reset()

    def warm_start(self, loader: Iterable[Any]) -> None:
        """Let the stream's feed-forward begin from the raw scores of validation data.

        Args:
            loader: batches (x, y, sensitive_features), pairs of x and a dict of columns, or dicts with the keys x, y,
                sensitive_features; with `protected_attr_idx` also (x, y), and x alone.

        Raises:
            ShapeError: a batch is none of these, or a pair that can be read in two ways.
            EmptyBatchError: the loader gives no batch.
        """
        with torch.no_grad():
            for x, _, features in read_batches(loader, self.protected_attr_idx):
                self.inference_state.warm_start(self.raw_scores(x), features, self.projection.known())

    def observe_labels(self, ids: Sequence[str | int], y: Any) -> None:
        """Deliver labels of earlier streamed predictions, by the ids they were made with."""
        self.inference_state.observe_labels(ids, y)

    def get_aggregate_fairness_stats(self, loader: Iterable[Any], *, reset_before: bool = True) -> dict[str, float]:
        """Stream a loader through the model and return its gaps.

        Args:
            loader: batches as for `warm_start`.
            reset_before: begin a new stream first.

        Returns:
            Fixed keys: `weighted_avg_fairness_gap` (sample-weighted mean over batches of the largest gap within the
            batch, a batch that compares nothing counting 0), `pooled_aggregate_gap` (largest gap of the pooled means
            of everything emitted), `raw_pooled_aggregate_gap` (the same of the raw scores), `mean_squared_change`,
            `samples`, `batches`.
        """
        batches = read_batches(loader, self.protected_attr_idx)
        first = next(batches)  # what is not a loader changes nothing
        if reset_before:
            self.reset_inference_state()
        gaps = StreamGaps(self.constraints)
        with torch.no_grad():
            for x, y, features in chain([first], batches):
                raw = self.raw_scores(x)
                gaps.add(self._stream.emit(self.projection, raw, features, b_tau=self.b_tau, y=y), raw, features, y)
        return gaps.stats(self.inference_state)

    def without_layer(self) -> WithoutLayer:
        """Return a copy of the backbone alone, in evaluation mode: it needs no group, and nothing holds its gap.

        Its predictions are the raw scores, cut off at the bounds; `fairlayer.distillation.remaining_gap` measures
        what gap they have.
        """
        options = self.projection.options
        squash = "none" if not options.from_logits else "softmax" if options.on_simplex else "sigmoid"
        bounds = (None, None) if options.on_simplex else plain_bounds(options.numeric_bounds, options.margin)
        return WithoutLayer(self._copy_of_scores(), bounds, squash=squash).eval()

    def amortised(
        self, loader: Iterable[Any], *, proxy: nn.Module | None = None, on_unknown: str = "unmoved"
    ) -> AmortisedModel:
        """Return a copy of the backbone, in evaluation mode, with fixed shifts per group in place of the layer.

        Args:
            loader: validation batches as for `warm_start`; the shifts are those of the exact projection of all of
                their scores at once. Where the cells depend on the label, the scores stand in for it.
            proxy: module from x to the probability of each group (n, groups), in the order of the categories; the
                shifts are then fitted to, and used with, its probabilities, and no group is needed at inference.
            on_unknown: see `AmortisedShifts`.

        Raises:
            NoFixedShiftError: a constraint moves samples by more than their groups and label.
        """
        check_shifting(self.projection, "a model with fixed shifts")
        batches = read_batches(loader, self.protected_attr_idx)
        return amortise(self.without_layer(), self.projection, batches, proxy=proxy, on_unknown=on_unknown)

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the features, and close the vocabulary: an unseen category is an error.

        Raises:
            CategoryError: the stream has met a category that is not among them; nothing has changed.
        """
        before = self.projection.vocabulary
        self.projection.fit_categories(sensitive_features)
        try:
            self._stream.adopt(self.projection.vocabulary)
        except CategoryError:
            self.projection.vocabulary = before
            raise

    def scores(self, *args: Any, **kwargs: Any) -> Any:
        """Return the backbone's scores; override it in a subclass without a backbone."""
        backbone = self._modules.get("backbone")  # spares nn.Module's slow search
        if backbone is None:
            backbone = self.backbone  # a function
        if backbone is None:
            raise OutputError(
                f"{type(self).__name__} has no backbone. Pass one, or define scores(self, *args, **kwargs)."
            )
        return backbone(*args, **kwargs)

    def raw_scores(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the scores as a tensor, before the projection."""
        return as_scores(self.scores(*args, **kwargs))

    def forward(
        self,
        *args: Any,
        sensitive_features: Any = None,
        y: Any = None,
        label_probabilities: Any = None,
        sample_weight: Any = None,
        inference: bool = False,
        ids: Sequence[str | int] | None = None,
        at: float | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return predictions that meet the constraints; shape and device of the backbone's output.

        Args:
            *args: passed to the backbone.
            sensitive_features: see `project`.
            y: labels, for constraints that look at labels; needed in training mode only.
            label_probabilities: estimates of the labels in [0, 1], used where there is no y; by default, in
                evaluation mode, the raw scores.
            sample_weight: see `project`; a stream takes none.
            inference: the regime of production. Batches smaller than `b_tau` are answered as a stream, which the policy
                holds; larger ones are projected by themselves and counted. Predictions are then detached.
            ids: one per sample of a streamed batch, for `observe_labels`.
            at: seconds on the caller's clock, for a streamed batch, see `InferenceState.emit`; a `trail` needs it.
            **kwargs: passed to the backbone.

        Raises:
            ParameterError: there is a trail, and no time; nothing is counted.
            TrailError: the trail could not be written; the stream has counted what is not returned.
            MissingLabelsError: a label-based constraint in training mode without y.
            TracingError: `torch.jit.trace` or `torch.onnx.export(dynamo=False)` records.
        """
        compiling = torch.compiler.is_compiling()
        if not compiling:
            refuse_tracing("FairModel")
        try:
            scores = as_scores(self.scores(*args, **kwargs))
        except (AttributeError, TypeError) as error:
            if isinstance(error, TypeError):
                explain_keywords(FairModel.forward, kwargs, error)
            if len(args) > 1 and sensitive_features is None:
                error.add_note(self._positions(len(args)))
            raise
        features = sensitive_features
        if self.protected_attr_idx:
            features = with_columns(self.protected_attr_idx, features, args)
        if inference and not compiling and y is None and ids is None and sample_weight is None:
            stream = self._stream
            if stream.state is not None and stream.recorder is None:  # most requests: every call on the way costs
                emitted = stream.state.emit_simply(scores, features, self.b_tau, at)
                if emitted is not None:
                    return emitted
        layer: Any = self._modules["projection"]  # spares nn.Module's slow search
        if not inference:
            return project_batch(
                layer,
                scores,
                features,
                self._label_based,
                y=y,
                label_probabilities=label_probabilities,
                sample_weight=sample_weight,
                training=self.training,
            )
        if sample_weight is not None:
            raise ParameterError(
                "sample_weight was given with inference=True, but a stream counts each request once. Leave it out, or "
                "call the model without inference=True."
            )
        answer = self._stream.answer_outside if compiling else self._stream.answer
        return answer(
            layer, scores, features, b_tau=self.b_tau, y=y, ids=ids, label_probabilities=label_probabilities, at=at
        )

    def _positions(self, given: int) -> str:
        """Return what an error of the backbone may come from, where several arguments were given by position."""
        read = "{" + ", ".join(f"{name!r}: ..." for name in feature_names(self.constraints)) + "}"
        return (
            f"The model hands what is given by position to its backbone, here {given} arguments. Sensitive features "
            f"and labels go by keyword: model(x, sensitive_features={read}, y=labels)."
        )

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error

    def _copy_of_scores(self) -> nn.Module:
        if self.backbone is not None and type(self).scores is FairModel.scores:
            return copy.deepcopy(self.backbone)
        model = copy.deepcopy(self)  # the subclass's own `scores`, with whatever submodules it uses
        del model.projection
        model._stream.state = None
        return ScoresOf(model)

    def get_extra_state(self) -> Tensor:
        """Return the stream's state as one tensor; see `fairlayer.tensor_state`."""
        return self._stream.to_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the stream's state.

        Raises:
            CheckpointError: it is no such tensor, or was changed; nothing has changed.
            ConstraintDefinitionError: it is the stream of other features; nothing has changed.
        """
        self._stream.restore(state, self.projection)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        check_states(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
