"""One number, further uses: layers, losses that learn, rules, estimators, tables of a sweep, pages, plots, serving.

The cases, and the formula of each, are those of `test_one_number`.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fairlayer as fl
from fairlayer.audit import bounded_interval
from fairlayer.constraints import Batch, Constraint, Spread
from fairlayer.constraints.varying import checked_at_limit, copy_at_limit
from fairlayer.errors import ConstraintDefinitionError, FairlayerWarning
from fairlayer.pareto import MeasureError, gap_measures
from fairlayer.serving.scorer import _number
from fairlayer.streaming import InferenceState
from fairlayer.streaming.transition import limits_of
from fairlayer.training.history import _draw_gaps
from tests.constraints.test_one_number import (
    AGE,
    CASES,
    LABELS,
    SCORES,
    SEX,
    Apart,
    AtMost,
    Case,
    N,
    Within,
    by,
    close,
    columns,
    every,
    pooled,
    spread,
    unweighed,
)

OWN = [Apart("sex", 0.1), AtMost("sex", most=0.55), Within("region", 0.48)]
own = pytest.mark.parametrize("rule", OWN, ids=lambda rule: type(rule).__name__)


@every
def test_layers(case: Case) -> None:
    layer = fl.FairProjection([case.rule], bounds=(0.0, 1.0))
    given: Any = {"sensitive_features": columns(case), "y": torch.tensor(LABELS)}
    value = layer(torch.tensor(SCORES), **given)
    same = fl.project(SCORES, [case.rule], sensitive_features=columns(case), y=LABELS, bounds=(0.0, 1.0))
    np.testing.assert_allclose(value.numpy(), same.value.numpy(), atol=1e-12)
    assert layer.last is not None
    assert dict(layer.last.multipliers) == {case.rule.name: close(float(same.multipliers[case.rule.name]))}
    if not isinstance(case.rule, fl.GroupCalibration):
        assert case.excess_of(value.numpy()) <= 1e-9


@every
def test_penalties(case: Case) -> None:
    given: Any = {"sensitive_features": columns(case), "y": torch.tensor(LABELS)}
    hinge = fl.Penalty(case.rule, "hinge")(torch.tensor(SCORES), **given)
    assert (hinge.item() > 1e-12) is (case.excess_of(SCORES) > 1e-12)
    lagrangian = fl.AugmentedLagrangian(case.rule, integral=1.0, proportional=0.0)
    lagrangian(torch.tensor(SCORES), **given)
    lagrangian.update()
    learnt = max(lagrangian.named_multipliers().values())
    assert learnt == close(max(0.0, case.excess_of(SCORES)))


@pooled
def test_rules(case: Case) -> None:
    if not case.rule.features:
        return
    found = fl.decide(SCORES, [case.rule], sensitive_features=columns(case), y=LABELS)
    with warnings.catch_warnings(action="ignore"):
        rule = fl.DecisionRule.fit(SCORES, [case.rule], sensitive_features=columns(case), y=LABELS)
    expected = rule.expected_gap(case.rule)
    assert expected.limit == case.limit
    assert expected.at_fit == pytest.approx(found.gaps[case.rule.name], abs=1e-9)


@unweighed
def test_reports_and_serving(case: Case) -> None:
    stream = InferenceState([case.rule], bounds=(0.0, 1.0))
    labels = torch.tensor(LABELS) if case.rule.needs_labels else None
    emitted = stream.emit(torch.tensor(SCORES), columns(case), y=labels).numpy()
    report = stream.report()
    total = report.everything[case.rule.name]
    assert total is not None
    assert (total.value, total.limit) == (close(case.number(emitted)), case.limit)
    assert report.limits == {case.rule.name: case.limit}
    [bucket] = report.buckets
    raw, out = bucket.gaps[case.rule.name]
    assert (raw.value, out.value) == (close(case.number(SCORES)), close(case.number(emitted)))
    page = _number(case.rule, stream.measured()[case.rule.name])
    assert page == {"pooled_gap": close(case.number(emitted)), "limit": case.limit, "at_least": case.at_least}
    assert _number(case.rule, None)["limit"] == case.limit


@every
def test_intervals_and_sweeps(case: Case) -> None:
    given: Any = {"sensitive_features": columns(case), "y": LABELS}
    found = bounded_interval(case.rule, SCORES, **given)
    if found is None:
        with pytest.raises(MeasureError, match="measure"):
            gap_measures("gap", case.rule, SCORES, **given)
        return
    assert found.measured == close(case.number(SCORES))
    assert gap_measures("gap", case.rule, SCORES, **given)["gap"] == close(case.number(SCORES))


@every
def test_plots(case: Case) -> None:
    drawn: list[float] = []
    axis = SimpleNamespace(
        plot=lambda *a, **k: None, set_title=lambda *a, **k: None, axhline=lambda y, **k: drawn.append(y)
    )
    _draw_gaps(axis, SimpleNamespace(unconstrained=_NO_FIT, constrained=_NO_FIT), [case.rule])  # type: ignore[arg-type]
    assert drawn in ([case.limit], []) if case.rule.on == () else drawn == [case.limit]


_NO_FIT = SimpleNamespace(history=[])


@pytest.mark.parametrize("decisions", [False, True])
@pytest.mark.parametrize("case", [c for c in CASES if c.pooled and c.rule.features and not c.rule.needs_labels][:8])
def test_estimators(case: Case, decisions: bool) -> None:
    sklearn = pytest.importorskip("fairlayer.integrations.sklearn")
    linear = pytest.importorskip("sklearn.linear_model")
    x = np.column_stack([SCORES, AGE, SEX])
    with warnings.catch_warnings(action="ignore"):
        model = sklearn.FairPostprocessor(linear.LogisticRegression(), [case.rule], decisions=decisions)
        model.fit(x, LABELS, sensitive_features=columns(case))
        result = model.project(x, sensitive_features=columns(case)) if not decisions else None
    if result is not None:
        assert case.excess_of(result.value.numpy()) <= 1e-9
    else:
        decided = model.predict(x, sensitive_features=columns(case)).astype(float)
        found = case.rule.measure(decided, sensitive_features=columns(case))
        assert found.value == close(case.number(decided))


@own
def test_the_path_of_a_users_constraint(rule: Constraint) -> None:
    given: Any = {"sensitive_features": _COLUMNS, "bounds": (0.0, 1.0)}
    if rule.limit_argument is None:
        with pytest.raises(ConstraintDefinitionError, match="limit_argument = 'most'"):
            fl.fairness_path(SCORES, [rule], [0.1], **given)
        return
    grid = [0.05, 0.1] if isinstance(rule, Apart) else [0.5, 0.55]
    path = fl.fairness_path(SCORES, [rule], grid, **given)
    assert path.gaps[:, 0].tolist() == [close(limit) for limit in grid]
    assert rule.limit in (0.1, 0.48)  # the rule itself is left as it was


_COLUMNS = {"sex": SEX, "region": np.arange(N) // 2 % 3}


@own
def test_a_changed_limit_knows_which_way_is_wider(rule: Constraint) -> None:
    sign = -1.0 if isinstance(rule, Within) else 1.0
    assert limits_of([rule])[rule.name] == [repr(rule), sign * float(rule.limit or 0.0)]


def test_a_rule_on_small_cells_warns_whatever_the_argument_is_called() -> None:
    random = np.random.default_rng(1)
    scores, sex = random.random(24), {"sex": np.arange(24) % 2}
    for rule in (fl.DemographicParity("sex", 0.01), Apart("sex", 0.01)):
        with pytest.warns(FairlayerWarning, match="in the long run"):
            fl.DecisionRule.fit(scores, [rule], sensitive_features=sex)


def test_a_level_on_small_cells_is_no_gap_to_warn_of() -> None:
    random, level = np.random.default_rng(1), AtMost("sex", most=0.09)
    scores, sex = random.random(96), {"sex": np.arange(96) % 8}
    with warnings.catch_warnings(action="error"):
        rule = fl.DecisionRule.fit(scores, [level], sensitive_features=sex)
    assert rule.expected_gap(level).long_run.mean > 2 * 0.09


class Kept(Apart):
    """It names its limit's argument, and keeps it elsewhere."""

    def __init__(self, on: str, most: float) -> None:
        self.on, self.name, self._most = (on,), f"Kept({on!r})", most

    def statements(self, batch: Batch) -> Any:
        means = batch.means(self.on)
        return [Spread(means, means.select(), means.groups, self._most)]


