"""Routes side by side on six data sets: this package's, and those of other libraries on the same rows.

    python benchmarks/routes.py --data FOLDER --rows 6000 --seeds 3

Every finished run is kept in `--out`, so a benchmark that was cut off goes on where it was; `--table` only prints.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import describe, header, limit_threads

limit_threads(1)

import torch  # noqa: E402 - after the number of threads is set
from routes_rivals import raw_scores, rival_routes  # noqa: E402
from routes_table import table  # noqa: E402

from fairlayer.data.readers import READERS  # noqa: E402
from fairlayer.data.table import Table  # noqa: E402
from fairlayer.routes import Candidate, Route, TrainedRoutes, compare_routes, train_routes  # noqa: E402
from fairlayer.routes.criterion import default_criterion  # noqa: E402
from fairlayer.training import FitOptions, Observed, prepare  # noqa: E402
from fairlayer.training.session import Parts  # noqa: E402

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
    parser.add_argument("--rows", type=int, default=6000, help="rows drawn from each set (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="the seeds are this one and those after it")
    parser.add_argument(
        "--quick", action="store_true", help="without the rivals that train, which take most of the time"
    )
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--out", default="routes.jsonl", help="file of finished runs (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table of the runs that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(arguments.out)
    if not arguments.table:
        done = {(run["set"], run["seed"]) for run in _read(out)}
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for name in arguments.sets:
                if (name, seed) not in done:
                    _keep(out, _run(name, seed, arguments))
    print(header(f"Routes, {arguments.rows} rows of each set, sensitive column not an input", _facts()))
    print(table(_read(out)))


def _facts() -> dict[str, Any]:
    libraries = ("fairlayer", "torch", "numpy", "scikit-learn", "fairlearn", "fairret", "fairness_training")
    return describe(1, libraries)


def _run(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train every route and rival at the first limit; at the others decide on the same scores anew."""
    start = time.perf_counter()
    data = READERS[name](None if name == "lending" else arguments.data)
    options = FitOptions(epochs=arguments.epochs, batch_size=256, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        constraints = [f"demographic_parity({SETS[name]}, {limit})" for limit in LIMITS]
        parts = prepare(drawn(data, arguments.rows, seed), constraints[:1], drop_sensitive=True, seed=seed)
        found = train_routes(parts, options)
        routes = {LIMITS[0]: list(found.routes.routes)}
        for limit, constraint in zip(LIMITS[1:], constraints[1:], strict=True):
            routes[limit] = _again(parts, found, constraint)
        rivals = list(rival_routes(parts, found, SETS[name], LIMITS, options, quick=arguments.quick))
    task, losses = parts.recipe.config.task, _losses(parts, found)
    recommended = {
        kind: found.routes.chosen_by(default_criterion(task, decisions=kind == "decisions")).name
        for kind in (("scores",) if task == "regression" else ("scores", "decisions"))
    }
    seconds = time.perf_counter() - start
    print(f"{name} seed {seed}: {seconds:.0f} s", flush=True)
    return {
        "set": name,
        "seed": seed,
        "task": task,
        "test_rows": len(parts.test),
        "limits": list(LIMITS),
        "routes": [_told(route, limit, parts, rival=False) for limit in routes for route in routes[limit]]
        + [_told(route, limit, parts, rival=True) for limit, route in rivals],
        "recommended": recommended,
        "paired": _paired(losses, "trained through", "plain, projected"),
        "beside": {route: _paired(losses, recommended["scores"], route) for route in losses},
        "seconds": seconds,
    }


def drawn(data: Table, rows: int, seed: int) -> Table:
    """Draw some rows of a table; its own split is set aside."""
    frame = data.frame.sample(min(rows, len(data.frame)), random_state=seed).reset_index(drop=True)
    return replace(
        data, frame=frame, split=None, not_features=(*data.not_features, *([data.split] if data.split else []))
    )


def _again(parts: Parts, found: TrainedRoutes, constraint: str) -> list[Route]:
    """The routes of the plain network, of the trees and of both under another limit."""
    config = parts.recipe.config
    if config.task == "regression":
        return []
    valid, test = (Observed(part.sensitive, part.y.numpy()) for part in (parts.valid, parts.test))
    candidates = [Candidate(name, *raw_scores(found.run(name).layered, parts)) for name in ("plain", "trees", "both")]
    return list(compare_routes(candidates, constraint, valid=valid, test=test, bounds=config.bounds).routes)


def _told(route: Route, limit: float, parts: Parts, *, rival: bool) -> dict[str, Any]:
    """What the table reads of a route; `right` says of each test row whether the decision was right."""
    score, decisions = next(iter(route.test.score_gaps.values())), list(route.test.decision_gaps.values())
    valid = list(route.valid.decision_gaps.values())
    return {
        "name": route.name,
        "limit": limit,
        "rival": rival,
        **route.test.measures,
        "score_gap": score.value,
        "decision_gap": decisions[0].value if decisions else None,
        "estimated_gap": decisions[0].estimate if decisions else None,
        "expected_gap": None if route.expected is None else route.expected.new_rows.mean,
        "valid_accuracy": route.valid.measures.get("accuracy"),
        "valid_beyond": valid[0].beyond() if valid else None,
        "flips": route.test.flips.get("all"),
        "constant": route.test.constant,
        "seconds": route.seconds,
        "right": None if route.decisions is None else "".join(map(str, 1 * (route.decisions == parts.test.y.numpy()))),
    }


def _losses(parts: Parts, found: TrainedRoutes) -> dict[str, Any]:
    """The loss of each test row, by route."""
    scores = {route.name: torch.from_numpy(route.scores).clamp(1e-7, 1 - 1e-7) for route in found.routes.routes}
    return {name: _losses_of(each, parts.test.y, parts.recipe.config.loss) for name, each in scores.items()}


def _losses_of(scores: torch.Tensor, y: torch.Tensor, loss: str) -> torch.Tensor:
    """The loss of each row, "cross_entropy" or "squared_error"."""
    if loss == "cross_entropy":
        return torch.nn.functional.binary_cross_entropy(scores.double(), y.double(), reduction="none")
    return (scores.double() - y.double()).square()


def _paired(losses: dict[str, Any], one: str, other: str) -> dict[str, float]:
    """Loss of one route minus that of another, per test row: mean and its standard error."""
    difference = losses[one] - losses[other]
    return {"mean": float(difference.mean()), "error": float(difference.std() / len(difference) ** 0.5)}


def _keep(out: Path, run: dict[str, Any]) -> None:
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def _read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


if __name__ == "__main__":
    main()
