"""The stream of a model: it answers requests, writes them to a trail where one is kept, and is saved with the model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fairlayer.edge import feature_names, plain_bounds, read_groups
from fairlayer.groups import Vocabulary
from fairlayer.model.projecting import check_shifting, project_alone
from fairlayer.projection import FairProjection
from fairlayer.streaming import InferenceState, Recorder
from fairlayer.streaming.stores.asking import categories_of
from fairlayer.streaming.stores.finishing import limits_of
from fairlayer.streaming.stores.recording import Answered
from fairlayer.tensor_state import PAGE, from_tensor, to_tensor
from fairlayer.tracing import outside_graphs

__all__ = ["ModelStream"]

_ROOM = 16 * PAGE  # for the state of a stream of about 80 cells


class ModelStream:
    """What a model answers with `inference=True`, counted from its first request on.

    Args:
        recorder: writes each answer to a trail; None for no trail. A copy of the stream keeps none.
        label_based: names of the constraints that look at labels.
        **options: see `InferenceState`.
    """

    def __init__(self, recorder: Recorder | None, label_based: tuple[str, ...], **options: Any) -> None:
        self.recorder = recorder
        self.state: InferenceState | None = None
        self._label_based = label_based
        self._options = options
        self._lock = threading.Lock()

    def begun(self, layer: FairProjection) -> InferenceState:
        """Return what the stream has done so far; a new one begins if there is none."""
        with self._lock:
            if self.state is None:
                options = layer.options
                if options.on_simplex:
                    check_shifting(layer, "a stream")
                self.state = InferenceState(
                    layer.constraints,
                    bounds=plain_bounds(options.numeric_bounds, options.margin),
                    geometry=options.geometry,
                    from_logits=options.from_logits,
                    **self._options,
                )
        return self.state

    def adopt(self, vocabulary: Vocabulary) -> None:
        """Take over the categories of a vocabulary that was closed.

        Raises:
            CategoryError: the stream has met a category that is not among them; nothing has changed.
        """
        if self.state is not None:
            self.state.adopt(vocabulary)

    def answer(
        self,
        layer: FairProjection,
        scores: Tensor,
        features: Any,
        *,
        b_tau: float,
        y: Any,
        ids: Sequence[str | int] | None,
        label_probabilities: Any,
        at: float | None,
    ) -> Tensor:
        """Emit the predictions of a request, and write them to the trail.

        Raises:
            ParameterError: there is a trail, and no time; nothing is counted.
            TrailError: the trail could not be written; the stream has counted what is not returned.
        """
        if self.recorder is not None:
            self.recorder.check(at)
        emitted = self.emit(
            layer, scores, features, b_tau=b_tau, y=y, ids=ids, label_probabilities=label_probabilities, at=at
        )
        if self.recorder is not None:
            self.recorder.write(self._answered(layer, scores, emitted, features, ids=ids, at=at))
        return emitted

    answer_outside = outside_graphs(answer)  # a stream counts and keeps books: nothing that a graph could hold

    def emit(
        self,
        layer: FairProjection,
        scores: Tensor,
        features: Any,
        *,
        b_tau: float,
        y: Any = None,
        ids: Sequence[str | int] | None = None,
        label_probabilities: Any = None,
        at: float | None = None,
    ) -> Tensor:
        """Count a request and return its predictions: fewer than `b_tau` held by the policy, more projected alone."""
        if self.state is not None and y is None and ids is None:
            emitted = self.state.emit_simply(scores, features, b_tau, at)
            if emitted is not None:
                return emitted
        if (scores.shape[0] if scores.ndim else 0) < b_tau:
            return self.begun(layer).emit(scores, features, ids=ids, y=y, vocabulary=layer.known(), at=at)
        with torch.no_grad():
            projected = project_alone(
                layer, scores, features, self._label_based, y=y, label_probabilities=label_probabilities
            )
        many = scores.ndim == 2 and scores.shape[1] > 1
        if many or not all(c.streamable for c in layer.constraints):
            return projected  # nothing that a stream can hold
        return self.begun(layer).settle(scores, projected, features, ids=ids, y=y, vocabulary=layer.known(), at=at)

    def _answered(
        self, layer: FairProjection, scores: Tensor, emitted: Tensor, features: Any, *, ids: Any, at: float | None
    ) -> Answered:
        """Return what a step of the stream was asked and what it answers, as plain values."""
        constraints, state = layer.constraints, self.state
        groups = read_groups(features, constraints, scores.shape[0], layer.known())
        return Answered(
            {name: categories_of(groups, name) for name in feature_names(constraints)},
            _rows_of(scores),
            _rows_of(emitted),
            None if state is None else state.phase.value,
            None if state is None else state.policy.name,
            limits_of(constraints),
            ids=ids,
            at=at,
        )

    def to_tensor(self) -> Tensor:
        """Return what is saved of the stream as one tensor; see `fairlayer.tensor_state`."""
        return to_tensor("stream", {} if self.state is None else {"stream": self.state.state_dict()}, room=_ROOM)

    def restore(self, saved: Tensor, layer: FairProjection) -> None:
        """Go on with the stream that was saved; where none had begun, a new one begins.

        Raises:
            CheckpointError: it is no such tensor, or was changed; nothing has changed.
            ConstraintDefinitionError: it is the stream of other features; nothing has changed.
        """
        found, before = from_tensor("stream", saved), self.state
        if "stream" in found:
            try:
                self.begun(layer).load_state_dict(found["stream"])
            except BaseException:
                self.state = before
                raise
        elif before is not None:
            before.reset()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "recorder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def _rows_of(scores: Tensor) -> list[Any]:
    """Return one number per sample, or a list of them where there are several."""
    plain = scores.detach().cpu().double()
    return plain.reshape(-1).tolist() if plain.ndim == 1 or plain.shape[1] == 1 else plain.tolist()
