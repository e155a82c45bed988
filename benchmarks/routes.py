"""Routes side by side on six data sets: this package's, and Fairlearn's and fairret's on the same rows.

    python benchmarks/routes.py --data FOLDER --rows 5000 --seeds 3

Every finished run is kept in `--out`, so a benchmark that was cut off goes on where it was; `--table` only prints.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads

limit_threads(1)

import numpy as np  # noqa: E402 - after the number of threads is set
import torch  # noqa: E402

from fairlayer.data.readers import READERS  # noqa: E402
from fairlayer.data.table import Table  # noqa: E402
from fairlayer.routes import Candidate, TrainedRoutes, compare_routes, train_routes  # noqa: E402
from fairlayer.routes.criterion import default_criterion  # noqa: E402
from fairlayer.training import FitOptions, Observed, fit_trees, prepare  # noqa: E402
from fairlayer.training.session import Parts, losses_of  # noqa: E402

SETS = {
    "adult": "sex",
    "german": "age_group",
    "bank": "age_group",
    "acsincome": "SEX",
    "communities_crime": "racepctblack_group",
    "lending": "sex",
}
LIMITS = (0.02, 0.05)


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the data sets (default: FAIRLAYER_DATA, else the public originals)")
    parser.add_argument("--rows", type=int, default=5000, help="rows drawn from each set (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limits", type=float, nargs="+", default=list(LIMITS))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--out", default="routes.jsonl", help="file of finished runs (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table of the runs that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(arguments.out)
    if not arguments.table:
        done = {(run["set"], run["seed"], run["limit"]) for run in _read(out)}
        for seed in range(arguments.seeds):
            for name in arguments.sets:
                for limit in arguments.limits:
                    if (name, seed, limit) not in done:
                        _keep(out, _run(name, seed, limit, arguments))
    print(header(f"Routes, {arguments.rows} rows of each set, sensitive column not an input", _facts()))
    print(table(_read(out)))


def _facts() -> dict[str, Any]:
    return describe(1, ("fairlayer", "torch", "numpy", "scikit-learn", "fairlearn", "fairret"))


def _run(name: str, seed: int, limit: float, arguments: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    data = READERS[name](None if name == "lending" else arguments.data)
    constraint = f"demographic_parity({SETS[name]}, {limit})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = prepare(_drawn(data, arguments.rows, seed), [constraint], drop_sensitive=True, seed=seed)
        options = FitOptions(epochs=arguments.epochs, batch_size=256, seed=seed)
        found = train_routes(parts, options)
        rivals = [] if parts.recipe.config.task == "regression" else list(_rivals(parts, found, limit, seed, options))
    routes = {route.name: _numbers(route) for route in [*found.routes.routes, *rivals]}
    task = parts.recipe.config.task
    recommended = {
        kind: found.routes.chosen_by(default_criterion(task, decisions=kind == "decisions")).name
        for kind in (("scores",) if task == "regression" else ("scores", "decisions"))
    }
    losses = _losses(parts, found)
    seconds = time.perf_counter() - start
    print(f"{name} seed {seed} limit {limit}: {seconds:.0f} s", flush=True)
    return {
        "set": name,
        "seed": seed,
        "limit": limit,
        "task": task,
        "test_rows": len(parts.test),
        "routes": routes,
        "recommended": recommended,
        "paired": _paired(losses, "trained through", "plain, projected"),
        "beside": {route: _paired(losses, recommended["scores"], route) for route in losses},
        "rivals": [route.name for route in rivals],
        "seconds": seconds,
    }


def _drawn(data: Table, rows: int, seed: int) -> Table:
    frame = data.frame.sample(min(rows, len(data.frame)), random_state=seed).reset_index(drop=True)
    return replace(
        data, frame=frame, split=None, not_features=(*data.not_features, *([data.split] if data.split else []))
    )


def _numbers(route: Any) -> dict[str, Any]:
    test = route.test
    [score] = test.score_gaps.values()
    decisions = list(test.decision_gaps.values())
    return {
        **test.measures,
        "score_gap": score.value,
        "decision_gap": decisions[0].value if decisions else None,
        "estimated_gap": decisions[0].estimate if decisions else None,
        "flips": test.flips.get("all"),
        "seconds": route.seconds,
    }


def _losses(parts: Parts, found: TrainedRoutes) -> dict[str, Any]:
    """The loss of each test row, by route."""
    each = {}
    for route in found.routes.routes:
        run = found.run(route.name)
        with torch.no_grad():
            if route.step == "projected":
                scores = run.layered(parts.test.x, sensitive_features=parts.test.sensitive)
            else:
                scores = run.layered.raw_scores(parts.test.x)
        each[route.name] = losses_of(scores.clamp(1e-7, 1 - 1e-7), parts.test.y, parts.recipe.config.loss)
    return each


def _paired(losses: dict[str, Any], one: str, other: str) -> dict[str, float]:
    """Loss of one route minus that of another, per test row: mean and its standard error."""
    difference = losses[one] - losses[other]
    return {"mean": float(difference.mean()), "error": float(difference.std() / len(difference) ** 0.5)}


def _rivals(parts: Parts, found: TrainedRoutes, limit: float, seed: int, options: FitOptions) -> Iterator[Any]:
    """Fairlearn's ThresholdOptimizer on both models' scores, its ExponentiatedGradient on trees; fairret's loss."""
    [feature] = {name for c in parts.recipe.config.parsed() for name in c.on}
    valid, test = (Observed(part.sensitive, part.y.numpy()) for part in (parts.valid, parts.test))
    for name, model in (("plain", found.trained.plain), ("trees", found.trees)):
        with torch.no_grad():
            scores = [np.asarray(model(part.x).numpy(), dtype=np.float64) for part in (parts.valid, parts.test)]
        decided = _thresholds(scores, valid, test, feature, limit)
        yield _rival(f"{name}, ThresholdOptimizer", decided, scores, parts, valid, test)
    yield _rival("trees, ExponentiatedGradient", *_reductions(parts, feature, limit, seed), parts, valid, test)
    scores = _fairret(parts, feature, options)
    yield _rival("fairret, projected", None, scores, parts, valid, test)


