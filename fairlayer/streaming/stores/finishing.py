"""What becomes of a step beside its being counted: answers made of predictions, a recount, what a witness is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fairlayer.constraints import Constraint
from fairlayer.groups import Vocabulary
from fairlayer.streaming.state import InferenceState
from fairlayer.streaming.store import Step
from fairlayer.streaming.stores.asking import Part
from fairlayer.streaming.stores.recording import Answered

__all__ = ["Finish", "answered_of", "finished", "limits_of", "owner_of", "recount", "step_of"]


class Finish(Protocol):
    """What turns emitted predictions into answers, such as decisions, and remembers what it has to."""

    owner: str

    def answers(self, features: Mapping[str, Sequence[Any]], emitted: Sequence[float]) -> list[float]:
        """Return the answers, and remember."""

    def recount(
        self, features: Mapping[str, Sequence[Any]], emitted: Sequence[float], answers: Sequence[float]
    ) -> None:
        """Remember answers that were given before."""

    def counters(self, features: Mapping[str, Sequence[Any]], answers: Sequence[float]) -> Mapping[str, int]:
        """Return what the store is to count of answers."""

    def to_state(self) -> dict[str, float]:
        """Return plain numbers."""

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore what `to_state` returned."""


def owner_of(constraints: Sequence[Constraint], finish: Finish | None) -> list[str]:
    """Return whose stream it is, as a store keeps it: constraints, and what finishes."""
    return [*(constraint.name for constraint in constraints), *(() if finish is None else (finish.owner,))]


def step_of(part: Part, emitted: Tensor) -> Step:
    """Return a step of predictions, as plain values; `meters` come later."""
    told = {"at": part.at, "digests": part.digests, "counters": part.counters}
    return Step(part.ids, {}, part.raw.tolist(), emitted.tolist(), part.features, **told)  # type: ignore[arg-type]


def finished(step: Step, finish: Finish | None) -> Step:
    """Return a step with its answers, and with what is to be counted of them."""
    if finish is None or step.features is None or step.emitted is None:
        return step
    answers = finish.answers(step.features, step.emitted)
    counted = Counter(step.counters or {}) + Counter(finish.counters(step.features, answers))
    return step._replace(answers=answers, counters=dict(counted))


def recount(
    state: InferenceState,
    saved: Mapping[str, Any] | None,
    steps: Sequence[Step],
    vocabulary: Vocabulary | None,
    finish: Finish | None = None,
) -> None:
    """Count logged steps as they were emitted; nothing is decided anew.

    Args:
        state: loaded from `saved`.
        saved: the state before the steps; None where there was none. The steps were taken under its limits: where those
            have changed, the way to the new ones begins after the last step.
        steps: the steps, in their order.
        vocabulary: the vocabulary of the stream.
        finish: what turns predictions into answers.
    """
    labelled = any(constraint.needs_labels for constraint in state.constraints)
    for step in steps:
        if step.emitted is None or step.raw is None:
            state.observe_labels(step.ids or [], step.labels)
            continue
        raw, emitted = (torch.tensor(values, dtype=torch.float64) for values in (step.raw, step.emitted))
        state.absorb(raw, emitted, step.features, vocabulary, ids=step.ids if labelled else None, at=step.at)
        if finish is not None:
            finish.recount(step.features or {}, step.emitted, step.answered)
    if steps:
        now = state.state_dict()
        now["machine"]["rule"] = steps[-1].meters["rule"]
        now["machine"]["policy"].update(steps[-1].meters["policy"])
        if saved is not None:
            now["machine"].update(_before_the_way(now["machine"], saved["machine"]))
        state.load_state_dict(now)


def _before_the_way(now: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits, transition and events as if no change of limits had been seen when the state was loaded."""
    known = [tuple(event) for event in saved["events"]]
    events = [event for event in now["events"] if event[2] != "limits changed" or tuple(event) in known]
    return {"limits": saved["limits"], "transition": saved["transition"], "events": events}


def answered_of(state: InferenceState, step: Step, part: Part, finish: Finish | None) -> Answered:
    """Return what a step of predictions, just taken, was asked and answers."""
    return Answered(
        step.features or {},
        (step.raw or []) if part.read is None else part.read,
        step.emitted,
        state.phase.value,
        state.policy.name,
        limits_of(state.constraints),
        ids=step.ids,
        at=step.at,
        inputs=part.inputs,
        decisions=None if finish is None else [int(answer) for answer in step.answered],
        wishes=None if part.read is None else step.raw,
    )


def limits_of(constraints: Iterable[Constraint]) -> dict[str, float]:
    """Return what each constraint holds its number to, by name; those without a number are left out."""
    return {one.name: float(one.limit) for one in constraints if one.limit is not None}
