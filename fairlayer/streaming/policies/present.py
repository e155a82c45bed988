"""The present: shifts from recent raw scores, and a guard on recent means. Nothing else remembers the past."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray
from fairlayer.constraints import Batch
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.groups import Groups
from fairlayer.streaming.bands import Band, bands_of, solve_bands
from fairlayer.streaming.debt import debts_of
from fairlayer.streaming.gather import gathered
from fairlayer.streaming.guard import Guarded, Sample, guards_of
from fairlayer.streaming.label_estimates import BINS, LabelScale, curves
from fairlayer.streaming.policies.base import Answer, Call, Labelled, Policy, State, check_numbers, register_policy

if TYPE_CHECKING:
    from fairlayer.streaming.machine import Machine

__all__ = ["Present"]

_FIRST_WAIT, _LONGER, _SHARE = (
    8.0,
    1.15,
    16.0,
)  # samples before a solution: the first, their growth, memory over the last
_SHORT = (16.0, 80.0)  # samples of a cell itself, over which its short means run
_SURE, _OLDER = 8.0, 1.2  # samples below which a short mean says nothing; how much more the long one must hold
_SURELY = (1.4, 1.0)  # how much more the short ones must differ, as few skewed scores have no normal mean
_SUSPECT = 0.65  # share of the distance that is clear for the other cells, once one has changed
_REFERENCE = 0.25  # of the memory: how old a long mean is before short ones are compared with it
_LEAST_SPREAD = 0.25  # of all scores, that the variance of a cell counts as at least
_FARTHEST = 10.0  # the largest shift in geometries of probabilities, in log-odds
_HEAVY = 1e6  # weight of the newest sample at which sums are brought back to 1
_UNMET = 0.25, 1e-3  # of the tolerance, and in prediction units: what may be missed without being SATURATED


class _Points(NamedTuple):
    """Recent raw scores: the bins of the sketch.

    Args:
        cell: (p,) of each.
        score: (p,) the mean raw score.
        weight: (p,) how many recent samples it stands for.
        estimate: (p,) of the label.
    """

    cell: IntArray
    score: FloatArray
    weight: FloatArray
    estimate: FloatArray


@register_policy
@dataclass(frozen=True)
class Present(Policy):
    """Holds the gap of recent predictions within the tolerance, up to stated noise, in any geometry on a box.

        y = y(z, q),     q = a + b p        a, b per cell; p the label estimate, where a constraint reads labels

    The shifts project the raw scores of about the last `memory` samples. A clear change of a cell's scores cuts its
    older ones off. Each group is given a slack of `doubt * sd / sqrt(N_g)` by its own recent count, so that few people
    are not moved for noise. A guard keeps single answers from taking the present gap beyond tolerance, noise and raw
    gap (docs/streaming.md says what is proved, and where it is not).

    Args:
        doubt: slack of a group's mean, in standard errors; 0 acts on noise.
        guard: how far beyond noise the present gap may exceed tolerance and raw gap before an answer is moved, in
            standard errors; None for no guard.
        repair: samples over which an old gap is repaid, within the tolerance only, and only what gaps inside buckets
            have made; None to repay nothing.
        cut: standard errors by which a short mean must differ from the long one for a change to be clear.
        trust: how much an estimated label counts beside a real one; 0 moves nobody before labels have come.

    Source: design of this package.

    Example:
        >>> import torch, fairlayer as fl
        >>> stream = fl.InferenceState([fl.DemographicParity("sex", tolerance=0.0)], policy=fl.Present(doubt=0.0))
        >>> for _ in range(200):
        ...     y = stream.emit(torch.tensor([0.4, 0.6]), {"sex": ["F", "M"]})
        >>> bool((y[0] - y[1]).abs() < 1e-3)
        True
    """

    name: ClassVar[str] = "present"
    geometries: ClassVar[tuple[str, ...] | None] = None
    holds_windows: ClassVar[bool] = True
    default_memory: ClassVar[float | None] = 1000.0
    latest: ClassVar[int] = 128

    doubt: float = 0.25
    guard: float | None = 2.0
    repair: float | None = None
    cut: float = 4.5
    trust: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, at_least_zero=("doubt", "trust"), above_zero=("cut",))
        for name in ("guard", "repair"):
            if getattr(self, name) is not None:
                check_numbers(self, at_least_zero=(name,), above_zero=())
        if self.repair == 0:
            raise ConstraintDefinitionError("Present was given repair=0; it must be a number of samples > 0, or None.")

    # ---- the state: plain numbers, arrays and lists

    def begin(self) -> State:
        """Return the state before the first sample.

        `base`, `slope` are a and b of each cell; `shifts` the last solution by "constraint/member"; `sums` of each cell
        the present counts, predictions and raw scores, of all samples, then of those of label 1; `short` of each cell
        the samples, and the short means; `far` the long mean and how far from it each short mean may lie, `coming` the
        same of now; `labels` counts of labels; `curve` their estimates; `weight` that of the newest sample in `sums`.
        """
        return {
            "base": np.zeros(0),
            "slope": np.zeros(0),
            "shifts": {},
            "prices": {},
            "sums": [[] for _ in range(6)],
            "borrowed": np.zeros((6, 0)),
            "short": [[] for _ in range(3)],
            "far": [[] for _ in range(3)],
            "coming": [[] for _ in range(3)],
            "reference": 0.0,
            "labels": np.zeros((2, 0, 0)),
            "borrowed_labels": np.zeros((2, 0, 0)),
            "curve": np.zeros((0, 0)),
            "weight": 1.0,
            "wait": _FIRST_WAIT,
            "next_refresh": _FIRST_WAIT,
            "solved": -math.inf,
            "solved_at": [[], []],
            "noise": 0.0,
            "unmet": 0.0,
            "guarded": 0.0,
            "cuts": 0.0,
        }

    def grow(self, state: State, stream: Machine) -> State:
        """Return the state with cells that nothing is known of: they are not moved."""
        new = len(stream.history.cells) - len(state["base"])
        if new <= 0:
            return state
        if stream.samples >= self.settle:
            stream.note("category added", f"{new} combinations of categories that the stream had not met")
        empty, bins = np.zeros(new), BINS if _reads_labels(stream) else 0
        more = np.zeros((2, new, bins))
        curve = np.tile(_scale(stream).centres[:bins], (new, 1))
        return {
            **state,
            "base": np.append(state["base"], empty),
            "slope": np.append(state["slope"], empty),
            "sums": [[*row, *empty.tolist()] for row in state["sums"]],
            "borrowed": np.hstack([state["borrowed"], np.zeros((6, new))]),
            "short": [[*row, *empty.tolist()] for row in state["short"]],
            "far": [[*row, *[math.inf] * new] for row in state["far"]],
            "coming": [[*row, *[math.inf] * new] for row in state["coming"]],
            "labels": np.concatenate([_of_width(state["labels"], bins), more], axis=1),
            "borrowed_labels": np.concatenate([_of_width(state["borrowed_labels"], bins), more], axis=1),
            "curve": np.vstack([_of_width(state["curve"], bins), curve]),
            "wait": _FIRST_WAIT,
            "next_refresh": min(state["next_refresh"], stream.samples + _FIRST_WAIT),
        }

    # ---- solving

    def prepare(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> State:
        """Solve anew where that is due: often after a start or a cut, then every sixteenth of the memory.

        A call as large as the wait is learnt from before it is answered.
        """
        large = len(raw) >= state["wait"]
        if stream.samples < state["next_refresh"] and not large:
            return state
        if not large and self._rests(state, stream):
            state["next_refresh"] = stream.samples + state["wait"]  # type: ignore[index]
            return state
        return self._solved(self._cut(state, stream), stream, (cells, raw) if large else None)

    def _solved(self, state: State, stream: Machine, block: tuple[IntArray, FloatArray] | None) -> State:
        sketch, bounds = stream.history.sketch, stream.bounds
        cell, score, weight = sketch.points()
        if block is not None:
            cell, score = np.append(cell, block[0]), np.append(score, block[1])
            weight = np.append(weight, np.ones(len(block[0])))
        labelled, k = _reads_labels(stream), len(stream.history.cells)
        halves = 2 if labelled else 1
        estimate = LabelScale(bounds).read(state["curve"], cell, score) if labelled and k else np.zeros(len(cell))
        recent = float(weight.sum())
        mean = float(weight @ score) / recent if recent > 0 else 0.0
        spread = math.sqrt(max(float(weight @ (score - mean) ** 2) / recent if recent > 0 else 0.0, 1e-12))
        # Points of no weight, last, tell what pull each cell has at the label estimates 0 and 1.
        points = _Points(
            np.concatenate([cell, np.tile(np.arange(k), halves)]),
            np.concatenate([score, np.full(halves * k, mean)]),
            np.concatenate([weight, np.full(halves * k, 1e-9)]),
            np.concatenate([estimate, np.repeat([0.0, 1.0][:halves], k)]),
        )
        bands = self._bands(state, stream, points, spread)
        reach = _FARTHEST if stream.geometry.bounded else max(sketch.high - sketch.low, spread)
        x = _coordinates(stream, points.score)

        def answer(which: IntArray, pulls: FloatArray) -> FloatArray:
            found: FloatArray = stream.geometry.step(x[which][:, None], pulls, *bounds)[0]
            return found

        solved = solve_bands(bands, answer, len(x), limit=reach, before=state["shifts"])
        pulls = solved.pulls[len(cell) :].reshape(halves, k)
        prices = {constraint.name: 0.0 for constraint in stream.constraints}
        shifts: dict[str, float] = {}
        allowed = 1e-9
        for band, t in zip(bands, solved.shifts, strict=True):
            prices[band.owner] += float((np.maximum(t, 0.0) / band.unit).sum()) / max(recent, 1e-9)
            shifts |= {f"{band.owner}/{name}": float(each) for name, each in zip(band.names, t, strict=True)}
            allowed = max(allowed, _UNMET[0] * band.tolerance)
        wait = min(_LONGER * state["wait"], max(_FIRST_WAIT, (stream.memory or 1e3) / _SHARE))
        new = {
            **state,
            **self._short_limits(state, stream, spread),
            "base": pulls[0].copy(),
            "slope": pulls[1] - pulls[0] if labelled else np.zeros(k),
            "shifts": shifts,
            "prices": prices,
            "wait": wait,
            "next_refresh": stream.samples + wait,
            "solved": stream.samples,
            "solved_at": self._means_now(state, spread),
            "noise": 0.0 if self.guard is None else self.guard * spread,
            "unmet": 0.0 if solved.unmet <= allowed + _UNMET[1] else solved.unmet,
        }
        return _lightened(new, stream)

    def _means_now(self, state: State, spread: float) -> list[list[float]]:
        """Return the present raw mean of each cell, and its slack."""
        counts, raw, weight = np.array(state["sums"][0]), np.array(state["sums"][2]), state["weight"]
        safe = np.maximum(counts, 1e-300)
        return [(raw / safe).tolist(), (self.doubt * spread / np.sqrt(np.maximum(safe / weight, 1e-9))).tolist()]

    def _rests(self, state: State, stream: Machine) -> bool:
        """Return whether the raw means have hardly moved beyond the slack of their groups since the last solution.

        A solution is due all the same after half of the memory, after the first, where labels matter, on the way to
        other limits, and where something is repaid.
        """
        due = stream.samples - state["solved"] > 0.5 * (stream.memory or 1e3) or state["wait"] <= 2.0 * _FIRST_WAIT
        busy = _reads_labels(stream) or stream.transition is not None or state["next_refresh"] == 0.0
        if due or busy or self.repair is not None or stream.setting.hold is not None:
            return False
        moved, means = 0.0, state["solved_at"][0]
        if len(means) < len(state["sums"][0]):
            return False
        for count, raw, mean, slack in zip(state["sums"][0], state["sums"][2], *state["solved_at"], strict=False):
            if count > 0.0:
                moved += (count / state["weight"]) * (raw / count - mean) ** 2 / max(slack, 1e-12) ** 2
        return bool(moved <= 2.0 * sum(state["sums"][0]) / state["weight"])

    def _bands(self, state: State, stream: Machine, points: _Points, spread: float) -> list[Band]:
        """Return the band of every statement, with slack, the room of a transition, and debt."""
        cell, values, weights, estimate = points
        if not len(cell) or not len(stream.history.cells):
            return []
        codes = stream.history.codes()[cell]
        columns = {name: codes[:, j] for j, name in enumerate(stream.history.features)}
        groups = Groups.from_codes(columns, stream.vocabulary)
        batch = Batch(groups, len(cell), label_probabilities=estimate, weights=weights)
        batch.raw_scores = lambda: values
        known = _labels_at(state, len(cell))
        found: list[Band] = []
        for constraint in stream.constraints:
            for statement in constraint.statements(batch):
                room = 0.0
                if stream.transition is not None:
                    excess = statement.excess(statement.means.of(values))
                    room = stream.transition.room(constraint.name, stream.samples, excess or 0.0)
                for band in bands_of(constraint.name, statement, weights):
                    size = band.size
                    if constraint.needs_labels:
                        told = np.bincount(band.member, weights=known[band.points], minlength=len(size))
                        size = np.minimum(size, told + self.trust * size)
                    with np.errstate(divide="ignore"):
                        slack = np.where(size > 1e-6, self.doubt * spread / np.sqrt(size), np.inf)
                    found.append(band.with_room(slack, room))
        return debts_of(stream, found, self.repair, float(weights.sum()))

    def _short_limits(self, state: State, stream: Machine, spread: float) -> dict[str, Any]:
        """Return the long mean of each cell, and how far from it the short means may lie, of what came here.

        They are looked at once they are a quarter of the memory old, so that a change cannot hide in what it is
        compared with.
        """
        k = len(stream.history.cells)
        cell, score, weight = stream.history.sketch.own_points()
        total = np.bincount(cell, weights=weight, minlength=k)
        safe = np.maximum(total, 1e-9)
        mean = np.bincount(cell, weights=weight * score, minlength=k) / safe
        square = np.bincount(cell, weights=weight * (score - mean[cell]) ** 2, minlength=k) / safe
        sd = np.sqrt(np.maximum(square, _LEAST_SPREAD * spread**2))
        far = [
            np.where(total > _OLDER * s, surely * self.cut * sd * np.sqrt(0.5 / s + 0.5 / safe), np.inf).tolist()
            for s, surely in zip(_SHORT, _SURELY, strict=True)
        ]
        age = min(stream.samples, stream.memory or math.inf) * _REFERENCE
        if stream.samples - state["reference"] < max(age, _FIRST_WAIT):
            return {}
        new = [mean.tolist(), *far]
        return {"far": state["coming"] if state["coming"][0] else new, "coming": new, "reference": stream.samples}

    def _cut(self, state: State, stream: Machine) -> State:
        """Forget the older scores of each cell whose short means contradict them."""
        cells = _contradicted(state)
        if not cells:
            return state
        short, far, coming = ([list(row) for row in state[name]] for name in ("short", "far", "coming"))
        for row in far[1:]:  # what has changed one cell may have changed the others too
            row[:] = [_SUSPECT * each for each in row]
        for cell in cells:
            for row in (*far[1:], *coming[1:]):
                row[cell] = math.inf
            keep = _since_change(stream.history.sketch.newest(cell), state["far"][0][cell])
            stream.history.sketch.restart(cell, keep)
            short[0][cell] = min(short[0][cell], float(keep))
        names = ", ".join(map(str, cells))
        stream.note("sudden change", f"older scores of the cells {names} were cut off")
        stream.rule.unsettled_until = stream.samples + 0.2 * (stream.memory or 1e3)
        soon = stream.samples - _REFERENCE * (stream.memory or 1e3) + 2.0 * _SHORT[0]
        return {
            **state,
            "short": short,
            "far": far,
            "coming": coming,
            "reference": min(state["reference"], soon),
            "wait": _FIRST_WAIT,
            "cuts": state["cuts"] + len(cells),
        }

    # ---- answering

    def estimate_labels(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> FloatArray:
        """Return the curve of each cell at its raw score; 0 where no constraint reads labels."""
        if not _reads_labels(stream):
            return np.zeros(len(raw))
        return _scale(stream).read(state["curve"], cells, raw)

    def answer(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray) -> Answer:
        """Return the shifted scores, and where the guard would not hold, those that it allows."""
        estimates = self.estimate_labels(state, stream, cells, raw)
        shifted = _shifted(state, stream, cells, raw, estimates)
        emitted, moved = self._guarded_block(state, stream, (cells, raw, estimates), shifted)
        after = {**state, "guarded": state["guarded"] + moved} if moved else None
        return Answer(emitted, shifted, state["unmet"], after)

    def answer_large(
        self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, projected: FloatArray
    ) -> Answer:
        """Return the batch as it was projected by itself: it is a present of its own."""
        return Answer(projected, projected)

    def answer_one(self, state: State, stream: Machine, cell: int, raw: float) -> tuple[float, float, float] | None:
        """Answer one sample in plain numbers."""
        low, high = stream.bounds
        estimate, pull = 0.0, float(state["base"][cell])
        if state["slope"][cell]:
            estimate = float(self.estimate_labels(state, stream, np.array([cell]), np.array([raw]))[0])
            pull += float(state["slope"][cell]) * estimate
        elif "guards" in stream.scratch and stream.scratch["labelled"]:
            estimate = float(self.estimate_labels(state, stream, np.array([cell]), np.array([raw]))[0])
        shifted = emitted = stream.geometry.answer_one(raw, pull, low, high) if pull else _within(raw, low, high)
        guards = _guards(state, stream)
        sample = Sample(cell, state["weight"] * stream.scratch["growth"], estimate, raw, shifted)
        if self.guard is not None:
            for guard in guards:
                if guard.ends(sample, state["noise"]) is not None:
                    emitted = _allowed(guards, sample, state["noise"], stream.bounds)
                    sample = sample._replace(emitted=emitted)
                    state["guarded"] += 1.0  # type: ignore[index]
                    break
        self._count_one(state, stream, sample)
        return emitted, abs(emitted - shifted), state["unmet"]

    def answer_many(self, state: State, stream: Machine, call: Call, emitted: FloatArray) -> bool:
        """Answer a block by its shifts where the guard then holds, and count it."""
        if state["unmet"]:
            return False  # the general way tells the phase of it
        cells, raw = call.cells, call.raw
        estimates = self.estimate_labels(state, stream, cells, raw)
        emitted[:] = _shifted(state, stream, cells, raw, estimates)
        guards = [guard.copy() for guard in _guards(state, stream)]
        weight, sums = _weight_after(state, stream, len(raw)), _sums_of(stream, cells, raw, estimates, emitted)
        for guard in guards:
            guard.add_block(sums, weight)
            if self.guard is not None and not guard.holds(state["noise"], weight):
                return False
        stream.scratch["guards"] = guards
        self._count_sums(state, sums, weight, cells, raw)
        return True

    def _guarded_block(
        self, state: State, stream: Machine, call: tuple[IntArray, FloatArray, FloatArray], shifted: FloatArray
    ) -> tuple[FloatArray, int]:
        """Return a block as it is where the guard then holds, else one after the other; and how many were moved.

        `call` are cells, raw scores and label estimates.
        """
        guards = [guard.copy() for guard in _guards(state, stream)] if self.guard is not None else []
        if not guards:
            return shifted, 0
        weight = _weight_after(state, stream, len(shifted))
        sums = _sums_of(stream, *call, shifted)
        for guard in guards:
            guard.add_block(sums, weight)
        if all(guard.holds(state["noise"], weight) for guard in guards):
            return shifted, 0
        guards = [guard.copy() for guard in _guards(state, stream)]
        emitted, moved = shifted.copy(), 0
        for i, (cell, z, p, y) in enumerate(zip(*(part.tolist() for part in (*call, shifted)), strict=True)):
            sample = Sample(cell, weight, p, z, y)
            emitted[i] = new = _allowed(guards, sample, state["noise"], stream.bounds)
            moved += abs(new - y) > 1e-12
            for guard in guards:
                guard.add(sample._replace(emitted=new))
        return emitted, moved

    # ---- counting

    def count(self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, emitted: FloatArray) -> State:
        """Count a call in the present sums and the short means."""
        self._count_block(state, stream, cells, raw, emitted)
        return state

    def _count_block(
        self, state: State, stream: Machine, cells: IntArray, raw: FloatArray, emitted: FloatArray
    ) -> None:
        guards, weight = _guards(state, stream), _weight_after(state, stream, len(raw))
        sums = _sums_of(stream, cells, raw, self.estimate_labels(state, stream, cells, raw), emitted)
        for guard in guards:
            guard.add_block(sums, weight)
        self._count_sums(state, sums, weight, cells, raw)

    def _count_sums(
        self, state: State, sums: list[list[float]], weight: float, cells: IntArray, raw: FloatArray
    ) -> None:
        for total, new in zip(state["sums"], sums, strict=False):
            for cell, value in enumerate(new):
                total[cell] += weight * value
        _run_short_means(state["short"], sums, cells, raw)
        state["weight"] = weight  # type: ignore[index]
        if _contradicted(state):
            state["next_refresh"] = 0.0  # type: ignore[index]

    def _count_one(self, state: State, stream: Machine, sample: Sample) -> None:
        _add(state, stream.scratch["guards"], stream.scratch["labelled"], sample)
        state["weight"] = sample.weight  # type: ignore[index]
        (seen, first, second), (long, far, farther) = state["short"], state["far"]
        cell = sample.cell
        if seen[cell] > _SURE and (
            abs(first[cell] - long[cell]) > far[cell] or abs(second[cell] - long[cell]) > farther[cell]
        ):
            state["next_refresh"] = 0.0  # type: ignore[index]

    def count_labels(self, state: State, stream: Machine, labelled: Labelled) -> State:
        """Learn from labels: the curve, and the present sums that were counted with estimates."""
        memory, n = stream.memory or math.inf, len(labelled.labels)
        if not _reads_labels(stream):
            return state
        fade, scale = math.exp(-n / (4.0 * memory)), _scale(stream)
        labels = state["labels"] * fade
        where = (labelled.cells, scale.bins(labelled.raw))
        np.add.at(labels[0], where, 1.0)
        np.add.at(labels[1], where, np.clip(labelled.labels, 0.0, 1.0))
        few = labels[0].sum() < 2 * _FIRST_WAIT
        return {
            **state,
            "labels": labels,
            "borrowed_labels": state["borrowed_labels"] * fade,
            "curve": curves(labels, scale) if _grown(state["labels"], labels) else state["curve"],
            "next_refresh": 0.0 if few else state["next_refresh"],
        }

    # ---- what it tells

    def shifts(self, state: State, stream: Machine) -> FloatArray:
        """Return the pull of each cell at an estimate of one half, where labels matter."""
        return np.asarray(state["base"] + 0.5 * state["slope"])

    def prices(self, state: State, stream: Machine) -> dict[str, float]:
        """Return the prices of the last solution: minus the derivative of the mean distance by the limit."""
        return {constraint.name: float(state["prices"].get(constraint.name, 0.0)) for constraint in stream.constraints}

    def meters(self, state: State) -> dict[str, float]:
        """Return how often the guard acted."""
        return {"guarded": state["guarded"]}

    # ---- other streams

    def taken_over(self, state: State, old: State, stream: Machine, rows: IntArray) -> State:
        """Go on with present sums, labels and curves; shifts are solved for anew, from the old ones."""
        if "sums" not in old:
            return state
        k, bins = len(stream.history.cells), state["labels"].shape[2]
        known = {name: old[name] for name in ("shifts", "weight", "noise", "guarded", "cuts")}
        sums = gathered(np.array(old["sums"]).reshape(6, -1), rows, k)
        return self._with_sums({**state, **known}, stream, sums, gathered(_of_width(old["labels"], bins), rows, k))

    def merged(self, state: State, other: State, stream: Machine, rows: IntArray) -> State:
        """Add the other's present sums and labels."""
        k = len(stream.history.cells)
        scale = state["weight"] / other["weight"]
        sums = np.array(state["sums"]) + scale * gathered(np.array(other["sums"]).reshape(6, -1), rows, k)
        bins = max(np.shape(each["labels"])[-1] for each in (state, other))
        ours, theirs = (_of_width(np.array(each["labels"]), bins) for each in (state, other))
        return self._with_sums(state, stream, sums, ours + gathered(theirs, rows, k))

    def heard(self, state: State, stream: Machine, others: list[tuple[Machine, IntArray]]) -> State:
        """Let what other replicas have counted themselves take the place of what they had told before.

        Shifts are solved from the sums of all: no replica adds a correction of its own to those of the others.
        """
        k = len(stream.history.cells)
        bins = max(np.shape(each["labels"])[-1] for each in (state, *(other.own for other, _ in others)))
        labels, borrowed = (_of_width(np.array(state[name]), bins) for name in ("labels", "borrowed_labels"))
        told, told_labels = np.zeros((6, k)), np.zeros_like(labels)
        for other, rows in others:
            own = (np.array(other.own["sums"]).reshape(6, -1) - other.own["borrowed"]) / other.own["weight"]
            told += gathered(own * state["weight"], rows, k)
            theirs = (_of_width(np.array(other.own[name]), bins) for name in ("labels", "borrowed_labels"))
            told_labels += gathered(next(theirs) - next(theirs), rows, k)
        sums = np.maximum(np.array(state["sums"]) + told - state["borrowed"], 0.0)
        labels = np.maximum(labels + told_labels - borrowed, 0.0)
        new = self._with_sums(state, stream, sums, labels)
        return {**new, "borrowed": told, "borrowed_labels": told_labels}

    def _with_sums(self, state: State, stream: Machine, sums: FloatArray, labels: FloatArray) -> State:
        stream.scratch.clear()
        curve = curves(labels, _scale(stream)) if labels.size else state["curve"]
        return {**state, "sums": sums.tolist(), "labels": labels, "curve": curve, "next_refresh": 0.0}


