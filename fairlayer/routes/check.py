"""Does a trained run bear a load: other limits, other seeds, other people.

Each check is an audit of the same run, or of runs of other seeds, under one change. It passes where the certificates
hold and where no limit that was asked for is broken; its words say what happened to the gap and to the accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fairlayer._typing import FloatArray
from fairlayer.audit import Audit, Outcome, gravest
from fairlayer.data.columns import as_numbers, column_of
from fairlayer.data.encoder import NumericColumn
from fairlayer.errors import DataError, FairlayerError
from fairlayer.training import Run, audit_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Check", "check_run", "check_seeds"]

_LAST_NUMBER = re.compile(r"(?P<before>.*,\s*)(?P<number>\d*\.?\d+)(?P<after>\s*\)\s*)")
_FACTORS = (0.5, 2.0)


@dataclass(frozen=True)
class Check:
    """One check of a run: what was changed, and what came of it.

    Args:
        kind: "tolerance", "seeds", "reweighted", "shift" or "population".
        name: what was changed.
        outcome: PASS, FAIL, INCONCLUSIVE or NOT EVALUATED.
        found: what happened.

    Example:
        >>> found = Check("tolerance", "half the tolerance", Outcome.PASS, "the accuracy falls by 0.2 points")
        >>> found.to_dict()["outcome"]
        'PASS'
    """

    kind: str
    name: str
    outcome: Outcome
    found: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {**vars(self), "outcome": str(self.outcome)}

    def __str__(self) -> str:
        return f"{self.outcome}: {self.name}: {self.found}"


def check_run(
    run: Run,
    frame: pd.DataFrame,
    *,
    limits: Iterable[str] = (),
    populations: Mapping[str, pd.DataFrame] | None = None,
    seed: int = 0,
) -> tuple[Check, ...]:
    """Check a run on a table with outcomes, without training anything.

    Args:
        run: what `load_run` read.
        frame: rows with outcomes that the model was not trained on.
        limits: conditions of failure on decisions and costs, see `audit`.
        populations: name -> rows of other people, such as those of another state.
        seed: the seed of the resampling.

    Raises:
        DataError: the table lacks a column that the run reads, or its outcomes are not those that the run knows.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run = load_run(save_run("run-checked", trained))
        >>> found = check_run(run, read_lending(n=300, seed=1).frame)
        >>> sorted({check.kind for check in found})
        ['as it is', 'reweighted', 'shift', 'tolerance']
    """
    asked = list(limits)

    def audited(changed: Run, rows: pd.DataFrame) -> Audit:
        if len(rows) < changed.layered.b_tau:
            raise DataError(
                f"there are {len(rows)} people, fewer than the smallest batch that the run bounds, "
                f"{changed.layered.b_tau}. Give more of them."
            )
        return audit_run(changed, rows, data="check", limits=asked)

    rng = np.random.default_rng(seed)
    found = [_judged("as it is", "the run as it is", audited(run, frame))]
    found += [
        _check("tolerance", f"every limit times {factor:g}", partial(audited, _scaled(run, factor), frame))
        for factor in _FACTORS
    ]
    found += [
        _check("reweighted", name, partial(audited, run, _resampled(frame, weights, rng)))
        for name, weights in _weightings(run, frame)
    ]
    found += [
        _check("shift", name, partial(audited, run, _resampled(frame, weights, rng)))
        for name, weights in _shifts(run, frame)
    ]
    found += [
        _check("population", f"the people of {name}", partial(audited, run, other))
        for name, other in (populations or {}).items()
    ]
    return tuple(found)


def check_seeds(audits: Mapping[int, Audit]) -> Check:
    """Compare the audits of runs of several seeds.

    Args:
        audits: seed -> the audit of its run.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, audit_trained, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> found = audit_trained(parts, trained)
        >>> check_seeds({0: found, 1: found}).kind
        'seeds'
    """
    outcome = gravest(found.outcome if found.statements else Outcome.PASS for found in audits.values())
    accuracies = [_quality(found) for found in audits.values()]
    gaps = [gap for found in audits.values() if (gap := _gap(found)) is not None]
    accuracy = _span([one for one in accuracies if one is not None])
    told = f"{len(audits)} seeds; accuracy {accuracy}; gap of decisions {_span(gaps)}."
    return Check("seeds", f"seeds {', '.join(map(str, audits))}", outcome, told)


def _check(kind: str, name: str, audited: Callable[[], Audit]) -> Check:
    """Run one audit; a refusal by name, such as a category that the run does not know, is NOT EVALUATED."""
    try:
        found = audited()
    except FairlayerError as error:
        return Check(kind, name, Outcome.NOT_EVALUATED, f"{type(error).__name__}: {error}")
    return _judged(kind, name, found)


def _judged(kind: str, name: str, found: Audit) -> Check:
    broken = [said.answer for said in found.statements if said.outcome is not Outcome.PASS]
    told = [f"{found.table.rows:,.0f} people"]
    quality, gap = _quality(found), _gap(found)
    told += [f"accuracy {quality:.3f}"] if quality is not None else []
    told += [f"gap of decisions {gap:.3f}"] if gap is not None else []
    return Check(kind, name, found.outcome, " ".join(["; ".join(told) + ".", *broken]))


def _scaled(run: Run, factor: float) -> Run:
    """Return the run with every limit, the last number of its text, times a factor; the networks stay as they are."""
    config = run.recipe.config
    texts = tuple(_times(text, factor) for text in config.constraints)
    recipe = replace(run.recipe, config=replace(config, constraints=texts))
    model = recipe.config.model()
    model.backbone = run.layered.backbone
    return Run(model.eval(), recipe, run.plain, run.route)


def _times(text: str, factor: float) -> str:
    """Return a constraint's text with its last number times a factor.

    Example:
        >>> _times("demographic_parity(sex, 0.02)", 2)
        'demographic_parity(sex, 0.04)'
    """
    found = _LAST_NUMBER.fullmatch(text)
    if found is None:
        return text
    return f"{found['before']}{float(found['number']) * factor:g}{found['after']}"


def _weightings(run: Run, frame: pd.DataFrame) -> list[tuple[str, FloatArray]]:
    """Return weights that make the groups equal in size, and that halve the share of outcome 1."""
    found = []
    for name in dict.fromkeys(feature for c in run.recipe.config.parsed() for feature in c.features):
        cut = next((one for one in run.recipe.cuts if one.column == name), None)
        source = frame[name] if cut is None and name in frame.columns else None
        if cut is not None:
            groups = cut.groups(as_numbers(column_of(frame, cut.source, "sensitive")))
        elif source is not None and source.nunique() <= 30:
            groups = source.astype(str).to_numpy()
        else:
            continue
        names, place, count = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
        found.append((f"the groups of {name} made equal in size", 1.0 / count[place] / len(names)))
    if run.recipe.positive is not None:
        positive = column_of(frame, run.recipe.target, "target").astype(str).to_numpy() == run.recipe.positive
        found.append(("half as many people with outcome 1", np.where(positive, 0.5, 1.0)))
    return found


def _shifts(run: Run, frame: pd.DataFrame) -> list[tuple[str, FloatArray]]:
    """Return weights that tilt the people towards high values of the first numeric features, one deviation each."""
    found = []
    for column in run.recipe.encoder.columns:
        if not isinstance(column, NumericColumn):
            continue
        values = (as_numbers(column_of(frame, column.name, "feature")) - column.mean) / column.scale
        tilt = np.exp(np.clip(np.nan_to_num(values), -3, 3))
        found.append((f"people with a higher {column.name} are met more often", tilt))
    return found[:2]


def _resampled(frame: pd.DataFrame, weights: FloatArray, rng: np.random.Generator) -> pd.DataFrame:
    """Return as many rows, drawn with these weights."""
    return frame.iloc[np.sort(rng.choice(len(frame), len(frame), p=weights / weights.sum()))].reset_index(drop=True)


def _quality(found: Audit) -> float | None:
    return next((one.now for one in found.costs if one.metric == "accuracy"), None)


def _gap(found: Audit) -> float | None:
    gaps = [
        one.disparities["demographic_parity"].difference.measured
        for one in found.groupings
        if one.asked and "demographic_parity" in one.disparities
    ]
    return max((gap for gap in gaps if not np.isnan(gap)), default=None)


def _span(values: Sequence[float]) -> str:
    return "not measured" if not values else f"{min(values):.3f} to {max(values):.3f}"
