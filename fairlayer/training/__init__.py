"""Train a model through its layer, compare it with an unconstrained one, keep it in a run folder."""

from fairlayer._keywords import explain_public
from fairlayer.constraints.text import known_constraints, parse_constraint
from fairlayer.training.comparing import compare
from fairlayer.training.comparison import Beside, Comparison, ConstraintResult, GroupResult
from fairlayer.training.config import FitOptions, ModelConfig
from fairlayer.training.emission import Emission, emit_in_batches
from fairlayer.training.evidence import audit_kept, audit_run, audit_trained, model_hash
from fairlayer.training.fitting import Epoch, Fit, FitFolder, fit
from fairlayer.training.gaps import Gap, measure
from fairlayer.training.history import history_rows, history_svg
from fairlayer.training.kept import KeptRoute
from fairlayer.training.observed import Observed
from fairlayer.training.pooling import aggregate
from fairlayer.training.record import ChangedDataError, check_data, other_versions, record_of
from fairlayer.training.run import NoDecisionsError, Prediction, Run, load_run, save_run
from fairlayer.training.session import Trained, prepare, train
from fairlayer.training.trees import NetworkAndTrees, Trees, TreesNotServedError, fit_trees

__all__ = [
    "Beside",
    "ChangedDataError",
    "Comparison",
    "ConstraintResult",
    "Emission",
    "Epoch",
    "Fit",
    "FitFolder",
    "FitOptions",
    "Gap",
    "GroupResult",
    "KeptRoute",
    "ModelConfig",
    "NetworkAndTrees",
    "NoDecisionsError",
    "Observed",
    "Prediction",
    "Run",
    "Trained",
    "Trees",
    "TreesNotServedError",
    "aggregate",
    "audit_kept",
    "audit_run",
    "audit_trained",
    "check_data",
    "compare",
    "emit_in_batches",
    "fit",
    "fit_trees",
    "history_rows",
    "history_svg",
    "known_constraints",
    "load_run",
    "measure",
    "model_hash",
    "other_versions",
    "parse_constraint",
    "prepare",
    "record_of",
    "save_run",
    "train",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