def _of_width(counts: FloatArray, bins: int) -> FloatArray:
    """Return counts (..., cells, bins) as they are, or none where there were none before."""
    return counts if counts.shape[-1] == bins else np.zeros((*counts.shape[:-1], bins))


def _scale(stream: Machine) -> LabelScale:
    found: LabelScale | None = stream.scratch.get("scale")
    if found is None:
        found = stream.scratch["scale"] = LabelScale(stream.bounds)
    return found


def _reads_labels(stream: Machine) -> bool:
    return any(constraint.needs_labels for constraint in stream.constraints)


def _coordinates(stream: Machine, values: FloatArray) -> FloatArray:
    """Return raw scores in the coordinate of the geometry."""
    import torch

    low, high = stream.bounds
    inside = np.clip(values, low, high) if stream.geometry.bounded else values
    return np.asarray(stream.geometry.coordinates(torch.from_numpy(inside), from_logits=False, margin=0.0).numpy())


def _shifted(state: State, stream: Machine, cells: IntArray, raw: FloatArray, estimates: FloatArray) -> FloatArray:
    pulls = state["base"][cells]
    if stream.scratch.get("labelled", True):
        pulls = pulls + state["slope"][cells] * estimates
    low, high = stream.bounds
    found = np.asarray(stream.geometry.answer(raw, pulls, low, high))
    if stream.geometry.bounded:
        found = np.where(pulls == 0.0, np.clip(raw, low, high), found)
    return found


