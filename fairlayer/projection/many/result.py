"""What was found of several problems, and the proof of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.projection.assembly import Assembly
from fairlayer.projection.certificate import Certificate, Held, RawBatch, certify
from fairlayer.projection.many.layout import Layout
from fairlayer.projection.result import Projection
from fairlayer.solve import SpreadSlabs

__all__ = ["ManyProjections"]


@dataclass(frozen=True, repr=False)
class ManyProjections:
    """Several projected problems.

    Args:
        value: predictions (b, n), 0 where the mask is False; it follows the scores.
        multipliers: price of each constraint in each problem, by its name, (b,).
        sweeps: the number of sweeps over the samples of all problems together.
        alone: the problems that had to be solved one by one, by their index, with their results.
        names: the names of the constraints.

    Example:
        >>> import torch, fairlayer as fl
        >>> parity = fl.DemographicParity("sex", tolerance=0.1)
        >>> scores, groups = torch.tensor([[0.9, 0.3], [0.5, 0.5]]), {"sex": [["F", "M"], ["F", "M"]]}
        >>> many = fl.project_many(scores, parity, sensitive_features=groups, bounds=(0.0, 1.0))
        >>> many.status, many.certificate(0).holds
        (('projected', 'unchanged'), True)
    """

    value: Tensor
    multipliers: dict[str, Tensor]
    sweeps: int
    alone: dict[int, Projection]
    names: tuple[str, ...]
    _solved: _SolvedAssembly = field(repr=False)

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        count = {each: self.status.count(each) for each in dict.fromkeys(self.status)}
        said = ", ".join(f"{number} {each}" for each, number in count.items())
        alone = f"; solved one by one: {sorted(self.alone)}" if self.alone else ""
        return f"ManyProjections({len(self)} problems: {said}; {self.sweeps} sweeps{alone})"

    @property
    def status(self) -> tuple[str, ...]:
        """`unchanged`, `projected` or `relaxed` for each problem, as of `Projection`."""
        changed = self._solved.changed
        return tuple(
            self.alone[i].status if i in self.alone else "projected" if changed[i] else "unchanged"
            for i in range(len(self))
        )

    def certificate(self, index: int) -> Certificate:
        """Return the proof on the value of one problem, as of `Projection`."""
        if index in self.alone:
            return self.alone[index].certificate
        return self._solved.certificate(range(len(self))[index], self.value.detach())

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """The proof of every problem; each is worked out by itself."""
        return tuple(self.certificate(index) for index in range(len(self)))


@dataclass(frozen=True)
class _SolvedAssembly:
    """All problems in one assembly, with their multipliers.

    Args:
        assembly: the assembly of the samples of all problems.
        layout: its rows.
        raw: all samples as they came.
        problems: which problem each sample is of, (b n,), -1 for none.
        multipliers: (b, m).
        changed: which problems were moved, (b,).
    """

    assembly: Assembly
    layout: Layout
    raw: RawBatch
    problems: IntArray
    multipliers: FloatArray
    changed: BoolArray

    def prices(self) -> FloatArray:
        """Return one price per problem and constraint, (b, constraints)."""
        each = self.multipliers / self.layout.scale
        prices = np.zeros((len(each), self.assembly.constraints))
        for block, slabs in enumerate(self.assembly.slabs.blocks):
            rows = self.layout.block == block
            tied = isinstance(slabs, SpreadSlabs) and slabs.tied
            added = self._net(rows, len(slabs.matrix)) if tied else each[:, rows].sum(axis=1)
            prices[:, self.assembly.owners[block]] += added
        return prices

    def _net(self, rows: BoolArray, members: int) -> FloatArray:
        """Return the price of a spread without slack, whose active pairs may form chains: what its members net."""
        there = self.layout.first[:, rows] >= 0
        amount = np.where(there, self.multipliers[:, rows], 0.0)
        net, owner = np.zeros(members), np.zeros(members, dtype=np.int64)
        np.add.at(net, self.layout.first[:, rows][there], amount[there])
        np.subtract.at(net, self.layout.second[:, rows][there], amount[there])
        owner[self.layout.first[:, rows][there]] = np.nonzero(there)[0]
        return np.bincount(owner, np.maximum(net, 0.0), len(amount)).astype(np.float64, copy=False)

    def certificate(self, index: int, value: Tensor) -> Certificate:
        """Return the proof of one problem, from its samples and the statements about it alone."""
        here = np.flatnonzero(self.problems == index)
        of = torch.from_numpy(here).to(value.device)
        weights = None if self.raw.weights is None else self.raw.weights[here]
        stated, held = [], []
        first, second = self.layout.first[index], self.layout.second[index]
        for block, (statement, _) in enumerate(self.raw.statements):
            rows = np.flatnonzero(self.layout.block == block)
            members = np.flatnonzero(self.layout.owners[block] == index)
            if not len(members):
                continue
            keep = np.zeros(len(statement.matrix), dtype=bool)
            keep[members] = True
            kept = statement.keep(keep)
            means = kept.means
            assert means.codes is not None
            own = _of_samples(means, here)
            stated.append((kept._replace(means=own), 0))
            spread = hasattr(statement, "scale")
            for row in rows.tolist():
                price = float(self.multipliers[index, row] / self.layout.scale[index, row])
                if price > 0.0:
                    other = int(np.searchsorted(members, second[row])) if spread else int(second[row])
                    held.append(Held(len(stated) - 1, int(np.searchsorted(members, first[row])), other, price))
        scores = self.raw.scores[of]
        raw = RawBatch(scores, stated, self.raw.geometry, self.raw.lower, self.raw.upper, weights, None)
        return certify(raw, held, 0.0, value.reshape(-1)[of])


def _of_samples(means: Any, here: IntArray) -> Any:
    from dataclasses import replace

    weights = None if means.sample_weights is None else means.sample_weights[here]
    return replace(means, codes=means.codes[here], sample_weights=weights)
