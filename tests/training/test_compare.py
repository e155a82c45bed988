"""The comparison of both models, and what must be said beside its numbers."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairlayer import constraints as c
from fairlayer.data import Table, TensorTable
from fairlayer.data.errors import ColumnError
from fairlayer.data.readers import READERS, read_lending
from fairlayer.errors import DataError, SmallBatchError
from fairlayer.model import FairModel
from fairlayer.training import FitOptions, Trained, compare, emit_in_batches, prepare, train
from fairlayer.training.fitting import fit
from fairlayer.training.session import Parts


def test_every_test_batch_meets_its_constraints(trained: Trained) -> None:
    comparison = trained.comparison
    assert comparison.batches == 3
    assert comparison.violation <= 1e-6
    for result in comparison.constraints:
        assert result.worst_batch is not None
        assert result.worst_batch <= result.scores.constrained.limit + 1e-6


def test_the_numbers_are_those_of_sklearn_and_numpy(trained: Trained, parts: Parts) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    test, labels = parts.test, parts.test.y.numpy()
    with torch.no_grad():
        scores = trained.plain(test.x).numpy()
    quality = trained.comparison.quality
    assert quality["auc"].unconstrained == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert quality["accuracy"].unconstrained == pytest.approx(metrics.accuracy_score(labels, scores >= 0.5))
    female = test.sensitive["sex"] == "female"
    [group] = [g for g in trained.comparison.groups if g.name == "sex=female"]
    assert (group.count, group.mean_score.unconstrained) == (
        female.sum(),
        pytest.approx(scores[female].mean()),
    )
    gap = trained.comparison.constraints[0].scores.unconstrained.value
    assert gap == pytest.approx(abs(scores[female].mean() - scores[~female].mean()), abs=1e-6)  # float32 means
    points = 100 * (quality["accuracy"].unconstrained - quality["accuracy"].constrained)  # type: ignore[operator]
    assert trained.comparison.cost == pytest.approx(points)


def test_both_gaps_counts_and_multipliers_are_there(trained: Trained) -> None:
    for result in trained.comparison.constraints:
        assert result.decisions is not None
        for gap in (result.scores.unconstrained, result.scores.constrained, result.decisions.constrained):
            assert gap.value is not None
        assert result.multiplier >= 0
        assert result.bounded_by == "groups"
    names = [group.name for group in trained.comparison.groups]
    assert {"sex=female", "sex=female & region=rural", "age_band=60+"} <= set(names)  # watched ones too
    assert all(sum(group.histogram.constrained) == pytest.approx(1) for group in trained.comparison.groups)


def test_the_result_is_json(trained: Trained) -> None:
    state = json.loads(json.dumps(trained.comparison.to_dict()))
    assert state["quality"]["auc"]["constrained"] == trained.comparison.quality["auc"].constrained
    assert "Note" not in state["notes"][0]
    assert "not bounded" in state["notes"][0]


def test_training_through_the_layer_takes_smaller_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[bool, float]] = []

    def noted(*given: Any, options: FitOptions, start_competes: bool, **more: Any) -> Any:
        rates.append((start_competes, options.learning_rate))
        return fit(*given, options=options, start_competes=start_competes, **more)

    monkeypatch.setattr("fairlayer.training.session.fit", noted)
    parts = prepare(read_lending(n=300), ["demographic_parity(sex, 0.05)"], hidden=(4,))
    trained = train(parts, FitOptions(epochs=1, learning_rate=0.02))
    assert rates == [(False, 0.02), (True, 0.005)]
    assert trained.options.learning_rate == 0.02  # what the user asked for is what the run says


def test_training_through_the_layer_starts_from_the_unconstrained_network_which_competes(lending: Table) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    loose = prepare(read_lending(n=600, seed=2), ["demographic_parity(sex, 0.02)"], hidden=(4,))
    flipped = TensorTable(loose.valid.x, 1 - loose.valid.y, loose.valid.sensitive)  # learning more makes it worse
    options = FitOptions(epochs=4, batch_size=64, learning_rate=0.05)
    trained = train(replace(loose, valid=flipped), options)
    assert torch.equal(torch.rand(3), expected)  # the caller's random numbers are where they were
    assert trained.fits.constrained.best == 0
    backbone = trained.model.backbone
    assert backbone is not None
    for ours, theirs in zip(backbone.parameters(), trained.plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.data
@pytest.mark.parametrize(("name", "rows"), [("adult", 4000), ("german", None)])
def test_trained_through_is_no_worse_than_projected_afterwards_on_its_own_loss(
    name: str, rows: int | None, data_folder: Path
) -> None:
    table = READERS[name](data_folder)
    frame = table.frame if rows is None else table.frame.sample(rows, random_state=0)
    parts = prepare(
        replace(table, frame=frame.reset_index(drop=True), split=None),
        [f"demographic_parity({table.sensitive[0]}, 0.02)"],
        hidden=(16,),
        drop_sensitive=True,
    )
    trained = train(parts, FitOptions(epochs=8, batch_size=256))
    afterwards = parts.recipe.config.around(copy.deepcopy(trained.plain))

    def losses(model: FairModel, rows: TensorTable) -> torch.Tensor:
        scores = torch.from_numpy(emit_in_batches(model, rows, len(rows)).scores)
        return torch.nn.functional.binary_cross_entropy(scores, rows.y, reduction="none")

    assert parts.recipe.config.loss == "cross_entropy"
    paired = losses(trained.model, parts.test) - losses(afterwards, parts.test)
    assert paired.mean() <= paired.std() / len(paired) ** 0.5 + 1e-6
    best = min(epoch.valid_loss for epoch in trained.fits.constrained.history)
    assert losses(trained.model, parts.valid).mean() <= losses(afterwards, parts.valid).mean() + 2e-3
    assert trained.fits.constrained.best > 0 or best >= losses(afterwards, parts.valid).mean() - 2e-3


def test_labels_are_never_shown_to_the_model_under_test(parts: Parts) -> None:
    model = FairModel(parts.recipe.config.network(), [c.EqualizedOdds("sex", 0.05)], bounds=(0, 1))
    blind = TensorTable(parts.test.x, torch.full_like(parts.test.y, float("nan")), parts.test.sensitive)
    seen = emit_in_batches(model, parts.test, 256).scores
    assert np.array_equal(seen, emit_in_batches(model, blind, 256).scores)


def test_a_reading_of_labels_is_said(parts: Parts) -> None:
    model = FairModel(parts.recipe.config.network(), [c.EqualOpportunity("sex", 0.05)], bounds=(0, 1))
    comparison = compare(parts.recipe.config.network(), model, parts.test)
    assert comparison.constraints[0].bounded_by == "label estimates"
    assert any("label estimates" in note for note in comparison.notes)


def test_small_and_unknown_groups_are_named(parts: Parts) -> None:
    sex = parts.test.sensitive["sex"].copy()
    sex[:7], sex[7:12] = None, "other"
    test = TensorTable(parts.test.x, parts.test.y, {"sex": sex})
    model = FairModel(parts.recipe.config.network(), [c.DemographicParity("sex", 0.05)], bounds=(0, 1))
    notes = " ".join(compare(parts.recipe.config.network(), model, test).notes)
    assert "sex=other (5)" in notes
    assert "sex 7" in notes


def test_constraints_that_exclude_each_other_are_pointed_out(parts: Parts) -> None:
    constraints = [c.DemographicParity("sex", 0.05), c.EqualizedOdds("sex", 0.05)]
    model = FairModel(parts.recipe.config.network(), constraints, bounds=(0, 1), on_infeasible="relax")
    notes = " ".join(compare(parts.recipe.config.network(), model, parts.test).notes)
    assert "demographic parity and equalized odds are asked for together" in notes


def test_widened_limits_are_said(parts: Parts) -> None:
    constraints = [c.MinimumRate("sex", 0.9), c.Affine([[1.0, 1.0]], upper=0.2, on="sex")]
    model = FairModel(parts.recipe.config.network(), constraints, bounds=(0, 1), on_infeasible="relax")
    comparison = compare(parts.recipe.config.network(), model, parts.test)
    assert comparison.widening > 0.3
    assert any("widened" in note for note in comparison.notes)


def test_inference_refuses_small_batches(parts: Parts, trained: Trained) -> None:
    with pytest.raises(SmallBatchError):
        emit_in_batches(trained.model, parts.test, 100, inference=True)
    assert emit_in_batches(trained.model, parts.test, 256, inference=True).violation <= 1e-6


def test_regression_speaks_of_r2_and_has_no_decisions() -> None:
    lending = read_lending(n=900, seed=3)
    table = Table("r", lending.frame, "debt_ratio", None, ("sex",), not_features=("repays", "label"))
    parts = prepare(table, ["demographic_parity(sex, 0.001)"], bounds=None, hidden=(8,))
    comparison = train(parts, FitOptions(epochs=2, batch_size=128)).comparison
    assert set(comparison.quality) == {"r2", "mae"}
    assert comparison.constraints[0].decisions is None
    assert comparison.groups[0].decision_rate is None


def test_a_regression_learns_in_the_units_of_its_target() -> None:
    lending = read_lending(n=900, seed=3)
    frame = lending.frame.assign(price=1e6 + 1e5 * lending.frame["debt_ratio"])
    table = Table("r", frame, "price", None, ("sex",), not_features=("repays", "label"))
    parts = prepare(table, ["demographic_parity(sex, 1000)"], bounds=None, hidden=(8,))
    quality = train(parts, FitOptions(epochs=12, batch_size=64, learning_rate=1e-2)).comparison.quality["r2"]
    assert (quality.unconstrained or 0.0) > 0.8


def test_a_table_with_one_group_is_refused() -> None:
    lending = read_lending(n=200, seed=0)
    table = Table("t", lending.frame.assign(sex="female"), "label", "1", ("sex",))
    with pytest.raises(ColumnError, match=r"DemographicParity\('sex'\) compares groups.*'female'"):
        prepare(table, ["demographic_parity(sex, 0.1)"])


def test_at_least_one_constraint_is_needed(lending: Table) -> None:
    with pytest.raises(DataError, match="no constraint"):
        prepare(lending, [])


def test_prices_are_slopes_of_the_cost_per_prediction(parts: Parts) -> None:
    """The cost is convex in the tolerance, and the multipliers are its slopes at both ends."""
    network = parts.recipe.config.network()
    shift = 0.4 * torch.as_tensor(parts.test.sensitive["sex"] == "female")
    costs, prices = [], []
    for tolerance in (0.1, 0.099):
        model = _Shifted(network, shift, [c.DemographicParity("sex", tolerance)])
        emission = emit_in_batches(model, parts.test, len(parts.test))
        costs.append(0.5 * np.mean((emission.scores - emission.raw).astype(np.float64) ** 2))
        prices.append(emission.price(0))
    slope = (costs[1] - costs[0]) / 0.001
    assert 0 < prices[0] <= slope + 1e-4
    assert slope <= prices[1] + 1e-4


class _Shifted(FairModel):
    """Scores that are higher for one group."""

    def __init__(self, network: torch.nn.Module, shift: torch.Tensor, constraints: list[c.Constraint]) -> None:
        super().__init__(network, constraints, bounds=(0.0, 1.0))
        self.shift = shift

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        return (super().scores(x) * 0.5 + self.shift).float()
