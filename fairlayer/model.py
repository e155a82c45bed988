"""FairModel: batch -> backbone -> cells -> projection -> prediction. Owns no arithmetic."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from fairlayer._keywords import explain_keywords
from fairlayer._typing import called_like
from fairlayer.constraints import Constraint, DemographicParity
from fairlayer.constraints.statements import Tolerance
from fairlayer.distillation import AmortisedModel, WithoutLayer
from fairlayer.distillation.amortise import amortise
from fairlayer.distillation.without_layer import ScoresOf, as_scores
from fairlayer.edge import LoaderBatch, Stated, as_constraints, feature_names, plain_bounds, read_groups, read_loader
from fairlayer.errors import (
    BackendError,
    CategoryError,
    ConstraintDefinitionError,
    MissingLabelsError,
    MissingSensitiveFeatureError,
    OutputError,
    ParameterError,
    ShapeError,
)
from fairlayer.networks import WithoutColumns
from fairlayer.projection import FairProjection
from fairlayer.projection.labelled import NOTHING_LEARNT
from fairlayer.projection.options import ProjectionOptions, options_of
from fairlayer.projection.result import Projection
from fairlayer.streaming import InferenceState, Policy, Recorder
from fairlayer.streaming.policies import as_policy
from fairlayer.streaming.reporting.batches import StreamGaps
from fairlayer.streaming.setting import as_memory, as_window
from fairlayer.streaming.stores.asking import categories_of
from fairlayer.streaming.stores.finishing import limits_of
from fairlayer.streaming.stores.recording import Answered
from fairlayer.tensor_state import PAGE, check_states, from_tensor, to_tensor
from fairlayer.tracing import outside_graphs, refuse_tracing
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

_ROOM = 16 * PAGE  # for the state of a stream of about 80 cells


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
        self.protected_attr_idx = _as_indices(protected_attr_idx)
        self.backbone = _as_backbone(backbone)
        if hide_features:
            self.backbone = _hidden_from(self.backbone, self.protected_attr_idx)
        self.b_tau = _as_batch_size(b_tau)
        self._stream_options: dict[str, Any] = {
            "policy": as_policy(policy),
            "memory": as_memory(memory),
            "window": as_window(window),
            "hold": hold,
            "transition": transition,
        }
        self._stream: InferenceState | None = None
        self._stream_lock = threading.Lock()
        self.recorder = Recorder(trail) if isinstance(trail, AuditTrail) else trail
        self.projection = FairProjection(
            [*as_constraints(constraints), *_column_constraints(self.protected_attr_idx, tolerance)],
            anchor=anchor,
            **options,
        )
        self._label_based = tuple(c.name for c in self.projection.constraints if c.needs_labels)

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
        with self._stream_lock:
            if self._stream is None:
                options = self.projection.options
                if options.on_simplex:
                    self._common_bounds("a stream")
                self._stream = InferenceState(
                    self.constraints,
                    bounds=plain_bounds(options.numeric_bounds, options.margin),
                    geometry=options.geometry,
                    from_logits=options.from_logits,
                    **self._stream_options,
                )
        return self._stream

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
            for x, _, features in self._batches(loader):
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
        batches = self._batches(loader)
        first = next(batches)  # what is not a loader changes nothing
        if reset_before:
            self.reset_inference_state()
        gaps = StreamGaps(self.constraints)
        with torch.no_grad():
            for x, y, features in chain([first], batches):
                raw = self.raw_scores(x)
                gaps.add(self._stream_out(raw, features, y, None), raw, features, y)
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
        self._common_bounds("a model with fixed shifts")
        return amortise(
            self.without_layer(), self.projection, self._batches(loader), proxy=proxy, on_unknown=on_unknown
        )

    def fit_categories(self, sensitive_features: Any) -> None:
        """Learn the categories of the features, and close the vocabulary: an unseen category is an error.

        Raises:
            CategoryError: the stream has met a category that is not among them; nothing has changed.
        """
        before = self.projection.vocabulary
        self.projection.fit_categories(sensitive_features)
        try:
            if self._stream is not None:
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
        features = self._with_columns(sensitive_features, args) if self.protected_attr_idx else sensitive_features
        if not inference:
            return self._project(scores, features, y, label_probabilities, sample_weight)
        if sample_weight is not None:
            raise ParameterError(
                "sample_weight was given with inference=True, but a stream counts each request once. Leave it out, or "
                "call the model without inference=True."
            )
        if compiling:
            return self._answer_outside(scores, features, y, ids, label_probabilities, at=at)
        return self._answer(scores, features, y, ids, label_probabilities, at=at)

    def _answer(
        self, scores: Tensor, features: Any, y: Any, ids: Any, label_probabilities: Any, *, at: float | None
    ) -> Tensor:
        if self.recorder is None:
            return self._stream_out(scores, features, y, ids, label_probabilities, at=at)
        self.recorder.check(at)
        emitted = self._stream_out(scores, features, y, ids, label_probabilities, at=at)
        self.recorder.write(self._answered(scores, emitted, features, ids=ids, at=at))
        return emitted

    _answer_outside = outside_graphs(_answer)  # a stream counts and keeps books: nothing that a graph could hold

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

    def _common_bounds(self, what: str) -> tuple[float | None, float | None]:
        """Return the bounds as numbers, for what shifts and clips each group by itself.

        Raises:
            BackendError: the geometry moves predictions in another way.
        """
        options = self.projection.options
        if options.rule.name != "euclidean" or options.on_simplex:
            where = ' with bounds="simplex"' if options.on_simplex else ""
            raise BackendError(
                f"{what} shifts scores in the euclidean geometry, but this model has geometry="
                f"{options.rule.name!r}{where}. Use geometry='euclidean' and bounds=(lower, upper), or call the model "
                "without inference=True, which projects each batch by itself."
            )
        return plain_bounds(options.numeric_bounds, options.margin)

    def _copy_of_scores(self) -> nn.Module:
        if self.backbone is not None and type(self).scores is FairModel.scores:
            return copy.deepcopy(self.backbone)
        model = copy.deepcopy(self)  # the subclass's own `scores`, with whatever submodules it uses
        del model.projection
        model._stream = None
        return ScoresOf(model)

    def _project(
        self,
        scores: Tensor,
        features: Any,
        y: Any,
        label_probabilities: Any,
        sample_weight: Any = None,
        *,
        serving: bool = False,
    ) -> Tensor:
        layer: Any = self._modules["projection"]  # spares nn.Module's slow search
        if self._label_based and y is None and label_probabilities is None and not layer.uses_running_shifts:
            label_probabilities = self._estimated_labels(scores, serving)
        projected: Tensor = (layer.alone if serving else layer)(
            scores,
            sensitive_features=features,
            y=y,
            label_probabilities=label_probabilities,
            sample_weight=sample_weight,
        )
        return projected

    def _stream_out(
        self,
        scores: Tensor,
        features: Any,
        y: Any,
        ids: Sequence[str | int] | None,
        label_probabilities: Any = None,
        *,
        at: float | None = None,
    ) -> Tensor:
        if self._stream is not None and y is None and ids is None:
            emitted = self._stream.emit_simply(scores, features, self.b_tau, at)
            if emitted is not None:
                return emitted
        if (scores.shape[0] if scores.ndim else 0) < self.b_tau:
            words = self.projection.known()
            return self.inference_state.emit(scores, features, ids=ids, y=y, vocabulary=words, at=at)
        with torch.no_grad():
            projected = self._project(scores, features, y, label_probabilities, serving=True)
        many = scores.ndim == 2 and scores.shape[1] > 1
        if many or not all(c.streamable for c in self.constraints):
            return projected  # nothing that a stream can hold
        words = self.projection.known()
        return self.inference_state.settle(scores, projected, features, ids=ids, y=y, vocabulary=words, at=at)

    def _answered(self, scores: Tensor, emitted: Tensor, features: Any, *, ids: Any, at: float | None) -> Answered:
        """Return what a step of the stream was asked and what it answers, as plain values."""
        constraints, stream = self.constraints, self._stream
        groups = read_groups(features, constraints, scores.shape[0], self.projection.known())
        return Answered(
            {name: categories_of(groups, name) for name in feature_names(constraints)},
            _rows_of(scores),
            _rows_of(emitted),
            None if stream is None else stream.phase.value,
            None if stream is None else stream.policy.name,
            limits_of(constraints),
            ids=ids,
            at=at,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream_lock": None, "recorder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._stream_lock = threading.Lock()

    def get_extra_state(self) -> Tensor:
        """Return the stream's state as one tensor; see `fairlayer.tensor_state`."""
        state = {} if self._stream is None else {"stream": self._stream.state_dict()}
        return to_tensor("stream", state, room=_ROOM)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the stream's state.

        Raises:
            CheckpointError: it is no such tensor, or was changed; nothing has changed.
            ConstraintDefinitionError: it is the stream of other features; nothing has changed.
        """
        saved, before = from_tensor("stream", state), self._stream
        if "stream" in saved:
            try:
                self.inference_state.load_state_dict(saved["stream"])
            except BaseException:
                self._stream = before
                raise
        elif before is not None:
            before.reset()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        check_states(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _estimated_labels(self, scores: Tensor, inference: bool) -> Tensor | None:
        """Return raw scores that are probabilities, which stand in for labels that a constraint reads in evaluation."""
        if self.training and not inference:
            raise MissingLabelsError(
                f"{self._label_based[0]} looks at labels, but no y was given in training mode. Pass y=labels; "
                "in evaluation mode (model.eval()) label estimates are used instead."
            )
        if self.projection.running is not None:  # scores in place of labels: such a constraint moves nobody
            self.projection.plan.once.warn("nothing learnt", NOTHING_LEARNT.format(name=self._label_based[0]))
        options, plain = self.projection.options, scores.detach()
        if options.from_logits:
            return torch.softmax(plain, dim=-1) if options.on_simplex else torch.sigmoid(plain)
        low, high = plain_bounds(options.numeric_bounds, options.margin)
        return plain.clamp(low, high) if (low, high) != (None, None) else plain

    def _batches(self, loader: Iterable[Any]) -> Iterator[LoaderBatch]:
        """Yield what each batch of a loader holds, columns of x among the sensitive features."""
        for x, y, features in read_loader(loader, groups_in_x=bool(self.protected_attr_idx)):
            yield LoaderBatch(x, y, self._with_columns(features, (x,)))

    def _with_columns(self, sensitive_features: Any, args: tuple[Any, ...]) -> Any:
        if not self.protected_attr_idx:
            return sensitive_features
        if sensitive_features is not None and not isinstance(sensitive_features, Mapping):
            raise ShapeError("with protected_attr_idx, give further sensitive_features as a dict of name -> column.")
        if not args or not isinstance(args[0], Tensor) or args[0].ndim != 2:
            raise MissingSensitiveFeatureError(
                "protected_attr_idx reads columns of the first positional input, which must be a tensor (n, d). "
                "Pass sensitive_features= instead."
            )
        width = args[0].shape[1]
        if not all(-width <= i < width for i in self.protected_attr_idx):
            raise ShapeError(f"protected_attr_idx={self.protected_attr_idx} was asked, but x has {width} columns.")
        columns = {f"x[{i}]": args[0][:, i] for i in self.protected_attr_idx}
        return {**columns, **(sensitive_features or {})}


def _as_backbone(backbone: Any) -> nn.Module | None:
    """Return the backbone if it can be called on tensors.

    Raises:
        OutputError: it is a class, or an estimator that fits and predicts arrays.
    """
    estimator = hasattr(backbone, "fit") and hasattr(backbone, "predict")
    if backbone is None or isinstance(backbone, nn.Module):
        return backbone
    if isinstance(backbone, type):
        raise OutputError(f"the backbone is the class {backbone.__name__}. Pass an instance: {backbone.__name__}(...).")
    if callable(backbone) and not estimator:
        return backbone  # type: ignore[no-any-return]  # a function of tensors
    advice = (
        "An estimator goes into FairPostprocessor(estimator, constraints) of fairlayer.integrations.sklearn, or its "
        "predictions, as arrays, into fairlayer.project(...), decide(...) or DecisionRule.fit(...)."
        if estimator
        else "Pass a torch.nn.Module, or a function of tensors."
    )
    raise OutputError(f"the backbone is a {type(backbone).__name__}, which is not called on tensors. {advice}")


def _hidden_from(backbone: nn.Module | None, columns: tuple[int, ...]) -> nn.Module:
    """Return the backbone with columns of x kept from it.

    Raises:
        ParameterError: there is no backbone to keep them from, or nothing says which columns.
    """
    if isinstance(backbone, nn.Module) and columns:
        return WithoutColumns(backbone, columns)
    lacking = "protected_attr_idx= says which columns of x are hidden" if not columns else "it needs a backbone module"
    raise ParameterError(
        f"hide_features=True was given, but {lacking}. Sensitive features that are passed as sensitive_features= are "
        "not shown to the backbone anyway."
    )


def _as_batch_size(b_tau: Any) -> Any:
    if isinstance(b_tau, Real) and float(b_tau) >= 0:  # numpy's numbers among them
        return b_tau
    raise ConstraintDefinitionError(f"b_tau must be a number of samples >= 0, but is {b_tau!r}.")


def _as_indices(index: int | Sequence[int] | None) -> tuple[int, ...]:
    if index is None:
        return ()
    return (index,) if isinstance(index, int) else tuple(int(i) for i in index)


def _column_constraints(indices: tuple[int, ...], tolerance: Tolerance | None) -> list[Constraint]:
    if tolerance is None:
        return []
    if not indices:
        raise ConstraintDefinitionError(
            "tolerance= goes with protected_attr_idx=; otherwise give the tolerance to each constraint."
        )
    return [DemographicParity(f"x[{i}]", tolerance) for i in indices]


def _rows_of(scores: Tensor) -> list[Any]:
    """Return one number per sample, or a list of them where there are several."""
    plain = scores.detach().cpu().double()
    return plain.reshape(-1).tolist() if plain.ndim == 1 or plain.shape[1] == 1 else plain.tolist()
