"""CatBoost: scores that meet a parity on every batch, and decisions by thresholds per group, of the same trees."""

import pandas as pd
from catboost import CatBoostClassifier

import fairlayer as fl
from fairlayer.data import LendingPopulation
from fairlayer.integrations.sklearn import FairPostprocessor

columns = LendingPopulation().sample(6_000, seed=0)
X = pd.DataFrame({name: columns[name] for name in ("monthly_income", "debt_ratio", "history_months", "occupation")})
X["occupation"] = X["occupation"].astype("category")  # the trees read categories as they are
y, sex = columns["label"], columns["sex"]
train, new = slice(0, 4_000), slice(4_000, None)
trees = CatBoostClassifier(
    iterations=30, depth=3, cat_features=["occupation"], thread_count=1, verbose=0, allow_writing_files=False
)
parity = fl.DemographicParity("sex", tolerance=0.02)


def gap(values):
    women = sex[new] == "female"
    return abs(values[~women].mean() - values[women].mean())


plain = trees.fit(X[train], y[train]).predict_proba(X[new])[:, 1]
print(f"alone:     gap of scores {gap(plain):.3f}, of decisions {gap(plain >= 0.5):.3f}")

scores = FairPostprocessor(trees, parity).fit(X[train], y[train])
shown = scores.predict_proba(X[new], sensitive_features=sex[new])[:, 1]
print(f"projected: gap of scores {gap(shown):.3f}, accuracy {((shown >= 0.5) == y[new]).mean():.3f}")
assert gap(shown) <= 0.02 + 1e-6

rule = FairPostprocessor(trees, parity, decisions=True).fit(X[train], y[train], sensitive_features=sex[train])
decided = rule.predict(X[new], sensitive_features=sex[new])
print(f"decided:   gap of decisions {gap(decided):.3f}, accuracy {(decided == y[new]).mean():.3f}")
assert gap(decided) < gap(plain >= 0.5)
