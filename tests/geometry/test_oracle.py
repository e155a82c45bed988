"""Every geometry against a conic program, on problems stated twice: by fairlayer and by `truth`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from fairlayer.errors import FairlayerWarning
from tests.core.cases import DOMAINS, Case, Domain, random_case
from tests.geometry import oracle

CLOSE = 1e-6
CLOSE_ENOUGH = 2e-5  # where the conic solver has no more
BLOCK = 20


def check(case: Case, dtype: torch.dtype = torch.float64) -> float:
    """Certificate true, every rule met as documented, value that of the oracle; return how far it is from it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FairlayerWarning)  # of random limits that cannot bind, and groups alone
        result = case.project(dtype=dtype)
    case, y = case.seen(dtype), result.value.double().numpy()
    promised, close = (1e-10, CLOSE) if dtype == torch.float64 else (1e-6, 1e-5)
    assert result.certificate.holds, f"{case.name}: {result.certificate}"
    assert result.status in ("unchanged", "projected"), case.name
    for rule in case.rules:
        broken = case.violation(rule, y)
        assert broken <= promised * max(1.0, case.reach(rule, y)), f"{case.name}: {rule}, {broken:.3g}"
    exact = y if dtype == torch.float64 else case.project().value.numpy()
    assert np.abs(exact - y).max() <= promised * case.size, case.name  # float32 is the float64 answer, rounded
    off = distance_from_oracle(case, exact, close)
    assert off <= close, f"{case.name}: {off:.3g} off the oracle"
    return off


def distance_from_oracle(case: Case, y: np.ndarray, close: float) -> float:
    """Largest distance to the oracle's answer, where samples count; 0 where the oracle's own is further away.

    The conic solver is asked again, for less, where it stops short. Where its value is within 2e-5 and the objective
    of y is no higher than its own, it has no more to say. In the end the optimality conditions decide.
    """
    counted, least = case.weights > 0, np.inf
    for accuracy in (1e-10, 1e-8):
        answer = oracle.conic(case, accuracy)
        if answer is None:
            continue
        off = float(np.abs(y - answer.y)[counted].max()) / case.size
        inside = np.clip(answer.y, 1e-12, 1 - 1e-12) if not case.domain.plain else answer.y
        nearer = case.divergence(y) <= case.divergence(inside) + 1e-10
        least = min(least, 0.0 if close < off <= CLOSE_ENOUGH and nearer else off)
        if least <= close:
            return least
    return min(least, oracle.residual(case, y))


def _domain(seed: int) -> Domain:
    return DOMAINS[1:][seed % 5]  # the line has no geometry but the euclidean one, which tests/core measures


@pytest.mark.rival
@pytest.mark.parametrize("block", range(3))
def test_equals_a_conic_solver(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        check(random_case(seed, _domain(seed), most=40))


@pytest.mark.rival
@pytest.mark.slow
@pytest.mark.parametrize("block", range(3, 103))
def test_equals_a_conic_solver_on_thousands(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        check(random_case(seed, _domain(seed)))


@pytest.mark.rival
def test_float32_within_what_it_promises() -> None:
    for seed in range(5000, 5015):
        check(random_case(seed, _domain(seed), most=40), torch.float32)


@pytest.mark.rival
@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_float32_in_hundreds(block: int) -> None:
    for seed in range(6000 + block * BLOCK, 6000 + (block + 1) * BLOCK):
        check(random_case(seed, _domain(seed)), torch.float32)


@pytest.mark.rival
@pytest.mark.parametrize("domain", DOMAINS[1:], ids=str)
def test_the_oracle_would_notice(domain: Domain) -> None:
    """Values that are feasible but not nearest, or nearest without the rules, are refused by it and by the residual."""
    cases = (random_case(seed, domain, most=20) for seed in range(100))
    case = next(c for c in cases if c.rules and c.project().status == "projected" and not c.from_logits)
    y = case.project().value.numpy()
    assert oracle.residual(case, y) <= 1e-6
    other = np.random.default_rng(0).permutation(case.raw)
    wrongs = [wrong for wrong in (case.raw, case.project(other).value.numpy()) if np.abs(wrong - y).max() > 1e-3]
    assert wrongs
    for wrong in wrongs:
        assert distance_from_oracle(case, wrong, CLOSE) > 1e-4
