"""Where single thresholds meet a limit on rates within labels at a high price only: stop a little short, and say so.

Without lots a cell has one point of its curve, and two curves meet where they meet: often only where almost nobody is
selected. A limit of 0 on equalized odds would then be paid for with most of the accuracy, for a difference which no
rows could tell from one of half a point. So where thresholds that stop short of the limit gain clearly more, they are
taken; the allowance is stated as `rounding`, and a warning names what the limit itself would have cost.
"""

from __future__ import annotations

import warnings

from fairlayer._typing import IntArray
from fairlayer.decisions.errors import NeedsRandomisationError
from fairlayer.decisions.problem import Problem
from fairlayer.decisions.program import Optimum
from fairlayer.decisions.whole import choose_counts
from fairlayer.errors import FairlayerWarning

__all__ = ["SHORT", "counts_near_the_limits"]

SHORT = 0.005  # of a difference of rates within a label, how far thresholds may stop from a limit below it


def counts_near_the_limits(problem: Problem, optimum: Optimum) -> tuple[Problem, IntArray]:
    """Return whole counts, and the problem with the allowance that they keep.

    Raises:
        NeedsRandomisationError: no counts were found, not even a little short of the limits.
    """
    roomy = problem.with_room(SHORT)
    widened = any(after is not before for after, before in zip(roomy.rounding, problem.rounding, strict=True))
    try:
        exact = choose_counts(problem, optimum)
    except NeedsRandomisationError:
        if not widened:
            raise
        near = choose_counts(roomy, optimum)
        _warn(problem, "no single threshold per cell was found that meets it exactly")
        return roomy, near
    gained = problem.gain_of(exact)
    if not widened or optimum.gain - gained <= problem.worth:
        return problem, exact
    near = choose_counts(roomy, optimum)
    if roomy.gain_of(near) - gained <= problem.worth:
        return problem, exact
    exactly, short = problem.base + gained, problem.base + roomy.gain_of(near)
    _warn(problem, f"thresholds that meet it exactly have a utility of {exactly:.3f}, and these have {short:.3f}")
    return roomy, near


def _warn(problem: Problem, why: str) -> None:
    asked = [constraint for constraint in problem.constraints if constraint.needs_labels]
    named = [each.name if each.limit is None else f"{each.name} at {each.limit:g}" for each in asked]
    what = f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} met within {SHORT:g} and one sample per cell"
    warnings.warn(
        f"{what}: {why}. Draw lots (randomised=True) to meet it exactly in expectation, or state the tolerance that "
        "you accept.",
        FairlayerWarning,
        stacklevel=6,
    )