def _grown(before: FloatArray, after: FloatArray) -> bool:
    """Return whether labels are few, or have passed one more sixteenth part of a doubling."""
    last, total = float(before[0].sum()), float(after[0].sum())
    return total < 64.0 or math.floor(16.0 * math.log2(total)) != math.floor(16.0 * math.log2(max(last, 1.0)))


def _within(value: float, low: float | None, high: float | None) -> float:
    value = value if low is None or value > low else low
    return value if high is None or value < high else high


def _guards(state: State, stream: Machine) -> list[Guarded]:
    """Return the guards of the present sums, made anew after cells or sums changed elsewhere."""
    found: list[Guarded] | None = stream.scratch.get("guards")
    if found is None:
        found = guards_of(stream)
        for guard in found:
            guard.fill(state["sums"])
        stream.scratch["guards"] = found
        stream.scratch["growth"] = math.exp(1.0 / (stream.memory or math.inf))
        stream.scratch["labelled"] = _reads_labels(stream)
        _widen(found, stream)
    return found


def _widen(guards: list[Guarded], stream: Machine) -> None:
    """Give each guard the room that a transition leaves, and those of a pair with no debt nothing else."""
    for guard in guards:
        room = 0.0
        if stream.transition is not None:
            room = stream.transition.room(guard.owner, stream.samples, guard.raw_excess())
        guard.room = guard.tolerance + room


