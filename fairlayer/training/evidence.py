"""A trained run -> an audit: the unconstrained model before, the constrained one now, on rows that neither has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairlayer.audit import (
    Audit,
    Limit,
    Provenance,
    Supplied,
    audit,
    column_warnings,
    sha256_of,
)
from fairlayer.audit.likeness import flips_of, individual_section
from fairlayer.constraints import (
    CovarianceBound,
)
from fairlayer.data import Table, TensorTable
from fairlayer.errors import DataError, ParameterError
from fairlayer.training.comparing import compare
from fairlayer.training.comparison import Comparison
from fairlayer.training.described import describe_route
from fairlayer.training.emission import Emission, emit_in_batches
from fairlayer.training.kept import THROUGH
from fairlayer.training.quality import THRESHOLD
from fairlayer.training.recipe import Recipe
from fairlayer.training.run import Run, finite
from fairlayer.training.session import Parts, Trained
from fairlayer.training.verdicts import SECONDS, as_limit, certified_statement, in_time, not_limited, unbounded

__all__ = ["audit_kept", "audit_run", "audit_trained", "model_hash"]


def audit_trained(
    parts: Parts,
    trained: Trained,
    *,
    limits: Iterable[str | Limit] = (),
    provenance: Provenance | None = None,
    supplied: Supplied | None = None,
    sections: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    inference: bool = False,
    notes: Sequence[str] = (),
) -> Audit:
    """Audit a training on its test rows.

    Args:
        parts: the table made ready.
        trained: both models, and their comparison.
        limits: conditions of failure on decisions and costs, beside the constraints themselves: see `audit`.
        provenance: where the numbers come from.
        supplied: what only people can say.
        sections: further parts of the document, such as a stream.
        seconds: how long the training took; a limit on it is "seconds > 600".
        inference: whether the comparison used the layer's inference regime.
        notes: what a reader has to know first, beside the warnings about the table.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> found = audit_trained(parts, trained, limits=["selection_rate_ratio < 0.5"])
        >>> len(found.statements), str(found.asked.limits[-1].limit)
        (4, 'selection_rate ratio >= 0.5')
    """
    emission = emit_in_batches(trained.model, parts.test, trained.comparison.batch_size, inference=inference)
    return _audited(
        trained.comparison,
        trained.recipe,
        parts.test,
        (_scores(trained.plain, parts.test), emission.scores),
        limits=limits,
        provenance=provenance,
        supplied=supplied,
        warnings=(*notes, *parts.warnings),
        seconds=seconds,
        sections={
            "run": {
                **_run(trained.comparison, trained.recipe, trained.history_svg()),
                "seconds": seconds,
                "route": describe_route(Run(trained.model, trained.recipe, trained.plain)),
            },
            **(sections or {}),
        },
    )


def audit_run(
    run: Run,
    frame: Any,
    *,
    data: str,
    sensitive: Sequence[str] = (),
    limits: Iterable[str | Limit] = (),
    provenance: Provenance | None = None,
    supplied: Supplied | None = None,
) -> Audit:
    """Audit a trained run on a table with outcomes, projected as one batch.

    Args:
        run: what `load_run` read.
        frame: the rows, with the target.
        data: where they come from, for the reader.
        sensitive: further columns of groups, beside those that the constraints read.
        limits: conditions of failure, beside the constraints themselves: see `audit`.
        provenance: where the numbers come from.
        supplied: what only people can say.

    Raises:
        DataError: the table has no outcomes, or lacks a column that the model reads.
        SmallBatchError: it has fewer rows than the smallest batch of the run.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run = load_run(save_run("run-audited", trained))
        >>> found = audit_run(run, read_lending(n=200, seed=1).frame, data="new applications")
        >>> found.table.rows
        200.0
    """
    recipe = run.recipe
    table = Table(data, frame, target=recipe.target, positive=recipe.positive, sensitive=(), cuts=recipe.cuts)
    sample = recipe.sample(frame, table.labels(of_run=True), watched=sensitive)
    return audit_kept(
        run,
        sample,
        batch_size=len(sample),
        watched=sensitive,
        data=data,
        split="all rows of the table",
        rows={"test": len(sample)},
        limits=limits,
        provenance=provenance,
        supplied=supplied,
        warnings=column_warnings(
            {column.name: frame[column.name].to_numpy() for column in recipe.encoder.columns},
            sample.y.numpy() if recipe.positive is not None else None,
            sensitive=tuple(sample.sensitive),
            sources=[cut.source for cut in recipe.cuts],
        ),
        sections={"individual": _flipped(run, frame, tuple(sample.sensitive))},
    )


def _flipped(run: Run, frame: Any, sensitive: Sequence[str]) -> dict[str, Any] | None:
    """Return what the model by itself answers with another value of each sensitive column; None where it reads none."""
    read = [column.name for column in run.recipe.encoder.columns if column.name in sensitive]

    @torch.no_grad()
    def raw_scores(people: Any) -> Any:
        x = torch.from_numpy(run.recipe.encoder.encode(people))
        return run.layered.raw_scores(x).reshape(-1).double().numpy()

    flips = flips_of(raw_scores, frame, read)
    return individual_section(None, flips, decided=run.recipe.positive is not None) if flips else None


def audit_kept(
    run: Run,
    sample: TensorTable,
    *,
    batch_size: int,
    watched: Sequence[str] = (),
    data: str = "",
    split: str = "",
    rows: Mapping[str, int] | None = None,
    chosen_by: str | None = None,
    history: str | None = None,
    limits: Iterable[str | Limit] = (),
    seconds: float | None = None,
    warnings: Sequence[str] = (),
    provenance: Provenance | None = None,
    supplied: Supplied | None = None,
    sections: Mapping[str, Any] | None = None,
) -> Audit:
    """Audit the route that a run keeps, as `predict` applies it, on encoded rows with outcomes.

    What it emits is compared with the raw scores of the same model; of the network that was trained through its layer,
    with the scores of the unconstrained network that was trained beside it. What the projection bounds is judged by its
    certificates; what another route does to decisions or scores is judged on intervals, as any predictions are.

    Args:
        run: what is applied.
        sample: the rows.
        batch_size: rows that are projected together.
        watched: features whose groups are shown although no constraint compares them.
        data, split, rows: where the rows come from, for the reader.
        chosen_by: how the route was chosen, in words.
        history: the picture of the training of a network whose scores count.
        limits: conditions of failure, beside the constraints themselves: see `audit`.
        seconds: how long the training took.
        warnings: what a reader must know first.
        provenance: where the numbers come from.
        supplied: what only people can say.
        sections: further parts of the document.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, load_run, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> run = load_run(save_run("run-kept", trained))
        >>> found = audit_kept(run, parts.test, batch_size=90)
        >>> len(found.statements)
        1
    """
    recipe, route = run.recipe, run.route
    emission = emit_in_batches(run.layered, sample, batch_size, calibrator=route.calibrator)
    through = route.name == THROUGH.name
    before = _scores(run.plain, sample) if through else emission.raw
    baseline = run.plain if through or run.layered.backbone is None else run.layered.backbone
    comparison = compare(
        baseline,
        run.layered,
        sample,
        task=recipe.config.task,
        watched=watched,
        batch_size=batch_size,
        calibrator=route.calibrator,
        data=data,
        split=split,
        rows=rows,
    )
    told = _run(comparison, recipe, history)
    if route.step != "projected":  # nothing is bounded by certificates
        told |= {"constraints": [], "notes": []}
    decided = _decided(run, emission, sample)
    return _audited(
        comparison,
        recipe,
        sample,
        (before, emission.scores if route.step == "projected" else emission.raw),
        decisions=decided,
        certified=route.step == "projected",
        limits=limits,
        seconds=seconds,
        warnings=warnings,
        provenance=provenance,
        supplied=supplied,
        sections={
            "run": {**told, "seconds": seconds, "route": describe_route(run, chosen_by)},
            **(sections or {}),
        },
    )


def _decided(run: Run, emission: Emission, sample: TensorTable) -> Any:
    """Return the decisions of a route that decides otherwise than at 0.5; None of one that does not."""
    route, raw = run.route, emission.raw.astype(np.float64)
    if route.step == "decision rule" and route.rule is not None:
        return route.rule.apply(raw, sensitive_features=sample.sensitive).numpy()
    if route.step != "batch decisions":
        return None
    constraints = run.recipe.config.parsed()
    parts = [batch.rows for batch in emission.batches]
    return np.concatenate([route.decide(raw[part], constraints, sample.take(part).sensitive) for part in parts])


def _audited(
    comparison: Comparison,
    recipe: Recipe,
    sample: TensorTable,
    scores: tuple[Any, Any],
    *,
    decisions: Any = None,
    certified: bool = True,
    limits: Iterable[str | Limit],
    seconds: float | None,
    warnings: Sequence[str],
    sections: Mapping[str, Any],
    **told: Any,
) -> Audit:
    constraints = recipe.config.parsed()
    by = [c.on for c in constraints if c.on and not isinstance(c, CovarianceBound)]
    groups = {name: column for name, column in sample.sensitive.items() if column.dtype.kind != "f"}
    by += [(name,) for name in groups if (name,) not in by]
    if not groups:
        raise ParameterError(
            "an audit compares groups, but the constraints of this run read no feature that is groups. Name a column "
            "by --sensitive when training."
        )
    before, now = (np.asarray(each, dtype=np.float64) for each in scores)
    asked = list(limits)
    timed = [one for one in asked if isinstance(one, str) and SECONDS.fullmatch(one)]
    statements = [in_time(one, seconds) for one in timed]
    if certified:
        results = zip(constraints, comparison.constraints, strict=True)
        statements = [
            *(certified_statement(constraint, result, comparison) for constraint, result in results),
            *statements,
        ]
    else:
        measured = [as_limit(constraint, decided=decisions is not None) for constraint in constraints]
        asked = [*(limit for limit in measured if limit is not None), *asked]
        names = [one.name for one, limit in zip(constraints, measured, strict=True) if limit is None]
        statements = [*(unbounded(name) for name in names), *statements]
    found = audit(
        scores=now,
        scores_before=before,
        decisions=decisions,
        y=sample.y.double().numpy(),
        sensitive_features=groups,
        by=by,
        threshold=comparison.threshold if comparison.task == "classification" else THRESHOLD,
        task="regression" if comparison.task == "regression" else "classification",
        statements=statements,
        limits=[one for one in asked if one not in timed],
        warnings=warnings,
        sections=sections,
        **told,
    )
    return replace(found, warnings=(*not_limited(found), *found.warnings))


@torch.no_grad()
def _scores(plain: torch.nn.Module, sample: TensorTable) -> Any:
    plain.eval()
    return plain(sample.x).numpy()


def _run(comparison: Comparison, recipe: Recipe, history: str | None) -> dict[str, Any]:
    split = f"Split: {comparison.split}." if comparison.split else ""
    rows = ", ".join(f"{part} {count:,}" for part, count in comparison.rows.items())
    told: dict[str, Any] = finite(
        {
            "description": f"{comparison.data} {split} Rows: {rows}.".strip(),
            "batches": comparison.batches,
            "batch_size": comparison.batch_size,
            "violation": comparison.violation,
            "duality_gap": comparison.duality_gap,
            "widening": comparison.widening,
            "notes": comparison.notes,
            "constraints": [asdict(result) for result in comparison.constraints],
            "features": [column.name for column in recipe.encoder.columns],
        }
    )
    return {**told, "history": history}


def model_hash(folder: str | Path) -> str:
    """Return the SHA-256 of a run's checkpoint.

    Args:
        folder: the folder of the run.

    Raises:
        DataError: there is none.

    Example:
        >>> from fairlayer.data.readers import read_lending
        >>> from fairlayer.training import FitOptions, prepare, save_run, train
        >>> parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,), b_tau=32)
        >>> trained = train(parts, FitOptions(epochs=1))
        >>> len(model_hash(save_run("run-hashed", trained)))
        64
    """
    path = Path(folder) / "checkpoint.pt"
    if not path.is_file():
        raise DataError(f"no checkpoint at '{path}'. Give the folder that `fairlayer train ... --out FOLDER` wrote.")
    return sha256_of(path)
