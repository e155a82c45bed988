"""What a policy is: a value with a name, and functions from a state and new scores to predictions and a state.

The machine counts, saves and merges; the policy decides. It is given the `Machine` to read (`samples`, `history`,
`frame`, `bounds`, `geometry`), and its own state, a dict of numbers and arrays. It changes neither while it answers:
`prepare` and `answer` return a new state, and nothing is counted before everything that can fail has been computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np

from fairlayer._numbers import is_number
from fairlayer._typing import FloatArray, IntArray
from fairlayer.errors import ConstraintDefinitionError

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = [
    "LARGEST_SQUARE",
    "Answer",
    "Call",
    "CompiledCall",
    "Labelled",
    "Placed",
    "Policy",
    "State",
    "as_policy",
    "check_numbers",
    "register_policy",
]

LARGEST_SQUARE = 1e200
"""A sum of squares that no finite scores reach."""

State = Mapping[str, Any]
"""What a policy remembers: numbers, arrays, and dicts of numbers, which the machine saves as they are.

The machine reads two of them, where they are there, to know when a short way has to wait for `prepare`: `next_refresh`,
the samples emitted at which a solution is due, and `wait`, the samples of one call from which on it is due at once.
"""


class Answer(NamedTuple):
    """What a policy says about new samples.

    Args:
        emitted: (n,) predictions.
        start: (n,) what they would have been without any correction, for the phase.
        widening: by how much the limits could not be met, in prediction units.
        state: the state after the answer; None for the one before.

    Example:
        >>> import numpy as np
        >>> raw = np.array([0.4, 0.8])
        >>> Answer(emitted=raw - 0.1, start=raw).emitted.round(1).tolist()
        [0.3, 0.7]
    """

    emitted: FloatArray
    start: FloatArray
    widening: float = 0.0
    state: State | None = None


class Call(NamedTuple):
    """Samples that come together.

    Args:
        cells: (n,) of the samples; one past the last cell stands for one that the stream has not met.
        raw: (n,) raw scores.

    Example:
        >>> import numpy as np
        >>> Call(cells=np.array([0, 1]), raw=np.array([0.4, 0.8])).raw.tolist()
        [0.4, 0.8]
    """

    cells: IntArray
    raw: FloatArray


class Labelled(NamedTuple):
    """Labels of predictions that were emitted before.

    Args:
        cells: (n,) of the samples.
        raw: (n,) raw scores.
        emitted: (n,) predictions.
        estimates: (n,) the label estimates with which the samples were counted.
        labels: (n,) the labels.

    Example:
        >>> import numpy as np
        >>> one = np.array([0.4])
        >>> Labelled(np.array([0]), raw=one, emitted=one, estimates=one, labels=np.array([1.0])).labels.tolist()
        [1.0]
    """

    cells: IntArray
    raw: FloatArray
    emitted: FloatArray
    estimates: FloatArray
    labels: FloatArray


Placed = tuple[int, int, bool, int, int]
"""Samples of a call, as they lie in memory: the address of where their categories are (see `CellLookup.edge`), the
address of their scores, whether these are of double precision, how many they are, and where they will be written in the
journal. A plain tuple, since to make any other kind of value costs a good part of what a step costs."""


class CompiledCall(Protocol):
    """A call of a stream in one compiled step."""

    def rests(self, state: State, stream: Machine) -> bool:
        """Return whether a solution that is due is not worth while, so that it can wait once more."""

    def takes(self, samples: Placed) -> bool:
        """Return whether a call will take these samples; nothing has changed."""

    def answer(self, state: State, samples: Placed, out: int) -> tuple[float, float] | None:
        """Answer, count and write predictions at the address `out`: (mean correction, widening); None if refused."""


class Policy(ABC):
    """How a stream is held. A policy of one's own gives `name` and `answer`, and is registered.

    Example:
        >>> import torch, fairlayer as fl
        >>> from fairlayer.streaming import Answer, Policy, register_policy
        >>> @register_policy
        ... class Halved(Policy):
        ...     name = "halved"
        ...     def answer(self, state, stream, cells, raw):
        ...         return Answer(emitted=0.5 * raw, start=0.5 * raw)
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> stream = fl.InferenceState([parity], bounds=(0.0, 1.0), policy="halved")
        >>> stream.emit(torch.tensor([0.5, 1.0]), {"sex": ["F", "M"]})
        tensor([0.2500, 0.5000])
    """

    name: ClassVar[str]
    """How callers write it in `policy=`."""

    settle: int = 1000
    """Samples after which a stream is no longer warming."""

    geometries: ClassVar[tuple[str, ...] | None] = ("euclidean",)
    """Geometries that it can hold; None for all on a box."""

    holds_pooled: ClassVar[bool] = False
    """Whether its promise is about the pooled means of everything emitted; reports say "not bounded" elsewhere."""

    holds_windows: ClassVar[bool] = False
    """Whether it can hold the gap of a window (`hold="window"`)."""

    default_memory: ClassVar[float | None] = None
    """Samples that count as recent where `memory=` is not given; None for all."""

    latest: ClassVar[int] = 0
    """How many of the latest raw scores of each cell it wants kept as they are."""

    def begin(self) -> State:
        """Return the state of an empty stream."""
        return {}

    def grow(self, state: State, stream: Machine) -> State:
        """Return the state once the stream has met new cells, which are the last."""
        return state

    def rests(self, state: State, stream: Machine) -> bool:
        """Return whether a solution that is due is not worth while, so that it waits once more; False by default."""
        return False

    def prepare(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> State:
        """Return the state in which the samples are to be answered, for example after a solution that was due."""
        return state

    @abstractmethod
    def answer(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> Answer:
        """Return predictions for samples of these cells, and change nothing.

        Args:
            state: what `begin`, or the call before, returned.
            stream: what the stream has emitted so far, to be read.
            cells: (n,) the position of each sample's cell in `stream.history.cells`.
            raw: (n,) raw scores.
        """

    def answer_large(
        self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, projected: FloatArray
    ) -> Answer:
        """Return predictions for a large batch that was projected by itself; by default what was projected."""
        return Answer(projected, projected)

    def answer_one(self, state: State, stream: Machine, cell: int, raw: float) -> tuple[float, float, float] | None:
        """Answer and count one sample in a short way: (emitted, correction, widening); None where there is none."""
        return None

    def answer_many(self, state: State, stream: Machine, call: Call, emitted: FloatArray) -> tuple[float, float] | None:
        """Write predictions to `emitted` and count them in a short way: (mean correction, widening).

        None where there is no such way, or where `stream.takes` would refuse the call; then nothing has changed.
        """
        return None

    def compiled(self, state: State, stream: Machine) -> CompiledCall | None:
        """Return the whole call in one compiled step, where there is one and it is loaded; None by default."""
        return None

    def count(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, emitted: FloatArray) -> State:
        """Return the state after these predictions, which nothing can take back any more."""
        return state

    def count_labels(self, state: State, stream: Machine, labelled: Labelled) -> State:
        """Return the state after labels have come."""
        return state

    def estimate_labels(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> FloatArray:
        """Return the label estimates (n,) with which samples are counted until their labels come."""
        return np.zeros(len(raw))

    def shifts(self, state: State, stream: Machine) -> FloatArray:
        """Return how far each cell's raw scores are moved down, (cells,), in the unit of the geometry."""
        return np.zeros(len(stream.history.cells))

    def prices(self, state: State, stream: Machine) -> dict[str, float]:
        """Return the price of each constraint per sample, by name."""
        return {constraint.name: 0.0 for constraint in stream.constraints}

    def room(self, samples: float) -> float:
        """Return the room above the limits, in prediction units, after so many samples."""
        return 0.0

    def loaded(self, state: State, stream: Machine) -> State:
        """Return the state from what was saved of it."""
        return state

    def taken_over(self, state: State, old: State, stream: Machine, rows: IntArray) -> State:
        """Return the state of a stream whose constraints were changed.

        Args:
            state: a fresh state for the cells.
            old: the state before.
            stream: under the new constraints, with the counts of the old one.
            rows: the cell now of each cell before.
        """
        return state

    def transition_length(self, stream: Machine) -> float:
        """Return over how many samples changed limits are reached, where nobody says."""
        return self.settle if stream.memory is None else stream.memory

    def merged(self, state: State, other: State, stream: Machine, rows: IntArray) -> State:
        """Return the state once another stream's sums were added; `rows` are the cells here of those of the other."""
        return state

    def heard(self, state: State, stream: Machine, others: list[tuple[Machine, IntArray]]) -> State:
        """Return the state after a sync, given each other replica's stream, with the cells here of its cells."""
        return state

    def meters(self, state: State) -> dict[str, float]:
        """Return the numbers of the state that counting the same predictions again cannot rebuild."""
        return {}