def _allowed(guards: list[Guarded], sample: Sample, noise: float, bounds: tuple[float | None, float | None]) -> float:
    """Return the prediction nearest to that of the sample that every guard allows; between them where they clash."""
    least, most = -math.inf, math.inf
    for guard in guards:
        ends = guard.ends(sample, noise)
        if ends is not None:
            least, most = max(least, ends[0]), min(most, ends[1])
    least, most = _within(least, *bounds), _within(most, *bounds)
    if least > most:
        return 0.5 * (least + most)
    return min(max(sample.emitted, least), most)


def _weight_after(state: State, stream: Machine, n: int) -> float:
    """Return the weight of the newest of n samples that come together, all of which weigh as much."""
    return float(state["weight"] * math.exp(n / (stream.memory or math.inf)))


def _sums_of(
    stream: Machine, cells: IntArray, raw: FloatArray, estimates: FloatArray, emitted: FloatArray
) -> list[list[float]]:
    """Return the sums of a block per cell: counts, predictions, raw scores; where labels matter, those of label 1."""
    k = len(stream.history.cells)
    rows: list[FloatArray | None] = [None, emitted, raw]
    if stream.scratch["labelled"]:
        rows += [estimates, estimates * emitted, estimates * raw]
    return [np.bincount(cells, weights=row, minlength=k).tolist() for row in rows]


