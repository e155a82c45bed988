"""Keras, on whichever backend it has: its probabilities meet a parity on every batch."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before keras is imported

import keras
import numpy as np

import fairlayer as fl
from fairlayer.data import LendingPopulation
from fairlayer.integrations.sklearn import FairClassifier

EPOCHS = 15 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 20
columns = LendingPopulation().sample(6_000, seed=0)
income = np.log(np.nan_to_num(columns["monthly_income"], nan=3_000.0))
X = np.stack([income - income.mean(), columns["debt_ratio"] - 0.33, np.log(columns["history_months"]) - 3.5], axis=1)
y, sex = columns["label"], columns["sex"]
train, new = slice(0, 4_000), slice(4_000, None)

net = keras.Sequential(
    [keras.Input((3,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
)
net.compile(optimizer="adam", loss="binary_crossentropy")
model = FairClassifier(net, fl.DemographicParity("sex", tolerance=0.02))
model.fit(X[train], y[train], epochs=EPOCHS, verbose=0)  # what Keras' own `fit` takes goes through

result = model.project(X[new], sensitive_features=sex[new])
shown, women = result.value.numpy(), sex[new] == "female"
print(f"mean score of women {shown[women].mean():.3f}, of men {shown[~women].mean():.3f}")
print(f"accuracy {((shown >= 0.5) == y[new]).mean():.3f}; the certificate holds: {result.certificate.holds}")
assert abs(shown[women].mean() - shown[~women].mean()) <= 0.02 + 1e-6
