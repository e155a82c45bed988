"""scikit-learn: a pipeline in a search, with the sensitive feature routed beside the table and not in it."""

import numpy as np
import pandas as pd
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GridSearchCV

import fairlayer as fl
from fairlayer.data import LendingPopulation
from fairlayer.integrations.sklearn import FairPostprocessor

sklearn.set_config(enable_metadata_routing=True)
columns = LendingPopulation().sample(4_000, seed=0)
X = pd.DataFrame({name: columns[name] for name in ("monthly_income", "debt_ratio", "history_months", "amount")})
y, features = columns["label"], pd.DataFrame({"sex": columns["sex"]})  # a search splits a frame along with X
train, new = slice(0, 3_000), slice(3_000, None)

model = FairPostprocessor(HistGradientBoostingClassifier(max_iter=40), [fl.DemographicParity("sex", tolerance=0.02)])
asking = model.set_predict_proba_request(sensitive_features=True).set_predict_request(sensitive_features=True)
asking = asking.set_fit_request(sensitive_features=True).set_score_request(sensitive_features=True)
search = GridSearchCV(asking, {"estimator__learning_rate": [0.05, 0.2]}, cv=3)
search.fit(X[train], y[train], sensitive_features=features[train])

shown = search.best_estimator_.predict_proba(X[new], sensitive_features=features[new])[:, 1]
women = columns["sex"][new] == "female"
print(f"best of the search {search.best_params_}")
print(f"mean score of women {shown[women].mean():.3f}, of men {shown[~women].mean():.3f}")
print(f"accuracy {np.mean((shown >= 0.5) == y[new]):.3f}")
assert abs(shown[women].mean() - shown[~women].mean()) <= 0.02 + 1e-6
