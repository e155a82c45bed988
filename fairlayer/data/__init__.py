"""Tables, readers of public data sets, a generated lending population, batches of rows, and pre-processing."""

from fairlayer._keywords import explain_public
from fairlayer.data.batches import StratifiedBatchSampler, consecutive_batches, joint_codes
from fairlayer.data.columns import Cut, parse_cut
from fairlayer.data.counterfactual import Counterfactuals, counterfactual_flip
from fairlayer.data.decorrelation import remove_correlation
from fairlayer.data.encoder import Encoder
from fairlayer.data.files import ReadFile, read_file, read_frame
from fairlayer.data.inspection import Inspection, inspect_table
from fairlayer.data.lending import LendingPopulation
from fairlayer.data.readers import READERS, read_data_set
from fairlayer.data.resampling import Resampled, balanced_resampling
from fairlayer.data.reweighing import inverse_frequency_weights, reweighing_weights
from fairlayer.data.split import DataSplit, split_rows
from fairlayer.data.table import Table
from fairlayer.data.tensors import TensorTable, tensor_table

__all__ = [
    "READERS",
    "Counterfactuals",
    "Cut",
    "DataSplit",
    "Encoder",
    "Inspection",
    "LendingPopulation",
    "ReadFile",
    "Resampled",
    "StratifiedBatchSampler",
    "Table",
    "TensorTable",
    "balanced_resampling",
    "consecutive_batches",
    "counterfactual_flip",
    "inspect_table",
    "inverse_frequency_weights",
    "joint_codes",
    "parse_cut",
    "read_data_set",
    "read_file",
    "read_frame",
    "remove_correlation",
    "reweighing_weights",
    "split_rows",
    "tensor_table",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
