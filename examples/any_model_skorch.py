"""skorch: a torch network that scikit-learn trains, its decisions held by thresholds per group."""

import os

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier

import fairlayer as fl
from fairlayer.data import LendingPopulation
from fairlayer.integrations.sklearn import FairClassifier

EPOCHS = 3 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 20
columns = LendingPopulation().sample(6_000, seed=0)
income = np.log(np.nan_to_num(columns["monthly_income"], nan=3_000.0))
X = np.stack([income - income.mean(), columns["debt_ratio"] - 0.33, np.log(columns["history_months"]) - 3.5], axis=1)
X, y, sex = X.astype(np.float32), columns["label"].astype(np.float32), columns["sex"]
train, new = slice(0, 4_000), slice(4_000, None)

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1), torch.nn.Flatten(0))
learner = NeuralNetBinaryClassifier(
    net, max_epochs=EPOCHS, lr=0.01, optimizer=torch.optim.Adam, verbose=0, train_split=None
)
parity = fl.DemographicParity("sex", tolerance=0.02)
model = FairClassifier(learner, parity, decisions=True, cv=3)
model.fit(X[train], y[train], sensitive_features=sex[train])

women = sex[new] == "female"
for name, decided in {
    "one threshold": model.predict_proba(X[new])[:, 1] >= 0.5,
    "thresholds per group": model.predict(X[new], sensitive_features=sex[new]) == 1,
}.items():
    print(f"{name:<22}women {decided[women].mean():.3f}, men {decided[~women].mean():.3f}", end=", ")
    print(f"accuracy {(decided == y[new]).mean():.3f}")