def _run_short_means(short: list[list[float]], block: list[list[float]], cells: IntArray, raw: FloatArray) -> None:
    """Let the short means of each cell go on: one by one while it has few samples, then by the mean of its block."""
    for cell, n in enumerate(block[0]):
        if not n:
            continue
        seen = short[0][cell]
        if seen < _SHORT[-1]:
            for z in raw[cells == cell].tolist():
                seen += 1.0
                for i, length in ((1, _SHORT[0]), (2, _SHORT[1])):
                    short[i][cell] += (z - short[i][cell]) / min(seen, length)
        else:
            seen, mean = seen + n, block[2][cell] / n
            for i, length in ((1, _SHORT[0]), (2, _SHORT[1])):
                short[i][cell] += (1.0 - (1.0 - 1.0 / length) ** n) * (mean - short[i][cell])
        short[0][cell] = seen


def _add(state: State, guards: list[Guarded], labelled: bool, sample: Sample) -> None:
    """Count one sample in the present sums, the guards and the short means."""
    sums, short = state["sums"], state["short"]
    cell, weight, estimate, raw, emitted = sample
    sums[0][cell] += weight
    sums[1][cell] += weight * emitted
    sums[2][cell] += weight * raw
    if labelled:
        positive = weight * estimate
        sums[3][cell] += positive
        sums[4][cell] += positive * emitted
        sums[5][cell] += positive * raw
    for guard in guards:
        guard.add(sample)
    seen = short[0][cell] = short[0][cell] + 1.0
    for i, length in ((1, _SHORT[0]), (2, _SHORT[1])):
        share = 1.0 / (seen if seen < length else length)
        short[i][cell] += share * (raw - short[i][cell])


