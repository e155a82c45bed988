"""Scores -> decisions that keep the constraints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fairlayer._typing import FloatArray, IntArray
from fairlayer.decisions.inputs import ACCURACY, as_scores, like, read_scores
from fairlayer.decisions.lottery import FIXED, draw_decisions, offset_of, weigh_decisions
from fairlayer.decisions.plan import DecisionPlan, make_plan
from fairlayer.decisions.result import Decisions
from fairlayer.decisions.rule import rule_of
from fairlayer.edge import Stated, check_row_order

__all__ = ["decide"]


def decide(
    scores: Any,
    constraints: Stated,
    *,
    sensitive_features: Any = None,
    y: Any = None,
    label_probabilities: Any = None,
    capacity: int | None = None,
    utility: Any = ACCURACY,
    randomised: bool = False,
    seed: int | None = 0,
    sample_weight: Any = None,
) -> Decisions:
    """Return yes or no for each score, so that the *decisions* of this batch meet the constraints within 1/n_g.

        maximise sum_g gain_g(k_g)   subject to   lower <= C (k_g / n_g) <= upper,   sum_g k_g <= capacity

    In each cell (combination of the sensitive features) the k_g highest scores are selected. Expectations over
    the label are by y where it is given, else by label_probabilities, else by the scores, which are then
    read as calibrated probabilities. Constraints on labels are read in the same way, and there is still one threshold
    per cell: the label is not known when a decision is made.

    What holds. The gap of the decisions is within tolerance + `rounding`, the share of one sample per cell, and the
    capacity is never exceeded. With constraints on labels this is so for distinct scores (among equal ones, those
    taken are chosen without regard to the label), and such k_g may not exist or not be found: then an error says so.
    A limit below 0.005 on rates within labels is met within 0.005 where meeting it exactly gains clearly less; then a
    warning gives both utilities, and `rounding` includes what is left.
    With `randomised=True` every statement holds exactly in expectation, and the number selected in each cell is within
    1 of its expectation; the gap within a label also has the chance of the draw.

    Args:
        scores: tensor, array or list (n,) or (n, 1); any finite numbers where y or label_probabilities are given.
        constraints: what must hold for the decisions: any that speak of groups, or of groups and labels.
        sensitive_features: see `project`; unknown categories make cells of their own, which nothing compares.
        y: labels 0 or 1 (n,).
        label_probabilities: probabilities of label 1 (n,).
        capacity: the most samples to select.
        utility: 2 x 2, `utility[label][decision]`; by default 1 for a right decision, so that it is the accuracy.
            For a table of costs give its negative.
        randomised: draw lots between thresholds, where exact parity needs it.
        seed: the seed of the lots; None draws fresh ones.
        sample_weight: how many samples each row stands for (n,), 0 or more; None for one each. Rates, gaps, utility,
            counts and the capacity are then by weight, and "one sample" above is one row with its weight.

    Raises:
        InfeasibleConstraintsError: no thresholds meet the constraints, lots or not.
        NeedsRandomisationError: none were found without lots.
        LabelValueError, UtilityError, ShapeError, NonFiniteScoresError, ...: bad input.

    Source: Hardt, Price, Srebro (2016), section 4; Corbett-Davies et al. (2017), section 3 (thresholds per group are
        optimal); the reduction to one small program for any constraints is this package's.

    Example:
        >>> import torch, fairlayer as fl
        >>> from fairlayer.decisions import decide
        >>> scores = torch.tensor([0.9, 0.8, 0.6, 0.4, 0.7, 0.45, 0.3, 0.1])
        >>> sex = {"sex": ["F"] * 4 + ["M"] * 4}
        >>> result = decide(scores, [fl.DemographicParity("sex", tolerance=0.0)], sensitive_features=sex)
        >>> result.decisions.tolist(), result.selected
        ([1, 1, 0, 0, 1, 1, 0, 0], {'sex=F': 2, 'sex=M': 2})
        >>> result.gaps, round(result.expected_utility, 4)
        ({"DemographicParity('sex')": 0.0}, 0.6812)
    """
    check_row_order(
        scores=scores,
        sensitive_features=sensitive_features,
        y=y,
        label_probabilities=label_probabilities,
        sample_weight=sample_weight,
    )
    tensor = as_scores(scores)
    plan = make_plan(
        read_scores(tensor),
        constraints,
        sensitive_features=sensitive_features,
        y=y,
        label_probabilities=label_probabilities,
        capacity=capacity,
        utility=utility,
        randomised=randomised,
        sample_weight=sample_weight,
    )
    rule, partition = rule_of(plan), plan.problem.partition
    probabilities = rule.probabilities_in(plan.problem.scores, partition.cell_of)
    offset = offset_of(seed) if randomised else FIXED
    weights = plan.problem.batch.weights
    if weights is None or randomised:
        decisions = draw_decisions(probabilities, partition.cell_of, plan.problem.scores, offset)
    else:
        decisions = weigh_decisions(probabilities, partition.cell_of, plan.problem.scores, weights)
    counts = _by_cell(partition.cell_of, None, weights, len(rule.cells))
    selected = _by_cell(partition.cell_of, decisions, weights, len(rule.cells))
    chosen = decisions.astype(np.float64)
    return Decisions(
        decisions=like(tensor, decisions, torch.int64),
        probabilities=like(tensor, probabilities, torch.float64),
        rule=rule,
        counts=dict(zip(rule.names, counts.tolist(), strict=True)),
        selected=dict(zip(rule.names, selected.tolist(), strict=True)),
        expected_utility=plan.problem.utility_of(chosen),
        utility_bound=plan.problem.base + plan.optimum.gain,
        **_per_constraint(plan, chosen),
        capacity_price=_capacity_price(plan),
        absent=plan.problem.assembly.absent,
    )


def _per_constraint(plan: DecisionPlan, decisions: FloatArray) -> dict[str, Any]:
    problem = plan.problem
    names = _distinct([constraint.name for constraint in problem.constraints])
    prices = [0.0] * len(names)
    for owner, price in zip(problem.assembly.owners, plan.optimum.prices.tolist(), strict=False):
        prices[owner] += price
    measured = dict(zip(names, problem.measured_on(decisions), strict=True))
    return {
        "gaps": {name: found.value for name, found in measured.items()},
        "measured": measured,
        "rounding": {name: problem.rounding_of(owner) for owner, name in enumerate(names)},
        "multipliers": dict(zip(names, prices, strict=True)),
    }


def _by_cell(cell_of: IntArray, decisions: IntArray | None, weights: FloatArray | None, cells: int) -> Any:
    """Return the samples, or those selected, by cell: whole numbers where samples have no weights."""
    ones = np.ones(len(cell_of)) if weights is None else weights
    sums = np.bincount(cell_of, weights=ones if decisions is None else ones * decisions, minlength=cells)
    return sums.astype(np.int64) if weights is None else sums


def _capacity_price(plan: DecisionPlan) -> float:
    """The limit is a share of the batch, and so is the gain: the price per place of their sum is the same number."""
    limited = len(plan.optimum.prices) > len(plan.problem.assembly.owners)
    return float(plan.optimum.prices[-1]) if limited else 0.0


def _distinct(names: list[str]) -> list[str]:
    """Number the names from the second of the same kind on, as `project` does."""
    numbers = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name if k == 1 else f"{name} #{k}" for name, k in zip(names, numbers, strict=True)]
