"""fairlayer in Lightning: a callback for any LightningModule, and a ready module and data module."""

from fairlayer._keywords import explain_public
from fairlayer.integrations.lightning.callback import FairnessCallback
from fairlayer.integrations.lightning.datamodule import FairDataModule, SampleDataModule
from fairlayer.integrations.lightning.errors import BatchReadingError, NotKeptError, ScheduleLengthError
from fairlayer.integrations.lightning.fit_callbacks import BestWeights, EpochLog, RandomNumbers
from fairlayer.integrations.lightning.module import FairLightningModule

__all__ = [
    "BatchReadingError",
    "BestWeights",
    "EpochLog",
    "FairDataModule",
    "FairLightningModule",
    "FairnessCallback",
    "NotKeptError",
    "RandomNumbers",
    "SampleDataModule",
    "ScheduleLengthError",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
