"""XGBoost, LightGBM and CatBoost: scores that meet a parity on every batch, and decisions by thresholds per group.

The same trees are taken three ways: alone, with their scores projected, and with their decisions held by a rule.
"""

from importlib import import_module

import pandas as pd

import fairlayer as fl
from fairlayer.data import LendingPopulation
from fairlayer.integrations.sklearn import FairPostprocessor

columns = LendingPopulation().sample(6_000, seed=0)
X = pd.DataFrame({name: columns[name] for name in ("monthly_income", "debt_ratio", "history_months", "occupation")})
X["occupation"] = X["occupation"].astype("category")  # the trees read categories as they are
y, sex = columns["label"], columns["sex"]
train, new = slice(0, 4_000), slice(4_000, None)
parity = fl.DemographicParity("sex", tolerance=0.02)

LIBRARIES = {
    "xgboost": ("XGBClassifier", {"n_estimators": 60, "max_depth": 3, "enable_categorical": True}),
    "lightgbm": ("LGBMClassifier", {"n_estimators": 60, "num_leaves": 8, "verbose": -1}),
    "catboost": (
        "CatBoostClassifier",
        {"iterations": 60, "depth": 3, "cat_features": ["occupation"], "verbose": 0, "allow_writing_files": False},
    ),
}


def gap(values):
    women = sex[new] == "female"
    return abs(values[~women].mean() - values[women].mean())


def row(name, scores, decisions):
    accuracy = (decisions == y[new]).mean()
    print(f"{name:<20} {gap(scores):10.3f} {gap(decisions):13.3f} {accuracy:9.3f}")


print(f"{'on new applicants':<20} {'score gap':>10} {'decision gap':>13} {'accuracy':>9}")
for library, (name, settings) in LIBRARIES.items():
    try:
        trees = getattr(import_module(library), name)(**settings)
    except ImportError:
        print(f"{library} is not installed")
        continue
    plain = trees.fit(X[train], y[train]).predict_proba(X[new])[:, 1]
    row(library, plain, plain >= 0.5)

    projected = FairPostprocessor(trees, parity).fit(X[train], y[train])
    scores = projected.predict_proba(X[new], sensitive_features=sex[new])[:, 1]
    row(f"{library}, projected", scores, scores >= 0.5)
    assert gap(scores) <= 0.02 + 1e-6

    rule = FairPostprocessor(trees, parity, decisions=True).fit(X[train], y[train], sensitive_features=sex[train])
    decided = rule.predict(X[new], sensitive_features=sex[new])
    row(f"{library}, rule", plain, decided)
    assert gap(decided) < gap(plain >= 0.5)
