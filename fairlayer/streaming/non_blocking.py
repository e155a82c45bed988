"""A stream that does not wait for its accelerator: where that can be, the steps there, and their counting on the host.

The calls run in a `Lane`. The machine counts them when it solves for the feed-forward, from what had been sent when it
was solved the time before; or when somebody reads.
"""

from __future__ import annotations

import warnings
from math import inf
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fairlayer._arrays import transforming
from fairlayer.errors import CategoryError, NonFiniteScoresError
from fairlayer.groups import Vocabulary
from fairlayer.streaming.device import LARGEST_CALL, Call, Rule
from fairlayer.streaming.lane import Block, Lane, place_of
from fairlayer.streaming.lookup import CellLookup
from fairlayer.streaming.machine import Machine
from fairlayer.streaming.policies.pooled import Pooled, at_bounds, sums_of
from fairlayer.streaming.single import clip

__all__ = ["NonBlocking"]


class NonBlocking:
    """The calls of a stream on devices. Each reason why one waits is said once."""

    def __init__(self) -> None:
        self.closed: bool | None = None  # whether all categories are known; None while nobody has said
        self._run: _Run | None = None
        self._rejected = _Rejected()
        self._said = set[str]()

    def know(self, vocabulary: Vocabulary | None) -> None:
        """Learn whether all categories are known from what a call was given; nothing says nothing new."""
        if vocabulary is not None or self.closed is None:
            self.closed = vocabulary is not None and not vocabulary.open

    def emit(self, machine: Machine, lookup: CellLookup, scores: Tensor, features: Any) -> Tensor | None:
        """Emit where the scores are, and do not wait for them; None where it cannot be (and nothing has changed)."""
        if len(scores) > LARGEST_CALL or transforming():
            self._explain(_HOST_ONLY)
            return None
        run = self._run
        if run is None or machine.arrears != run.collect or run.lane.place != place_of(scores.device):
            run = self._run = self._begin(machine, scores.device)
        if run is None:
            return None
        column = run.column(lookup, scores, features)
        if isinstance(column, str):
            self._explain(column)
            return None
        return run.emit(column, scores)

    def explain_what_is_given(self, **given: Any) -> None:
        """Warn where an argument makes a call wait."""
        for name, value in given.items():
            if value is not None:
                self._explain(_GIVEN[name])

    def complain(self) -> None:
        """Raise, once, what the devices found wrong with their samples."""
        self._rejected.complain()

    def _begin(self, machine: Machine, device: torch.device) -> _Run | None:
        machine.catch_up()
        if self.closed is None:
            return None
        reason = _reason(machine, self.closed)
        if reason is None and not {(0,), (1,)} <= machine.history.index.keys():
            return None  # the host meets a group for the first time
        sums = sums_of(machine)
        if reason is None and (sums is None or len(sums.spreads) != 1 or len(sums.spreads[0].count) != 2):
            reason = f"{machine.constraints[0].name} compares no plain means of two groups"
        if reason is not None or sums is None:
            self._explain(str(reason))
            return None
        policy = cast(Pooled, machine.policy)  # only these have a rule for devices
        return _Run(machine, policy, sums.spreads[0].tolerance, device, self._rejected)

    def _explain(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            warnings.warn(
                f"non_blocking=True, but this call waits for the device: {reason}. Further calls wait for this reason "
                "without a warning. docs/streaming.md, 'On an accelerator', says which do not.",
                stacklevel=6,
            )


_HOST_ONLY = f"more than {LARGEST_CALL} samples at once, or a torch.func transform, are for the host"
_GIVEN = {
    "ids": "ids= are kept on the host",
    "y": "y= is counted on the host",
    "projected": "a batch of at least b_tau samples is projected on the host",
}


def _reason(machine: Machine, closed: bool) -> str | None:
    """Why the calls of a stream wait, as far as its arguments and categories tell."""
    names = ", ".join(constraint.name for constraint in machine.constraints)
    if len(machine.constraints) != 1 or len(machine.features) != 1:
        return f"one parity over one feature can be held there, not [{names}]"
    if machine.policy.device_rule() is None:
        return f"the policy {machine.policy} runs on the host"
    if not closed:
        return "a new category may come; call fit_categories(...), or pass a closed vocabulary=, before streaming"
    categories = machine.vocabulary.categories.get(machine.features[0], ())
    return None if len(categories) == 2 else f"{names} compares {len(categories)} categories, not two"


class _Rejected:
    """Samples that were emitted as NaN."""

    def __init__(self) -> None:
        self.not_finite = self.unknown = 0

    def add(self, block: Block) -> None:
        """Count those of a block."""
        unknown = int((~block.good & (block.codes == -2)).sum())
        self.unknown += unknown
        self.not_finite += int((~block.good).sum()) - unknown

    def complain(self) -> None:
        """Raise where there are any, and forget them."""
        not_finite, unknown, self.not_finite, self.unknown = self.not_finite, self.unknown, 0, 0
        end = "emitted as NaN on the device and not counted. This is said once, at the first reading since."
        if not_finite:
            raise NonFiniteScoresError(
                f"{not_finite} scores were NaN, infinite or beyond 1e28 (and {unknown} samples had an unknown "
                f"category), {end}"
            )
        if unknown:
            raise CategoryError(f"{unknown} samples had a category that is not among the known two, {end}")


class _Run:
    """Calls of a machine on one device, until they are collected.

    Args:
        machine: both its groups have been met; it lends its sums.
        policy: its policy.
        tolerance: on the gap of its groups.
        device: where the calls run.
        rejected: where bad samples are noted.
    """

    def __init__(
        self,
        machine: Machine,
        policy: Pooled,
        tolerance: float,
        device: torch.device,
        rejected: _Rejected,
    ) -> None:
        self.machine, self.policy, self.tolerance, self.rejected = machine, policy, tolerance, rejected
        history, [name] = machine.history, machine.features
        categories = machine.vocabulary.categories[name]
        self.named = any(isinstance(category, str) for category in categories)
        numbers = [code if isinstance(word, str) else int(word) for code, word in enumerate(categories)]
        cells = [history.index[(code,)] for code in range(2)]
        self.numbers = np.zeros(max(cells) + 1, dtype=np.int64)  # of each cell
        self.numbers[cells] = numbers
        past = [history.sums[name][cells].tolist() for name in ("count", "emitted")]
        rule = policy.device_rule()
        assert rule is not None
        self.lane = Lane(numbers, cells, past, Rule(device, machine.bounds, *rule))
        self.lane.shift(machine.shifts)
        machine.lend(self.collect)

    def column(self, lookup: CellLookup, scores: Tensor, features: Any) -> Tensor | str:
        """Return the number of each sample's group, (n,), on the device; or why that is not to be had."""
        n = len(scores)
        column = features.get(self.machine.features[0]) if type(features) is dict else features
        if isinstance(column, Tensor) and column.device == scores.device:
            return column if column.shape == (n,) and not self.named else "its categories are no column of numbers (n,)"
        cells = lookup.many(features, n)
        if cells is None or (cells == lookup.size).any():
            return "its categories, on the host, are missing or new, or no dict of one column (n,)"
        return torch.from_numpy(self.numbers[cells]).to(scores.device, non_blocking=True)

    def emit(self, column: Tensor, scores: Tensor) -> Tensor:
        """Emit one call of scores (n,) or (n, 1)."""
        machine, lane, policy = self.machine, self.lane, self.policy
        samples = machine.rule.samples + lane.uncounted
        if samples >= machine.own["next_refresh"]:
            self._count()
            machine.take_on(policy.solved(machine.own, machine, machine.rule.samples + lane.uncounted))
            lane.shift(machine.shifts)
        samples += len(scores)
        width = max(self.tolerance + policy.slack(samples), 0.0)
        cap = policy.cap(samples)
        return lane.emit(column, scores, Call(width, None if cap == inf else self.tolerance + cap))

    def collect(self) -> None:
        """Count every call, and wait for those that run."""
        self.lane.send()
        self._count()

    def _count(self) -> None:
        """Count the calls that were sent."""
        for block in self.lane.receive():
            self._count_block(block)

    def _count_block(self, block: Block) -> None:
        machine, rule, good = self.machine, self.machine.rule, block.good
        codes, raw, emitted = block.codes[good], block.raw[good], block.emitted[good]
        machine.history.emit(machine.locate(codes[:, None]), raw, emitted)
        moved = np.abs(emitted - clip(self.policy.near(machine, raw - block.shifts[codes]), machine.bounds))
        calls = block.per_call(good, moved)
        for n, correction in calls:
            rule.observe(float(n), correction, 0.0)
        if calls and at_bounds(emitted[-calls[-1][0] :], machine.bounds):
            found, slack = machine.measured()[machine.constraints[0].name], self.policy.slack(rule.samples)
            excess = 0.0 if found is None or found.excess is None else found.excess
            rule.widening = max(excess - max(slack, 0.0), 0.0)
        self.rejected.add(block)
        if rule.cold:
            rule.cold = machine.unseen()
