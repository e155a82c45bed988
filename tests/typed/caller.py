"""What a caller's type checker knows: results have types, and misspelt keywords and attributes are errors.

`make lint` reads this file with mypy and with pyright; it is never run. Each line that is wrong on purpose says which
error it expects of either; a checker that no longer finds it reports the comment.
"""

from __future__ import annotations

from typing import assert_type

import torch
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.audit import Audit, audit
from fairlayer.constraints import Constraint
from fairlayer.decisions import Decisions
from fairlayer.distillation import WithoutLayer
from fairlayer.integrations.lightning import FairLightningModule, FairnessCallback
from fairlayer.integrations.sklearn import FairClassifier, FairLogisticRegression, FairRidge
from fairlayer.routes import Recommendation, Situation, recommend

x, sex = torch.rand(4, 3), {"sex": torch.tensor([0, 1, 0, 1])}
scores = torch.rand(4)
parity = fl.DemographicParity("sex", tolerance=0.1)
model = fl.FairModel(nn.Linear(3, 1), [parity], bounds=(0.0, 1.0), geometry="entropic")
layer = fl.FairProjection([parity])
penalty = fl.Penalty([parity])
lagrangian = fl.AugmentedLagrangian([parity])

# A call gives a tensor, or a result with named fields.
assert_type(model(x, sensitive_features=sex), Tensor)
assert_type(model.without_layer(), WithoutLayer)
assert_type(model.without_layer()(x), Tensor)
assert_type(layer(scores, sensitive_features=sex), Tensor)
assert_type(penalty(scores, sensitive_features=sex), Tensor)
assert_type(lagrangian(scores, sensitive_features=sex), Tensor)
assert_type(fl.HSIC("sex")(scores, sensitive_features=sex), Tensor)
assert_type(fl.MMD("sex")(scores, sensitive_features=sex), Tensor)
assert_type(fl.project(scores, parity, sensitive_features=sex), fl.Projection)
assert_type(fl.project(scores, parity, sensitive_features=sex).value, Tensor)
assert_type(fl.fairness_path(scores, parity, [0.0, 0.1], sensitive_features=sex), fl.FairnessPath)
assert_type(fl.decide(scores, parity, sensitive_features=sex), Decisions)
assert_type(fl.DecisionRule.fit(scores, parity, sensitive_features=sex), fl.DecisionRule)
assert_type(audit(scores=scores, sensitive_features=sex), Audit)
assert_type(recommend(Situation()), Recommendation)

# The attributes of a model are typed.
assert_type(model.constraints, tuple[Constraint, ...])
assert_type(model.last_projection, fl.Projection | None)
assert_type(model.inference_state, fl.InferenceState)
assert_type(model.inference_state.phase, fl.Phase)

# A misspelt keyword is an error.
fl.DemographicParity("sex", tolerence=0.1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fl.project(scores, parity, sensitive_feature=sex)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fl.decide(scores, parity, groups=sex)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fl.FairModel(nn.Linear(3, 1), [parity], bound=(0, 1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
layer(scores, sensitive_feature=sex)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
penalty(scores, sensitive_feature=sex)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
lagrangian(scores, labels=scores)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fl.HSIC("sex")(scores, groups=sex)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
audit(scores=scores, sensitive_feature=sex)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
FairLightningModule(constraints=[parity], learning_rat=0.1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
FairnessCallback("sex", thresholds=0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
FairRidge([parity], alfa=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
FairLogisticRegression([parity], c=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
FairClassifier(None, [parity], decision=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# So is an attribute that is not there.
model.constrains  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
model.last_projection.cells  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
layer.bound  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
penalty.tolerance  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
fl.decide(scores, parity, sensitive_features=sex).decision  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
fl.Demographicparity  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