_KNOWN: dict[str, Callable[[], Policy]] = {}
Kind = TypeVar("Kind", bound=type[Policy])


def register_policy(kind: Kind) -> Kind:
    """Let a class of policies be asked for by its name, with its default settings; usable as a decorator.

    Args:
        kind: a class derived from `Policy`, with a name of its own.

    Raises:
        ConstraintDefinitionError: it has no name, or another class has it.

    Example:
        >>> import numpy as np
        >>> import torch, fairlayer as fl
        >>> @register_policy
        ... class Ceiling(Policy):
        ...     name = "ceiling"
        ...     def answer(self, state, stream, cells, raw):
        ...         return Answer(emitted=np.minimum(raw, 0.9), start=raw)
        >>> parity = fl.DemographicParity("sex", tolerance=1.0)
        >>> stream = fl.InferenceState([parity], bounds=(0.0, 1.0), policy="ceiling")
        >>> stream.emit(torch.tensor([0.5, 1.0]), {"sex": ["F", "M"]})
        tensor([0.5000, 0.9000])
    """
    name = getattr(kind, "name", None)
    if not isinstance(name, str) or not name:
        raise ConstraintDefinitionError(f'{kind.__name__} has no name. Give the class `name = "..."`.')
    known = _KNOWN.get(name)
    if known is not None and (getattr(known, "__module__", ""), getattr(known, "__qualname__", "")) != (
        kind.__module__,
        kind.__qualname__,
    ):
        raise ConstraintDefinitionError(f"the name {name!r} of {kind.__name__} belongs to another policy already.")
    _KNOWN[name] = kind
    return kind


