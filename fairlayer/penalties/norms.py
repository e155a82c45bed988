"""One number from the statements of a batch: the norms of a penalty.

With e_f the excess of face f over its limit, tolerance included, and d_s the gap of statement s: for a `Spread`
`scale * max(v) - min(v)`, for a row its distance from the limits, tolerance left out where there are two of them:

    squared    sum_s [d_s]_+^2
    variance   sum_s 4 / members * sum_i (v_i - mean v)^2 of a `Spread`, for two groups d_s^2; of a row [d_s]_+^2
    abs        sum_s [d_s]_+
    hinge      sum_s [worst e of s]_+
    logsumexp  smoothing * log(1 + sum_f exp(e_f / smoothing))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.constraints import Spread, Statement
from fairlayer.constraints.statements import Tolerance, as_float
from fairlayer.penalties.faces import faces, gaps, present_faces
from fairlayer.penalties.means import Bounded

__all__ = ["NORMS", "one_sided"]

Norm = Callable[[Sequence[Bounded], float], list[Tensor]]


def _squared(measured: Sequence[Bounded], smoothing: float) -> list[Tensor]:
    return [gaps(m, one_sided(m.statement)).relu().square().sum() for m in measured]


def _variance(measured: Sequence[Bounded], smoothing: float) -> list[Tensor]:
    found = []
    for m in measured:
        if isinstance(m.statement, Spread) and m.statement.scale == 1.0:
            v = m.values[torch.as_tensor(np.flatnonzero(m.present), device=m.values.device)]
            found.append(4.0 / max(1, len(v)) * (v - v.mean()).square().sum() if len(v) > 1 else v.sum() * 0.0)
        else:
            found += _squared([m], smoothing)
    return found


def _abs(measured: Sequence[Bounded], smoothing: float) -> list[Tensor]:
    return [gaps(m, one_sided(m.statement)).relu().sum() for m in measured]


def _hinge(measured: Sequence[Bounded], smoothing: float) -> list[Tensor]:
    return [gaps(m, m.statement.tolerance).relu().sum() for m in measured]


def _logsumexp(measured: Sequence[Bounded], smoothing: float) -> list[Tensor]:
    found = [faces(m, m.statement.tolerance)[torch.from_numpy(present_faces(m)).to(m.values.device)] for m in measured]
    if not found:
        return []
    excess = torch.cat([found[0].new_zeros(1), *(e / smoothing for e in found)])  # exp(0) is the 1 in the formula
    return [smoothing * torch.logsumexp(excess, dim=0)]


def one_sided(statement: Statement) -> Tolerance | FloatArray:
    """Return the tolerance where it is the limit itself (a floor, a cap), 0 where it is a band around parity."""
    if isinstance(statement, Spread):
        return 0.0
    two_sided = np.isfinite(statement.lower_offset) & np.isfinite(statement.upper_offset)
    if not two_sided.any():
        return statement.tolerance
    return np.where(two_sided, 0.0, as_float(statement.tolerance))


NORMS: Mapping[str, Norm] = {
    "squared": _squared,
    "variance": _variance,
    "abs": _abs,
    "hinge": _hinge,
    "logsumexp": _logsumexp,
}