class Deaf(Kept):
    """It shows its limit, and acts on another attribute."""

    def __init__(self, on: str, most: float, kept: float = 0.1) -> None:
        super().__init__(on, kept)
        self.most, self.other = most, kept


def test_a_limit_that_is_held_nowhere_is_refused_by_every_entrance() -> None:
    rule, groups = Kept("sex", 0.1), {"sex": SEX}
    for use in (
        lambda: fl.project(SCORES, [rule], sensitive_features=groups),
        lambda: fl.decide(SCORES, [rule], sensitive_features=groups),
        lambda: InferenceState([rule]),
        lambda: fl.Penalty(rule),
        lambda: fl.fairness_path(SCORES, rule, [0.1], sensitive_features=groups),
        lambda: rule.limit,
    ):
        with pytest.raises(ConstraintDefinitionError, match=r"Keep the limit as self\.most"):
            use()


def test_a_limit_that_is_not_acted_on_is_no_path() -> None:
    with pytest.raises(ConstraintDefinitionError, match=r"Let its statements read self\.most"):
        checked_at_limit(Deaf("sex", 0.1), 0.05)
    assert copy_at_limit(Deaf("sex", 0.1), 0.05).limit_value() == 0.05


class Derived(Apart):
    """Its constructor makes something of the limit, and its statements read only that."""

    def __init__(self, on: str, most: float) -> None:
        super().__init__(on, most)
        self.used = most

    def statements(self, batch: Batch) -> Any:
        means = batch.means(self.on)
        return [Spread(means, means.select(), means.groups, self.used)]