def policy_names() -> tuple[str, ...]:
    """Return the names of all registered policies.

    Example:
        >>> {"present", "anytime", "tracking", "per_batch"} <= set(policy_names())
        True
    """
    return tuple(_KNOWN)


def as_policy(policy: Any) -> Policy:
    """Return a policy by its name, or as given.

    Raises:
        ConstraintDefinitionError: an unknown name, or no policy.

    Example:
        >>> as_policy("tracking").name
        'tracking'
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, str) and policy in _KNOWN:
        return _KNOWN[policy]()
    raise ConstraintDefinitionError(
        f"policy must be one of {', '.join(map(repr, _KNOWN))}, or an object of a class derived from Policy, "
        f"but is {policy!r}. Register a class of your own with register_policy."
    )


def check_numbers(policy: object, *, at_least_zero: tuple[str, ...], above_zero: tuple[str, ...]) -> None:
    """Check settings of a policy.

    Raises:
        ConstraintDefinitionError: one is not a finite number, or too small.
    """
    for name in at_least_zero + above_zero:
        value = getattr(policy, name)
        if not is_number(value) or value < 0 or (name in above_zero and value == 0):
            sign = "> 0" if name in above_zero else ">= 0"
            raise ConstraintDefinitionError(
                f"{type(policy).__name__} was given {name}={value!r}; it must be a finite number {sign}."
            )
