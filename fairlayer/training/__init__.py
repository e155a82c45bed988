"""Train a model through its layer, compare it with an unconstrained one, keep it in a run folder."""

from fairlayer.training.compare import compare
from fairlayer.training.comparison import Beside, Comparison, ConstraintResult, GroupResult
from fairlayer.training.config import FitOptions, ModelConfig
from fairlayer.training.constraint_text import known_constraints, parse_constraint
from fairlayer.training.emission import Emission, emit_in_batches
from fairlayer.training.fit import Epoch, Fit, fit
from fairlayer.training.gaps import Gap, measure
from fairlayer.training.observed import Observed
from fairlayer.training.run import Run, load_run, save_run
from fairlayer.training.session import Trained, prepare, train

__all__ = [
    "Beside",
    "Comparison",
    "ConstraintResult",
    "Emission",
    "Epoch",
    "Fit",
    "FitOptions",
    "Gap",
    "GroupResult",
    "ModelConfig",
    "Observed",
    "Run",
    "Trained",
    "compare",
    "emit_in_batches",
    "fit",
    "known_constraints",
    "load_run",
    "measure",
    "parse_constraint",
    "prepare",
    "save_run",
    "train",
]
