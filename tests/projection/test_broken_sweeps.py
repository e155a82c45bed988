"""Broken compiled sweeps make `holds` False, in the passes over cells and in the lean call of two groups."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.fused import switch
from fairlayer.passes import CompiledPasses
from fairlayer.projection import lean as lean_module

pytest.importorskip("numba", reason="compiled sweeps need numba, the extra 'fused'")

N = 2_400
OPTIONS = [{"bounds": (0.0, 1.0)}, {"geometry": "entropic"}, {"geometry": "likelihood"}]
IN = pytest.mark.parametrize("options", OPTIONS, ids=["euclidean", "entropic", "likelihood"])
Kernel = Callable[..., Any]


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch.SWITCH, "1")
    if switch.loaded() is None:
        monkeypatch.setattr(switch, "_batches", switch._Library(switch.Sweeps))


def _batch(groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(0)
    codes = np.sort(random.integers(0, groups, N))
    scores = np.clip(random.beta(2, 3, N) + 0.1 * codes / groups, 0.01, 0.99)
    return torch.tensor(scores), torch.tensor(codes)


# --- passes over cells


def _sweep_that_drops(sweeps: Any) -> dict[str, Kernel]:
    """The last twenty samples of each cell are missing in its sum."""

    def sweep(*arguments: Any) -> None:
        kind, z, starts, pulls, low, high, sums, _ = arguments
        shorter = starts.copy()
        sweeps.sweep(*arguments)
        for cell in range(len(pulls) - 1):
            shorter[:] = starts[cell + 1]
            shorter[cell] = starts[cell + 1] - 20
            lost, free = np.zeros(len(pulls)), np.zeros(len(pulls))
            sweeps.sweep(kind, z, shorter, pulls, low, high, lost, free)
            sums[cell] -= lost[cell]

    return {"sweep": sweep}


def _emit_by_a_factor_per_sample(sweeps: Any) -> dict[str, Kernel]:
    """Each sample is moved further, or less far, than its pull says; the sums are right."""

    def emit(*arguments: Any) -> None:
        kind, z, codes, pulls, low, high, value, free = arguments
        raw = np.empty_like(value)
        sweeps.emit(kind, z, codes, 0.0 * pulls, low, high, raw, free.copy())
        sweeps.emit(kind, z, codes, pulls, low, high, value, free)
        value[:] = raw + np.linspace(0.5, 1.5, len(value)) * (value - raw)

    return {"emit": emit}


def _emit_of_another_cell(sweeps: Any) -> dict[str, Kernel]:
    """Two cells exchange their pulls when the predictions are written."""

    def emit(kind: int, z: Any, codes: Any, pulls: Any, *rest: Any) -> None:
        swapped = pulls.copy()
        swapped[[0, 1]] = pulls[[1, 0]]
        sweeps.emit(kind, z, codes, swapped, *rest)

    return {"emit": emit}


def _arrange_with_a_sample_twice(sweeps: Any) -> dict[str, Kernel]:
    """The sort takes one score of a cell for thirty others of it."""

    def arrange(*arguments: Any) -> None:
        sweeps.arrange(*arguments)
        ordered = arguments[-1]
        ordered[1:30] = ordered[0]

    return {"arrange": arrange}


def _sweep_and_emit_of_other_scores(sweeps: Any) -> dict[str, Kernel]:
    """A step that goes elsewhere: feasible in the end, not nearest."""

    def sweep(kind: int, z: Any, *rest: Any) -> None:
        sweeps.sweep(kind, z[::-1].copy() if kind == 0 else 0.9 * z + 0.02, *rest)

    def emit(kind: int, z: Any, *rest: Any) -> None:
        sweeps.emit(kind, z[::-1].copy() if kind == 0 else 0.9 * z + 0.02, *rest)

    return {"sweep": sweep, "emit": emit}


@IN
@pytest.mark.parametrize(
    "harm",
    [
        _sweep_that_drops,
        _emit_by_a_factor_per_sample,
        _emit_of_another_cell,
        _arrange_with_a_sample_twice,
        _sweep_and_emit_of_other_scores,
    ],
)
def test_passes_over_cells(options: Any, harm: Callable[[Any], dict[str, Kernel]], monkeypatch: Any) -> None:
    scores, codes = _batch(8)
    rule = fl.DemographicParity("g", 0.01)
    right = fl.project(scores, [rule], sensitive_features={"g": codes}, **options)
    assert isinstance(right.columns[0].solver_passes, CompiledPasses)
    assert right.certificate.holds
    true = switch.loaded().cells
    names = ("arrange", "sweep", "emit")
    broken = SimpleNamespace(**{name: getattr(true, name) for name in names} | harm(true))
    monkeypatch.setattr("fairlayer.passes.compiled.kernels", lambda rows: SimpleNamespace(cells=broken))
    wrong = fl.project(scores, [rule], sensitive_features={"g": codes}, **options)
    assert isinstance(wrong.columns[0].solver_passes, CompiledPasses)
    assert (wrong.value - right.value).abs().max() > 1e-6, "nothing was broken"
    assert not wrong.certificate.holds, wrong.certificate


# --- the lean call


def _numbers(address: int, n: int, kind: Any = ctypes.c_double) -> Any:
    return np.ctypeslib.as_array((kind * n).from_address(address))


def _a_dropped_chunk(solve: Kernel, z: int, codes: int, out: int, n: int, *rest: Any) -> Any:
    ended = solve(z, codes, out, n - 40, *rest)
    _numbers(out, n)[-40:] = _numbers(z, n)[-40:]
    return ended


def _a_swapped_cell(solve: Kernel, z: int, codes: int, out: int, n: int, *rest: Any) -> Any:
    other = _numbers(codes, n, ctypes.c_int64).copy()
    other[:10] = 1 - other[:10]
    return solve(z, other.ctypes.data, out, n, *rest)


def _a_factor_per_sample(solve: Kernel, z: int, codes: int, out: int, n: int, *rest: Any) -> Any:
    ended = solve(z, codes, out, n, *rest)
    raw, value = _numbers(z, n), _numbers(out, n)
    value[:] = raw + np.linspace(0.5, 1.5, n) * (value - raw)
    return ended


def _another_tolerance(solve: Kernel, *arguments: Any) -> Any:
    *batch, tolerance, kind, low, high = arguments
    return solve(*batch, tolerance / 2, kind, low, high)


def _another_multiplier(solve: Kernel, *arguments: Any) -> Any:
    found = list(solve(*arguments))
    found[lean_module._MULTIPLIER] *= 1.1
    return tuple(found)


def _the_constant(solve: Kernel, z: int, codes: int, out: int, n: int, *rest: Any) -> Any:
    """Feasible, not nearest."""
    ended = solve(z, codes, out, n, *rest)
    _numbers(out, n)[:] = _numbers(z, n).mean()
    return ended


@IN
@pytest.mark.parametrize(
    "harm",
    [
        _a_dropped_chunk,
        _a_swapped_cell,
        _a_factor_per_sample,
        _another_tolerance,
        _another_multiplier,
        _the_constant,
    ],
)
def test_the_lean_call(options: Any, harm: Callable[..., Any], monkeypatch: Any) -> None:
    scores, codes = _batch(2)

    def layer() -> fl.FairProjection:
        made = fl.FairProjection([fl.DemographicParity("g", tolerance=0.01)], **options)
        made.fit_categories({"g": [0, 1]})
        made.plan.once._calls = 4  # the next call is none of those that are looked at closely
        return made

    def result_of(made: fl.FairProjection) -> fl.Projection:
        made(scores, sensitive_features={"g": codes})
        assert isinstance(made._last, lean_module.Unread)
        assert made.last is not None
        return made.last

    assert result_of(layer()).certificate.holds
    learn = lean_module.LeanCall._learn

    def broken(self: Any, dtype: torch.dtype, rows: int) -> Any:
        found = learn(self, dtype, rows)
        assert found is not None
        return found._replace(solve=lambda *arguments: harm(found.solve, *arguments))

    monkeypatch.setattr(lean_module.LeanCall, "_learn", broken)
    wrong = result_of(layer())
    assert not wrong.certificate.holds, wrong.certificate
