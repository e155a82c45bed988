"""Linear models with the bound inside the convex program: what each tolerance costs, and which gaps it bounds."""

import os

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

import fairlayer as fl
from fairlayer.integrations.sklearn import FairLogisticRegression, FairRidge

ROWS = 2_000 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 20_000

random = np.random.default_rng(0)
sex = random.integers(0, 2, ROWS)
X = random.normal(size=(ROWS, 8))
X[:, 0] += 0.8 * sex  # an input that differs between the groups
repaid = (X @ random.normal(size=8) + 0.5 * sex + random.logistic(size=ROWS) > 0).astype(int)
X, X_test, y, y_test, sex, sex_test = train_test_split(X, repaid, sex, random_state=0)

name = "DemographicParity('sex')"
print(f"{'model':<10}{'tolerance':>10}{'AUC, test':>11}{'price / n':>11}   gaps on the training data")
for tolerance in (1.0, 0.02, 0.01, 0.0):
    rules = [fl.DemographicParity("sex", tolerance)]
    ridge = FairRidge(rules).fit(X, y, sensitive_features={"sex": sex})
    price = ridge.multipliers_[name] / len(y)
    auc = roc_auc_score(y_test, ridge.predict(X_test))
    print(f"{'ridge':<10}{tolerance:>10.2f}{auc:>11.3f}{price:>11.4f}   predictions {ridge.gaps_[name]:.4f} (bounded)")

for tolerance in (1.0, 0.2, 0.1, 0.0):
    rules = [fl.DemographicParity("sex", tolerance)]
    logistic = FairLogisticRegression(rules).fit(X, y, sensitive_features={"sex": sex})
    price, gaps = logistic.multipliers_[name] / len(y), logistic.gaps_[name]
    auc = roc_auc_score(y_test, logistic.predict_proba(X_test)[:, 1])
    print(
        f"{'logistic':<10}{tolerance:>10.2f}{auc:>11.3f}{price:>11.4f}   log-odds {gaps.log_odds:.4f} (bounded), "
        f"probabilities {gaps.probabilities:.4f}, decisions {gaps.decisions:.4f}"
    )

proof = logistic.certificate_
print(f"proof of the last: duality gap {proof.duality_gap:.1e} of a loss of {proof.objective:.1f}, ", end="")
print(f"violation {proof.violation:.1e}, {logistic.n_iter_} Newton steps")

test = ridge.predict(X_test)
means = [test[sex_test == g].mean() for g in (0, 1)]
print(f"ridge at tolerance 0: gap {abs(means[0] - means[1]):.4f} on the test data, which no bound covers")
