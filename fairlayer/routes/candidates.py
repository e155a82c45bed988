"""The scores that routes start from, whatever made them."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairlayer._typing import FloatArray
from fairlayer.training.kept import Step

__all__ = ["DECIDING", "STEPS", "Candidate"]

STEPS: tuple[Step, ...] = ("as it is", "projected", "decision rule", "batch decisions")
DECIDING: tuple[Step, ...] = ("decision rule", "batch decisions")  # which a regression does not have


@dataclass(frozen=True)
class Candidate:
    """A model's raw scores of the validation rows and of the test rows.

    Args:
        name: as tables show it.
        valid: (rows,) scores of the validation rows, which it was not trained on.
        test: (rows,) scores of the test rows.
        steps: what is done to the scores, one route for each: "as it is", "projected", "decision rule",
            "batch decisions".
        titles: names of its routes, by step; "NAME", "NAME, projected", "NAME, rule" and "NAME, batch" where none is
            given.
        seconds: the time that it took to train.
        models: the number of models of different kinds whose scores it is the mean of.

    Example:
        >>> import numpy as np
        >>> Candidate("my model", np.array([0.2, 0.7]), np.array([0.4, 0.6])).title("projected")
        'my model, projected'
    """

    name: str
    valid: FloatArray
    test: FloatArray
    steps: tuple[Step, ...] = STEPS
    titles: dict[Step, str] = field(default_factory=dict)
    seconds: float = 0.0
    models: int = 1

    def title(self, step: Step) -> str:
        """Return the name of the route of a step."""
        plain: dict[Step, str] = {
            "as it is": "",
            "projected": ", projected",
            "decision rule": ", rule",
            "batch decisions": ", batch",
        }
        return self.titles.get(step, self.name + plain[step])