def test_what_a_constructor_makes_of_a_limit_follows_the_limit() -> None:
    assert checked_at_limit(Derived("sex", 0.1), 0.05).used == 0.05  # type: ignore[attr-defined]
    path = fl.fairness_path(SCORES, [Derived("sex", 0.1)], [0.05], sensitive_features={"sex": SEX}, bounds=(0.0, 1.0))
    assert path.gaps[0, 0] == close(0.05)


def test_a_path_refuses_what_the_constraint_refuses() -> None:
    with pytest.raises(ConstraintDefinitionError, match=r"tolerance=-0\.1"):
        checked_at_limit(fl.DemographicParity("sex", 0.1), -0.1)


def test_the_number_behind_the_callback(tmp_path: Any) -> None:
    """Keys of the callback: the gap that is measured, the violation and the price of a user's constraint."""
    lightning = pytest.importorskip("lightning.pytorch")
    hooks = pytest.importorskip("fairlayer.integrations.lightning")
    rule = Apart("sex", 0.1)

    class Given(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = fl.FairProjection([rule], bounds=(0.0, 1.0))

        def validation_step(self, batch: Any, index: int) -> Any:
            return {"preds": self.layer(batch["x"], sensitive_features=batch["sensitive_features"])}

    batch = {"x": torch.tensor(SCORES), "y": torch.tensor(LABELS), "sensitive_features": {"sex": torch.tensor(SEX)}}
    callback = hooks.FairnessCallback(["sex"])
    trainer = lightning.Trainer(
        callbacks=[callback], logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, default_root_dir=tmp_path, accelerator="cpu",
    )  # fmt: skip
    [found] = trainer.validate(Given(), torch.utils.data.DataLoader([batch], batch_size=None), verbose=False)
    price = fl.project(SCORES, [rule], sensitive_features={"sex": SEX}, bounds=(0.0, 1.0)).multipliers[rule.name]
    assert found["val/score_gap"] == pytest.approx(0.1, abs=1e-6)
    assert spread(by(SEX, SCORES)) > 0.2
    assert found["val/violation"] == pytest.approx(0.0, abs=1e-6)
    assert found["val/multiplier/apart_sex"] == pytest.approx(float(price) / N, abs=1e-6)