def _contradicted(state: State) -> list[int]:
    """Return the cells whose short means lie too far from the long one."""
    (seen, first, second), (long, near, far) = state["short"], state["far"]
    return [
        cell
        for cell, n in enumerate(seen)
        if n > _SURE and (abs(first[cell] - long[cell]) > near[cell] or abs(second[cell] - long[cell]) > far[cell])
    ]


def _since_change(newest: FloatArray, before: float) -> int:
    """Return since how many samples a cell has changed: where the sum of distances to the mean before is clearest."""
    if len(newest) <= _SURE:
        return len(newest)
    n = np.arange(1, len(newest) + 1)
    clear = np.abs(np.cumsum(newest - before)) / np.sqrt(n)
    return int(_SURE) + int(clear[int(_SURE) - 1 :].argmax())


def _labels_at(state: State, points: int) -> FloatArray:
    """Return the labels that have come of each cell, by kind, at the points that stand for it and its label."""
    total, positive = state["labels"].sum(axis=2)
    found = np.zeros(points)
    last = np.concatenate([total - positive, positive])
    found[max(points - len(last), 0) :] = last[-points:] if points else last
    return found


def _lightened(state: Mapping[str, Any], stream: Machine) -> State:
    """Return the state with sums brought back to a weight of 1 where they have grown large; guards follow."""
    weight = state["weight"]
    guards = stream.scratch.get("guards")
    if weight <= _HEAVY:
        if guards is not None:
            _widen(guards, stream)
        return state
    stream.scratch.pop("guards", None)
    sums = (np.array(state["sums"]) / weight).tolist()
    return {**state, "sums": sums, "borrowed": state["borrowed"] / weight, "weight": 1.0}
