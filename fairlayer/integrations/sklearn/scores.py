"""One score per row from any fitted model: scikit-learn's, XGBoost's, LightGBM's, CatBoost's, Keras's, torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairlayer._typing import FloatArray
from fairlayer.errors import OutputError

__all__ = ["amounts_of", "has_fit", "probabilities_of", "ranking_of"]


def has_fit(model: Any) -> bool:
    """Return whether a model learns by `fit`; a torch module does not, and is taken as trained."""
    return not isinstance(model, nn.Module) and hasattr(model, "fit")


def probabilities_of(model: Any, X: Any) -> FloatArray:
    """Return the probability of the second class (n,): from `predict_proba`, or what Keras and torch give.

    Raises:
        OutputError: the model gives no probabilities; it says what to do.
    """
    name = type(model).__name__
    if hasattr(model, "predict_proba"):
        return _second_column(name, model.predict_proba(X))
    if _names_classes(model):
        raise OutputError(
            f"{name} has no predict_proba, and its predictions are classes, which are not scores. Wrap it in "
            "sklearn.calibration.CalibratedClassifierCV, or bound its decisions (decisions=True) if it has a "
            "decision_function."
        )
    found = _second_column(name, _outputs(model, X))
    if found.size and not (found.min() >= 0.0 and found.max() <= 1.0):
        raise OutputError(
            f"{name} gave outputs from {found.min():g} to {found.max():g}, which are not probabilities. End the "
            "network with a sigmoid, or with a softmax over two columns."
        )
    return found


def ranking_of(model: Any, X: Any) -> FloatArray:
    """Return scores (n,) that grow with the second class: probabilities, else the `decision_function`.

    Raises:
        OutputError: the model has neither.
    """
    if not hasattr(model, "predict_proba") and hasattr(model, "decision_function"):
        return _second_column(type(model).__name__, model.decision_function(X))
    return probabilities_of(model, X)


def amounts_of(model: Any, X: Any) -> FloatArray:
    """Return the predictions (n,) of a regression.

    Raises:
        OutputError: there are several per row.
    """
    found = np.asarray(_outputs(model, X), dtype=np.float64)
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if found.ndim != 1:
        raise OutputError(
            f"{type(model).__name__} gave predictions of the shape {found.shape}; one number per row is needed. Fit "
            "one model per target."
        )
    return found


def _outputs(model: Any, X: Any) -> Any:
    if isinstance(model, nn.Module):
        return _forward(model, X)
    if _is_keras(model):
        return model.predict(np.asarray(X, dtype=np.float32), verbose=0)
    return model.predict(X)


def _forward(model: nn.Module, X: Any) -> Any:
    first = next(iter(model.parameters()), torch.zeros(0))
    x = X if isinstance(X, Tensor) else torch.from_numpy(np.array(X, dtype=np.float64))
    modes = {each: each.training for each in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            outputs = model(x.to(first))
    finally:
        for each, training in modes.items():
            each.training = training
    outputs = getattr(outputs, "logits", outputs)
    return outputs.double().cpu().numpy()


def _names_classes(model: Any) -> bool:
    return hasattr(model, "classes_") or hasattr(model, "decision_function")


def _is_keras(model: Any) -> bool:
    return any(kind.__module__.partition(".")[0] in ("keras", "tensorflow", "tf_keras") for kind in type(model).__mro__)


def _second_column(name: str, scores: Any) -> FloatArray:
    found = np.asarray(scores, dtype=np.float64)
    if found.ndim == 2 and found.shape[1] in (1, 2):
        found = found[:, -1]
    if found.ndim != 1:
        raise OutputError(
            f"{name} gave scores of the shape {found.shape}; for two classes (n,), (n, 1) or (n, 2) is read. For "
            "several classes wrap one model per class, each fitted on (y == class)."
        )
    return found
