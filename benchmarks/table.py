"""The ratios that this package holds itself to, each measured in turns, in one run and on one thread.

    python benchmarks/table.py [--quick]

A row is the best time of this package over the best time of what stands beside it, or the other way round where a rival
is slower. `met` compares it with what is asked. Rivals that are not installed are named, and their rows are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from machine import describe, header
from turns import Empty, best, layer_and_batch, step_of  # sets one thread, and compiled sweeps at once

import numpy as np  # isort: skip - after the number of threads is set
import torch  # isort: skip
from torch import nn  # isort: skip

import fairlayer as fl  # isort: skip

_PACKAGES = ["fairlayer", "torch", "numpy", "numba", "cvxpy", "clarabel", "cvxpylayers", "fairness_training"]


class Row(NamedTuple):
    """A ratio, what is asked and aimed at, and whether more is better."""

    name: str
    found: float
    asked: float
    aim: float
    more: bool = False
    times: str = ""

    @property
    def met(self) -> bool:
        """Whether it is as asked."""
        return self.found >= self.asked if self.more else self.found <= self.asked


def whole_call(rounds: int) -> Iterator[Row]:
    """n = 256, forward and backward, over an empty autograd.Function."""
    for dtype in (torch.float32, torch.float64):
        layer, scores, features = layer_and_batch(256, dtype, {"bounds": (0.0, 1.0)})
        ours = step_of(layer, scores, sensitive_features=features)
        for _ in range(70):
            ours()
        mine, empty = best(ours, step_of(Empty.apply, scores), 30, rounds)
        name = f"n = 256, {str(dtype).removeprefix('torch.')}, forward and backward over an empty Function"
        yield Row(name, mine / empty, 1.6, 1.3, times=f"{mine * 1e6:.0f} us over {empty * 1e6:.0f} us")


def rivals(rounds: int) -> Iterator[Row]:
    """The same over libraries that solve the same problem; a program is built once where the library allows it."""
    from problems import make_problem
    from rivals import CvxpyLayers, Fairlayer, FairnessTraining, missing

    asked = {
        ("fairness_training", 256): (180.0, 230.0),
        ("cvxpylayers", 256): (60.0, 75.0),
        ("fairness_training", 4096): (2000.0, 2600.0),
        ("cvxpylayers", 4096): (900.0, 1800.0),
    }
    for n in (256, 4096):
        problem, ours = make_problem(n, 1, torch.float64), Fairlayer()
        ours.prepare(problem)
        for turn in range(140):
            ours.run(problem.batches[turn % len(problem.batches)])
        mine, found = float("inf"), []

        def many(ours: Any = ours, batch: Any = problem.batches[0]) -> None:
            for _ in range(30):
                ours.run(batch)

        for rival in (FairnessTraining(), CvxpyLayers("SCS"), CvxpyLayers("Clarabel")):
            if missing(rival):
                print(f"{rival.name} is not installed: its rows are left out.", file=sys.stderr)
                continue
            rival.prepare(problem)
            rival.run(problem.batches[0])
            turns = max(12, rounds // 4) if n == 256 else max(4, rounds // 20)
            block, theirs = best(many, lambda r=rival, b=problem.batches[0]: r.run(b), 1, turns)
            mine = min(mine, block / 30)
            found.append((rival, theirs))
        for rival, theirs in found:
            goal, aim = asked[rival.package, n]
            times = f"{theirs * 1e3:.1f} ms over {mine * 1e6:.0f} us"
            yield Row(f"n = {n:,}, {rival.name} over it", theirs / mine, goal, aim, more=True, times=times)


def long_batches(rounds: int) -> Iterator[Row]:
    """A million float32 samples, in copies; and one geometry over the other."""
    times = {}
    for name, options in (("euclidean", {"bounds": (0.0, 1.0)}), ("entropic", {"geometry": "entropic"})):
        layer, scores, features = layer_and_batch(1_000_000, torch.float32, options)
        ours, ready = step_of(layer, scores, sensitive_features=features), torch.empty(1_000_000)
        for _ in range(9):
            ours()
        times[name], copy = best(ours, lambda s=scores, r=ready: r.copy_(s.detach()), 2, max(8, rounds // 4))
        if name == "euclidean":
            said = f"{times[name] * 1e3:.1f} ms over {copy * 1e3:.2f} ms"
            yield Row("n = 1e6, float32, in copies into a ready buffer", times[name] / copy, 28.0, 18.0, times=said)
    yield Row("n = 1e6, float32, entropic over euclidean", times["entropic"] / times["euclidean"], 2.0, 1.6)


def training(rounds: int) -> Iterator[Row]:
    """A training step of a small network over the bare one."""

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())

    x, y, sex = torch.randn(256, 30), torch.randint(0, 2, (256, 1)).float(), torch.arange(256) % 2
    model = fl.FairModel(network(), [fl.DemographicParity("sex", tolerance=0.02)], bounds=(0.0, 1.0), margin=1e-3)
    for optimiser in (torch.optim.Adam, torch.optim.SGD):
        steps = []
        for net, given in ((model, {"sensitive_features": {"sex": sex}}), (network(), {})):
            updates: Any = optimiser(net.parameters(), lr=1e-3)

            def step(net: Any = net, given: Any = given, updates: Any = updates) -> None:
                updates.zero_grad()
                nn.functional.binary_cross_entropy(net(x, **given), y).backward()
                updates.step()

            steps.append(step)
        for _ in range(40):
            steps[0]()
        mine, plain = best(steps[0], steps[1], 10, rounds)
        name = f"training step, MLP 30-64-32-1, batch 256, {optimiser.__name__}, over plain"
        yield Row(name, mine / plain, 1.15, 1.07, times=f"{mine * 1e6:.0f} us over {plain * 1e6:.0f} us")


def many_groups(rounds: int) -> Iterator[Row]:
    """One range over many groups; several ranges over a general solver that is built afresh."""
    random, calls = np.random.default_rng(0), []
    for groups in (1000, 10):
        codes = torch.from_numpy(random.integers(0, groups, 200_000))
        layer = fl.FairProjection([fl.DemographicParity("a", tolerance=0.01)], bounds=(0.0, 1.0))
        layer.fit_categories({"a": list(range(groups))})
        lifts = torch.from_numpy(0.2 * random.random(groups))[codes]
        scores = (torch.from_numpy(random.beta(2, 3, 200_000)) * 0.7 + lifts).requires_grad_()
        calls.append(step_of(layer, scores, sensitive_features={"a": codes}))
        for _ in range(3):
            calls[-1]()
    mine, few = best(calls[0], calls[1], 1, max(5, rounds // 10))
    times = f"{mine * 1e3:.1f} ms over {few * 1e3:.1f} ms"
    yield Row("200,000 rows, one range, 1,000 groups over 10", mine / few, 1.5, 1.0, times=times)
    yield from several_ranges(rounds)


def several_ranges(rounds: int) -> Iterator[Row]:
    """Each kind of `many_groups` with more than one range."""
    try:
        from many_groups import KINDS, case, general, projected
    except ImportError as error:
        print(f"{error}: the rows of several ranges are left out.", file=sys.stderr)
        return
    for kind in [kind for kind in KINDS if not kind.startswith("one range")]:
        scores, features, rules = case(kind, 20_000)
        ours = theirs = float("inf")
        for _ in range(max(1, rounds // 100)):
            start = time.perf_counter()
            found = projected(scores, features, rules)
            ours = min(ours, time.perf_counter() - start)
            theirs = min(theirs, general(scores, features, rules)[1])
        assert found.certificate.holds, kind
        times = f"{ours * 1e3:.0f} ms over {theirs * 1e3:.0f} ms"
        yield Row(f"20,000 rows, {kind}, over cvxpy and Clarabel", ours / theirs, 1.0, 0.3, times=times)


MEASURES: tuple[Callable[[int], Iterator[Row]], ...] = (whole_call, rivals, long_batches, training, many_groups)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is that of a run, whatever was met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns: about two minutes")
    rounds = 30 if parser.parse_args(argv).quick else 200
    torch.set_num_threads(1)
    print(header("What is asked, and what was found", describe(1, _PACKAGES)), end="\n\n")
    print("| measured in turns, on one thread | found | asked | aim | met | times |\n|---|---|---|---|---|---|")
    for measure in MEASURES:
        for row in measure(rounds):
            found = f"{row.found:,.0f}" if row.more else f"{row.found:.2f}"
            asked = f"{'at least' if row.more else 'at most'} {row.asked:g}"
            met = "yes" if row.met else "no"
            print(f"| {row.name} | {found} | {asked} | {row.aim:g} | {met} | {row.times} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
