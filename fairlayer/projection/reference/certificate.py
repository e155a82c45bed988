"""Proof, on the returned value, that it meets the statements and is nearest."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fairlayer._typing import FloatArray
from fairlayer.constraints import Spread, Statement
from fairlayer.projection.certificate import Certificate
from fairlayer.projection.reference.conditions import row_sizes
from fairlayer.projection.reference.solving import SolvedTask
from fairlayer.projection.reference.task import Task

__all__ = ["certify", "violation"]

_ATOL = {torch.float64: 1e-9, torch.float32: 1e-6}


def certify(task: Task, solved: SolvedTask, returned: Tensor) -> Certificate:
    """Judge a value. The duality gap is Clarabel's own, plus what clip and cast added to the objective."""
    final = returned.double().cpu().numpy()
    primal = 0.5 * float(((final - task.scores) ** 2).sum())
    added = primal - 0.5 * float(((solved.ending.value - task.scores) ** 2).sum())
    limits = [abs(condition.constant) for conditions, _ in solved.held() for condition in conditions.conditions]
    atol = _ATOL[returned.dtype] * max(1.0, float(np.abs(task.scores).max()), *limits)
    distance = math.sqrt(2.0 * primal)
    return Certificate(
        violation=violation(task, solved, final),
        bound_violation=task.outside(final),
        duality_gap=solved.ending.gap + added,
        distance=distance,
        atol=atol,
        gap_atol=atol * math.sqrt(len(final)) * max(1.0, distance),
    )


def violation(task: Task, solved: SolvedTask, value: FloatArray) -> float:
    """Return the largest violation of a statement (rows in units of their widening) or convex constraint."""
    each = [
        _statement_violation(statement, value, float(tolerance)) - solved.widening
        for statement, tolerance in zip(task.assembly.statements, task.tolerances, strict=True)
    ]
    return max([*each, solved.program.violation(value)])


def _statement_violation(statement: Statement, value: FloatArray, tolerance: float) -> float:
    members = statement.members(statement.means.of(value))
    if isinstance(statement, Spread):
        return float(statement.gap(members)) - tolerance
    return float(((statement.gaps(members) - tolerance) / row_sizes(statement)).max())
