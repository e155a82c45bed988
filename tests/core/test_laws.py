"""The laws of a projection, written once and run for every constraint, geometry, domain and precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.core import truth
from tests.core.cases import DOMAINS, LIKELIHOOD, Case, Domain, Weigher, random_case, solo_case, whole_weights
from tests.core.problems import SOLO_KINDS, Rule, seeds

PROMISED = {torch.float32: 1e-6, torch.float64: 1e-10}
MIX = "a mix"

KINDS = pytest.mark.parametrize("kind", [*SOLO_KINDS, MIX])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
EACH = settings(max_examples=2)


def law(test: Callable[..., None]) -> Callable[..., None]:
    """Run for every constraint x dtype x geometry and domain, on generated problems."""
    return law_in(DOMAINS)(test)


def law_in(domains: tuple[Domain, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same where a law holds in some geometries only."""
    here = pytest.mark.parametrize("domain", domains, ids=str)
    return lambda test: KINDS(DTYPES(here(EACH(given(seed=seeds)(test)))))


def _case(kind: str, seed: int, domain: Domain, dtype: torch.dtype, weigh: Weigher | None = None) -> Case:
    """A case with the scores that the dtype leaves; sets must not depend on them, so calibration has one bin only."""
    make = partial(random_case, seed, domain) if kind == MIX else partial(solo_case, kind, seed, domain)
    case = make(most=24, weigh=weigh)
    return case.edited(rules=tuple(_one_bin(rule) for rule in case.rules)).seen(dtype)


def _one_bin(rule: Rule) -> Rule:
    return replace(rule, limit=max(rule.limit, 1.0), more={"bins": 1}) if rule.kind == "GroupCalibration" else rule


def _project(case: Case, dtype: torch.dtype, raw: np.ndarray | None = None) -> np.ndarray:
    return case.project(raw, dtype=dtype).value.double().numpy()


def _accuracy(case: Case, dtype: torch.dtype, *more: np.ndarray) -> float:
    """What two computations of one prediction may differ by."""
    size = max([case.size, *(float(np.abs(m).max()) for m in more)])
    return (2e-6 if dtype == torch.float32 else 1e-9) * size


def _other(case: Case, rng: np.random.Generator, by: float) -> np.ndarray:
    """Raw scores of another batch of the same people."""
    noise = by * rng.normal(size=case.raw.shape)
    if case.domain.plain or (case.domain.simplex and case.domain.geometry == "euclidean"):
        return case.raw + noise
    moved = np.clip(case.raw * np.exp(noise), 1e-4, 1 - 1e-4)
    return moved / moved.sum(axis=1, keepdims=True) if case.domain.simplex else moved


def _steep(case: Case, *values: np.ndarray) -> np.ndarray:
    """How much the slope of the divergence may change per unit of the predictions, near the ends without limit."""
    if case.domain.geometry == "euclidean":
        return np.ones_like(values[0])
    room = np.min([np.minimum(y, 1 if case.domain.simplex else 1 - y) for y in values], axis=0)
    return 1.0 / np.clip(room, 1e-300, None) ** (2 if case.domain == LIKELIHOOD else 1)