def _rival(  # noqa: PLR0917 - a method, and on which rows
    name: str, decided: Any, scores: Any, parts: Parts, valid: Observed, test: Observed
) -> Any:
    """A rival's route: its own decisions where it makes some, else its scores, projected as ours are."""
    config = parts.recipe.config
    step: Any = "projected" if decided is None else "as it is"
    candidate = Candidate(name, *scores, steps=(step,), titles={step: name})
    [route] = compare_routes([candidate], config.parsed(), valid=valid, test=test, bounds=config.bounds).routes
    if decided is None:
        return route
    from fairlayer.routes.numbers import numbers_of

    before = (scores[1] >= 0.5).astype(np.int64)
    numbers = numbers_of(scores[1], decided, before, test, config.parsed(), task="classification")
    return replace(route, test=numbers)


def _thresholds(scores: Any, valid: Observed, test: Observed, feature: str, limit: float) -> Any:
    from fairlearn.postprocessing import ThresholdOptimizer
    from frontier_fairlearn import Given

    rule = ThresholdOptimizer(
        estimator=Given(), constraints="demographic_parity", prefit=True, predict_method="predict_proba", tol=limit
    )
    rule.fit(scores[0][:, None], valid.labels, sensitive_features=valid.sensitive[feature])
    decided = rule.predict(scores[1][:, None], sensitive_features=test.sensitive[feature], random_state=0)
    return np.asarray(decided).astype(np.int64)


def _reductions(parts: Parts, feature: str, limit: float, seed: int) -> tuple[Any, Any]:
    from fairlearn.reductions import DemographicParity, ExponentiatedGradient

    forest = fit_trees(parts.train, seed=seed).estimator
    method = ExponentiatedGradient(
        forest.set_params(max_iter=60, early_stopping=False), DemographicParity(difference_bound=limit), max_iter=8
    )
    method.fit(parts.train.x.numpy(), parts.train.y.numpy(), sensitive_features=parts.train.sensitive[feature])
    scores = [np.asarray(method._pmf_predict(part.x.numpy())[:, 1]) for part in (parts.valid, parts.test)]
    return np.asarray(method.predict(parts.test.x.numpy(), random_state=0)).astype(np.int64), scores


