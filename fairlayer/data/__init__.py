"""Tables, readers of public data sets, a generated lending population, and batches of rows."""

from fairlayer.data.batches import StratifiedBatchSampler, consecutive_batches
from fairlayer.data.columns import Cut, parse_cut
from fairlayer.data.encoder import Encoder
from fairlayer.data.lending import LendingPopulation
from fairlayer.data.readers import READERS, read_data_set
from fairlayer.data.sample import Sample, sample_of
from fairlayer.data.split import Split, split_rows
from fairlayer.data.table import Table, read_frame

__all__ = [
    "READERS",
    "Cut",
    "Encoder",
    "LendingPopulation",
    "Sample",
    "Split",
    "StratifiedBatchSampler",
    "Table",
    "consecutive_batches",
    "parse_cut",
    "read_data_set",
    "read_frame",
    "sample_of",
    "split_rows",
]