@law
def test_feasible(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """Every rule holds on the returned value to the promised accuracy, computed from its formula; so do the bounds."""
    case = random_case(seed, domain, most=24) if kind == MIX else solo_case(kind, seed, domain, most=24)
    case = case.seen(dtype)
    y = _project(case, dtype)
    for rule in case.rules:
        size = max(1.0, float(np.abs(y).max()), case.reach(rule, y))
        assert case.violation(rule, y) <= PROMISED[dtype] * size, rule
    lower, upper = case.views[0].bounds or (None, None)
    slack = 6e-8 * case.size if dtype == torch.float32 else 0.0
    if not domain.plain:
        lower, upper = 0.0, 1.0
    if not domain.plain and domain.geometry != "euclidean":
        assert ((y > 0) & (y < 1)).all() or domain.simplex
    assert lower is None or (y >= np.asarray(lower) - slack).all()
    assert upper is None or (y <= np.asarray(upper) + slack).all()
    if domain.simplex:
        np.testing.assert_allclose(y.sum(axis=1), 1.0, atol=3e-7 if dtype == torch.float32 else 1e-14)


@law
def test_certificate(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """The certificate speaks of the returned value, and its gap is closed."""
    case = _case(kind, seed, domain, dtype)
    result = case.project(dtype=dtype)
    certificate = result.certificate
    distance = np.sqrt(2.0 * max(0.0, case.divergence(result.value.double().numpy())))
    assert certificate.distance == pytest.approx(distance, rel=1e-6, abs=2e-3 if dtype == torch.float32 else 1e-7)
    assert abs(certificate.duality_gap) <= certificate.gap_atol
    assert certificate.violation <= certificate.atol
    assert certificate.holds


@law
def test_idempotent(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    case = _case(kind, seed, domain, dtype)
    once = _project(case, dtype)
    np.testing.assert_allclose(_project(case, dtype, once), once, atol=2 * _accuracy(case, dtype), rtol=0)


@law
def test_identity_when_feasible(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """Scores that meet every rule with room to spare come back: bit for bit where they are taken as they are."""
    case = _case(kind, seed, domain, dtype)
    if domain.plain and case.views[0].bounds is not None:  # numbers that float32 holds exactly
        case = case.edited(bounds=(0.0, 1.0))
    once = _project(case, dtype)
    for rule in case.rules:
        if rule.kind == "DisparateImpactRatio":  # of negative means a lower ratio asks for more, of zeros for the same
            means = [m for view, y in case.columns(once) for m in truth.group_means(view, rule.on, y)]
            assume(min(means, default=1.0) > 1e-3)
    again = case.edited(rules=tuple(_loosened(rule) for rule in case.rules)).project(once, dtype=dtype)
    rounding = 0.0 if domain.plain else 4 * torch.finfo(dtype).eps
    np.testing.assert_allclose(again.value.double().numpy(), once, rtol=0, atol=rounding)
    assert again.status == "unchanged"
    assert all(not m.any() for m in again.multipliers.values())


def _loosened(rule: Rule) -> Rule:
    if rule.kind.startswith("Affine"):
        more = {"lower": rule.more["lower"] - 0.1, "upper": rule.more["upper"] + 0.1}
        return replace(rule, more={**rule.more, **more})
    if rule.kind == "DisparateImpactRatio":
        return replace(rule, limit=0.5 * rule.limit)
    return replace(rule, limit=rule.limit - 0.1 if rule.kind == "MinimumRate" else rule.limit + 0.1)


@law
def test_firmly_non_expansive(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """sum_i weight_i (d'(Px_i, x_i) - d'(Pz_i, z_i)) (Px_i - Pz_i) <= 0, for any two batches x and z.

    In the Euclidean geometry that is |Px - Pz|^2 <= (Px - Pz)'(x - z), in the entropic one firmness in the sense of
    Bregman distances (Bauschke, Borwein, Combettes 2003, definition 3.4).
    """
    case = _case(kind, seed, domain, dtype)
    rng = np.random.default_rng(seed)
    other = case.at(_other(case, rng, 10.0 ** rng.integers(-3, 1))).seen(dtype)
    x, z = _project(case, dtype), _project(other, dtype)
    slopes = case.slope(x) - other.slope(z)
    error = _accuracy(case, dtype, other.raw)
    rounding = error * (np.abs(slopes) + _steep(case, x, z) * case.weights * np.abs(x - z) + 1.0).sum()
    assert float((slopes * (x - z)).sum()) <= rounding


@law
def test_nearest(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """sum_i weight_i d'(Pz_i, z_i) (w_i - Pz_i) >= 0 for every other feasible w.

    In the Euclidean geometry it is the obtuse angle, in the entropic one Pythagoras,
    d(w, z) >= d(w, Pz) + d(Pz, z) (Csiszar 1975, theorem 2.2), in the likelihood one the condition of Cover (1984).
    """
    case = _case(kind, seed, domain, dtype)
    rng = np.random.default_rng(seed)
    y = _project(case, dtype)
    slope = case.slope(y)
    for _ in range(2):
        w = _project(case, dtype, _other(case, rng, 1.0))
        error = _accuracy(case, dtype, w)
        rounding = error * (np.abs(slope) + _steep(case, y) * case.weights * np.abs(w - y) + 1.0).sum()
        assert float((slope * (w - y)).sum()) >= -rounding
        if domain != LIKELIHOOD:  # whose divergence is convex in its other argument
            between = float((case.weights * domain.divergence(w, y)).sum())
            assert case.divergence(w) >= between + case.divergence(y) - rounding


@law
def test_equivariant_under_permutation(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    case = _case(kind, seed, domain, dtype)
    order = np.random.default_rng(seed).permutation(case.n)
    permuted = _project(case.take(order), dtype)
    np.testing.assert_allclose(permuted, _project(case, dtype)[order], atol=_accuracy(case, dtype), rtol=0)


@law_in(tuple(domain for domain in DOMAINS if domain.simplex))
def test_equivariant_under_permutation_of_classes(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    case = _case(kind, seed, domain, dtype)
    order = np.random.default_rng(seed).permutation(len(case.views))
    permuted = replace(case, views=tuple(case.views[c] for c in order))
    np.testing.assert_allclose(
        _project(permuted, dtype), _project(case, dtype)[:, order], atol=_accuracy(case, dtype), rtol=0
    )


@law
def test_unchanged_by_relabelling(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """Groups under other names, in the opposite order."""
    case = _case(kind, seed, domain, dtype)
    names = case.views[0].features
    features = {name: _renamed(column) if name in "abc" else column for name, column in names.items()}
    rules = tuple(
        replace(r, more={**r.more, "rows": r.more["rows"][:, ::-1]}) if r.kind == "AffineGroups" else r
        for r in case.rules
    )
    renamed = case.edited(features=features, rules=rules)
    np.testing.assert_allclose(_project(renamed, dtype), _project(case, dtype), atol=_accuracy(case, dtype), rtol=0)


def _renamed(codes: np.ndarray) -> np.ndarray:
    return np.array([None if code < 0 else f"group {99 - code}" for code in codes], dtype=object)


@law
def test_unchanged_when_every_sample_is_doubled(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    case = _case(kind, seed, domain, dtype)
    twice = case.take(np.repeat(np.arange(case.n), 2))
    halved = tuple(
        replace(r, more={**r.more, "rows": 0.5 * r.more["rows"]}) if r.kind == "AffineSamples" else r
        for r in twice.rules
    )
    value = _project(twice.edited(rules=halved), dtype)
    expected = np.repeat(_project(case, dtype), 2, axis=0)
    np.testing.assert_allclose(value, expected, atol=_accuracy(case, dtype), rtol=0)


@law
def test_a_weight_is_that_many_rows(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """Whole sample weights equal repeated rows, to 1e-10 in float64; a weight of zero is no row, and moves with its
    cell."""
    case = _case(kind, seed, domain, dtype, whole_weights)
    weights = truth.counted(case.views[0]).astype(int)
    value = _project(case, dtype)
    repeated = case.edited(weights=None).take(np.repeat(np.arange(case.n), weights))
    assume(all(_same_groups(case, repeated, name) for name in "abc"))
    expected = _project(repeated, dtype)
    accuracy = (2e-6 if dtype == torch.float32 else 1e-10) * case.size
    np.testing.assert_allclose(np.repeat(value, weights, axis=0), expected, atol=accuracy, rtol=0)


def _same_groups(case: Case, other: Case, name: str) -> bool:
    """Whether rows of Affine about groups mean the same in both: no category was left out."""
    if not any(rule.kind == "AffineGroups" for rule in case.rules):
        return True
    return set(case.views[0].features[name]) == set(other.views[0].features[name])


@law
def test_unchanged_by_the_unit_of_the_weights(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """All weights times 1e-6 or 1e6: a question of units, for all who count."""
    case = _case(kind, seed, domain, dtype)
    expected = _project(case, dtype)
    for unit in (1e-6, 1e6):
        rules = tuple(
            replace(r, more={**r.more, "rows": r.more["rows"] / unit}) if r.kind == "AffineSamples" else r
            for r in case.rules
        )
        result = case.edited(weights=unit * truth.counted(case.views[0]), rules=rules).project(dtype=dtype)
        off = np.abs(result.value.double().numpy() - expected)[case.weights > 0]
        assert off.max() <= _accuracy(case, dtype)
        assert result.certificate.holds, result.certificate


CELL_KINDS = [k for k in SOLO_KINDS if k not in ("CovarianceBound", "AffineSamples")]


@pytest.mark.parametrize("kind", CELL_KINDS)
@DTYPES
@pytest.mark.parametrize("domain", [domain for domain in DOMAINS if not domain.simplex], ids=str)
@EACH
@given(seed=seeds)
def test_order_kept_within_a_cell(kind: str, dtype: torch.dtype, domain: Domain, seed: int) -> None:
    """Nobody overtakes anybody of the same groups, label and bin; whoever can move moves by the same shift.

    Strictly in the entropic and the likelihood geometry, where score and value are inside (0, 1) as the dtype tells.
    """
    case = solo_case(kind, seed, domain).seen(dtype)
    problem, z, y = case.views[0], case.raw, _project(case, dtype)
    assert problem.labels is not None
    bins = np.floor(np.clip(z, 0, 1 - 1e-9) * problem.rules[0].more.get("bins", 1))
    looked_at = [problem.features[name] for name in "abc"] + [problem.labels, bins]
    cells = np.unique(np.stack(looked_at), axis=1, return_inverse=True)[1].ravel()
    eps = torch.finfo(dtype).eps
    for cell in range(cells.max() + 1):
        inside = np.flatnonzero(cells == cell)
        order = inside[np.argsort(z[inside], kind="stable")]
        assert (np.diff(y[order]) >= 0).all()
        if domain.plain:
            free = order[(y[order] > 0.0) & (y[order] < 1.0)] if problem.bounds else order
            if len(free):
                assert np.ptp(y[free] - z[free]) <= _accuracy(case, dtype)
            continue
        apart = np.diff(z[order]) > 64 * eps  # and no further from each other afterwards than the slope allows
        steep = np.minimum(1.0, (y * (1 - y))[order[1:]] / (z * (1 - z))[order[1:]])
        assert (np.diff(y[order])[apart & (np.diff(z[order]) * steep > 64 * eps)] > 0).all()
        if domain.geometry == "entropic":
            shifts = np.log(y[order] / (1 - y[order])) - np.log(z[order] / (1 - z[order]))
            assert np.ptp(shifts) <= 8 * eps / min(y[order].min(), (1 - y[order]).min(), 1e-3 + z[order].min())


# The likelihood has no such coordinate.
@pytest.mark.parametrize("domain", [domain for domain in DOMAINS if domain.bounded and domain != LIKELIHOOD], ids=str)
@settings(max_examples=10)
@given(seed=seeds, share=st.floats(0.01, 0.99))
def test_the_way_to_the_projection_leads_to_the_projection(domain: Domain, seed: int, share: float) -> None:
    """Every point between z and Pz, in the coordinate of the geometry, has the same projection.

    Samples of weight 0 move by the multipliers of their groups, of which there may be several.
    """
    case = _case(MIX, seed, domain, torch.float64)
    assume(not any(rule.kind == "GroupCalibration" for rule in case.rules))
    z, y = case.raw, _project(case, torch.float64)
    if domain.geometry == "euclidean":
        between = z + share * (y - z)
    else:
        assume(y.min() > 1e-6)
        between = z ** (1 - share) * y**share
        across = (1 - z) ** (1 - share) * (1 - y) ** share
        between = between / (between.sum(axis=1, keepdims=True) if domain.simplex else between + across)
    off = np.abs(_project(case, torch.float64, between) - y)[case.weights > 0]
    assert off.max() <= 1e-8 * case.size