def _fairret(parts: Parts, feature: str, options: FitOptions) -> Any:
    """The same network with fairret's norm of the positive rates, at a fixed weight of 1."""
    import fairret.statistic

    from fairlayer.data import StratifiedBatchSampler
    from fairlayer.penalties import fairret_penalty

    torch.manual_seed(options.seed)
    network = parts.recipe.config.network()
    penalty = fairret_penalty(fairret.statistic.PositiveRate(), feature)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
    batches = StratifiedBatchSampler(parts.train.sensitive[feature], batch_size=options.batch_size, seed=options.seed)
    for epoch in range(options.epochs):
        batches.set_epoch(epoch)
        for rows in batches:
            batch = parts.train.take(rows)
            emitted = network(batch.x)
            loss = torch.nn.functional.binary_cross_entropy(emitted, batch.y)
            loss = loss + penalty(emitted, sensitive_features=batch.sensitive)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        return [np.asarray(network(part.x).numpy(), dtype=np.float64) for part in (parts.valid, parts.test)]


def _keep(out: Path, run: dict[str, Any]) -> None:
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def _read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


def table(runs: list[dict[str, Any]]) -> str:
    """Return the means over seeds, set by set, and what the paired differences and the recommendations came to."""
    lines = []
    for name in dict.fromkeys(run["set"] for run in runs):
        for limit in LIMITS:
            some = [run for run in runs if run["set"] == name and run["limit"] == limit]
            if some:
                lines += _block(name, limit, some)
    return "\n".join([*lines, "", *_verdicts(runs)])


def _block(name: str, limit: float, runs: list[dict[str, Any]]) -> list[str]:
    regression = runs[0]["task"] == "regression"
    columns = ("mse", "r2", "score_gap") if regression else (
        "accuracy", "auc", "log_loss", "brier", "calibration", "score_gap", "decision_gap", "flips", "seconds",
    )  # fmt: skip
    heads = " ".join(f"{column.replace('_gap', ''):>11}" for column in columns)
    lines = ["", f"{name}, limit {limit}, {len(runs)} seeds, {runs[0]['test_rows']} test rows", f"{'':30}{heads}"]
    for route in runs[0]["routes"]:
        means = [_mean([run["routes"][route][column] for run in runs if route in run["routes"]]) for column in columns]
        lines.append(f"{route:30}" + " ".join("          -" if m is None else f"{m:11.4f}" for m in means))
    paired = [run["paired"]["mean"] for run in runs]
    error = np.std(paired, ddof=1) / len(paired) ** 0.5 if len(paired) > 1 else runs[0]["paired"]["error"]
    lines.append(f"loss, trained through minus projected afterwards: {np.mean(paired):+.5f} +- {error:.5f}")
    return lines


def _mean(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _verdicts(runs: list[dict[str, Any]]) -> list[str]:
    """How often the recommended route is the best on test rows, or within a standard error of it."""
    lines = []
    for kind in ("scores", "decisions"):
        hits, total = 0, 0
        for run in runs:
            if kind not in run["recommended"]:
                continue
            total += 1
            hits += _is_best(run, kind)
        lines.append(
            f"recommended for its {kind}: the best on test rows, or within one standard error, in {hits} of {total}"
        )
    return lines


def _is_best(run: dict[str, Any], kind: str) -> bool:
    own = {name: numbers for name, numbers in run["routes"].items() if name not in run["rivals"]}
    chosen = own[run["recommended"][kind]]
    if kind == "scores":
        kept = [name for name, numbers in own.items() if numbers["score_gap"] <= run["limit"] + 1e-6]
        return all(run["beside"][name]["mean"] <= run["beside"][name]["error"] + 1e-12 for name in kept or own)
    # the gap of decisions on test rows scatters around the limit, by about two points
    near = [numbers for numbers in own.values() if numbers["decision_gap"] <= run["limit"] + 0.02]
    best = max(numbers["accuracy"] for numbers in near or own.values())
    error = (chosen["accuracy"] * (1 - chosen["accuracy"]) / run["test_rows"]) ** 0.5
    return bool(chosen["accuracy"] >= best - error)


if __name__ == "__main__":
    main()
