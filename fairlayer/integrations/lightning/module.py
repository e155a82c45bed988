"""FairLightningModule: a backbone, its layer, its penalties and its adversary, ready for a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from fairlayer._typing import called_like
from fairlayer.adversarial import Adversary
from fairlayer.constraints import Constraint
from fairlayer.edge import LoaderBatch, check_choice, read_batch
from fairlayer.errors import ConstraintDefinitionError, EmptyBatchError, NonFiniteScoresError
from fairlayer.integrations.lightning.arguments import check_kept, plain_data
from fairlayer.model import FairModel
from fairlayer.penalties import LossTerm

__all__ = ["FairLightningModule"]

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.binary_cross_entropy,
    "squared_error": F.mse_loss,
}


class FairLightningModule(LightningModule):
    """A model that is trained through its layer, by any Trainer or LightningCLI.

        loss = task(emitted, y) + penalty_weight * sum(penalties) + adversary's loss

    where constraints read labels, the raw scores are trained by the task loss as well, because in production the
    layer has estimates only. Batches are (x, y, sensitive), or dicts with the keys x, y, sensitive_features. Logs
    `train/loss`, `val/loss`, `test/loss`; steps return the predictions, so that `FairnessCallback` can read them. In
    test and prediction no labels are shown to the model.

    Checkpoints keep the arguments that are plain data: `FairLightningModule.load_from_checkpoint(path)` needs no more
    where the network is the MLP, or where LightningCLI built everything; else pass the rest, such as `backbone=`.

    Args:
        backbone: any module with one score per row, or a `FairModel`; None for an MLP of `width` and `hidden`.
        constraints: put a layer after the backbone, as objects, or as text: "demographic_parity(sex, 0.02)"; None
            leaves it as it is.
        width: number of features of the MLP.
        hidden: sizes of its hidden layers.
        task: "classification" (scores are probabilities), or "regression".
        geometry: the geometry of the layer that `constraints` put there, see `project`; None for "entropic" in
            classification with bounds (0, 1), else "euclidean".
        loss: "cross_entropy" or "squared_error"; None for the one that belongs to the layer's geometry: cross-entropy
            to "entropic" and "likelihood", squared error to "euclidean". Without a layer it goes by the task.
        bounds: the bounds of the predictions, see `FairModel`.
        margin: see `FairModel`; of the euclidean geometry, the others never reach the bounds.
        b_tau: see `FairModel`.
        on_infeasible: see `FairModel`.
        penalties: each is called on the emitted predictions, as `penalty(scores, sensitive_features=..., y=...)`. Any
            `LossTerm` (Penalty, HSIC, MMD, AugmentedLagrangian, a fairret, one of your own) learns the categories
            before training and is told of each step of the optimiser; any other module is only called.
        penalty_weight: the weight of their sum; `FairnessCallback(penalty_weight=...)` schedules it.
        adversary: an adversary that reads the backbone; `FairnessCallback` schedules its strength.
        learning_rate: the learning rate of AdamW.
        weight_decay: the weight decay of AdamW.

    Raises:
        NotKeptError: loaded from a checkpoint that does not hold everything; it says what to pass.

    Example:
        >>> from fairlayer.constraints import DemographicParity
        >>> module = FairLightningModule(constraints=[DemographicParity("sex", 0.02)], width=3, hidden=(8,))
        >>> batch = {"x": torch.rand(8, 3), "y": torch.ones(8), "sensitive_features": {"sex": [0, 1] * 4}}
        >>> module.predict_step(batch, 0).shape
        torch.Size([8])
    """

    def __init__(
        self,
        backbone: nn.Module | None = None,
        constraints: Sequence[Constraint | str] | None = None,
        *,
        width: int | None = None,
        hidden: Sequence[int] = (64, 32),
        task: str = "classification",
        geometry: str | None = None,
        loss: str | None = None,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        margin: float = 1e-4,
        b_tau: int = 256,
        on_infeasible: str = "raise",
        penalties: Sequence[nn.Module] = (),
        penalty_weight: float = 1.0,
        adversary: Adversary | None = None,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        check_kept(given)
        self._keep(given)
        self.task = check_choice("task", task, ("classification", "regression"))
        net = _network(width, hidden, self.task) if backbone is None else backbone
        matching = "entropic" if self.task == "classification" and bounds == (0.0, 1.0) else "euclidean"
        chosen = geometry or matching
        layer = {
            "geometry": chosen,
            "bounds": bounds,
            "margin": margin if bounds is not None and chosen == "euclidean" else 0.0,
            "b_tau": b_tau,
            "on_infeasible": on_infeasible,
        }
        self.model = net if constraints is None else FairModel(net, constraints, **layer)  # type: ignore[arg-type]
        self.loss_name = check_choice("loss", loss or _loss_of(self.model, self.task), tuple(_LOSSES))
        self.penalties = nn.ModuleList(penalties)
        self.penalty_weight = penalty_weight
        self.adversary = adversary
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def setup(self, stage: str) -> None:
        """Learn the categories of the data module's table, so that none of them is new in validation or test."""
        known = getattr(getattr(self.trainer, "datamodule", None), "all_groups", None)
        if known and stage == "fit":
            for part in [self.model, *self.penalties]:
                if isinstance(part, FairModel | LossTerm):
                    part.fit_categories(known)

    def forward(self, x: Any, sensitive_features: Any = None, y: Any = None) -> Tensor:
        """Return predictions."""
        if isinstance(self.model, FairModel):
            return self.model(x, sensitive_features=sensitive_features, y=y)
        return self.model(x)  # type: ignore[no-any-return]

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error

    def _read(self, batch: Any) -> LoaderBatch:
        """Return what a batch holds; a pair is (x, y) where the groups are columns of x, or nothing reads groups."""
        layer = isinstance(self.model, FairModel)
        reads_none = not layer and not self.penalties and self.adversary is None
        return read_batch(batch, groups_in_x=reads_none or bool(layer and self.model.protected_attr_idx))

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss and the predictions."""
        x, y, sensitive = self._read(batch)
        emitted = self(x, sensitive, y)
        loss = self._task_loss(emitted, x, y)
        for penalty in self.penalties:
            loss = loss + self.penalty_weight * penalty(emitted, sensitive_features=sensitive, y=y)
        if self.adversary is not None:
            loss = loss + self.adversary.loss(sensitive, y)
        self._log_loss("train/loss", loss, y)
        return {"loss": loss, "preds": emitted.detach()}

    def on_train_epoch_end(self) -> None:
        """Refuse to go on with a loss that is not finite."""
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not torch.isfinite(loss):
            raise NonFiniteScoresError(
                f"the training loss became {loss.item()}. Use a smaller learning rate, or a larger margin "
                "inside the bounds."
            )

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Log the task loss, labels known to the layer as in training."""
        x, y, sensitive = self._read(batch)
        return self._evaluated("val/loss", self(x, sensitive, y), x, y)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Log the task loss, labels unknown to the layer."""
        x, y, sensitive = self._read(batch)
        return self._evaluated("test/loss", self(x, sensitive), x, y)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return predictions; labels are not read."""
        x, _, sensitive = self._read(batch)
        return self(x, sensitive)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, and tell the penalties, whose multipliers move after it."""
        super().optimizer_step(*args, **kwargs)
        for penalty in self.penalties:
            if isinstance(penalty, LossTerm):
                penalty.after_step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW over the backbone and the adversary's heads."""
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def _keep(self, given: dict[str, Any]) -> None:
        """Keep the arguments for checkpoints; those of a subclass are its own to keep, as everywhere in Lightning."""
        if type(self).__init__ is not FairLightningModule.__init__:
            return
        try:
            self.save_hyperparameters("_instantiator", logger=False)
        except KeyError:
            self.hparams.update(plain_data(given))
        else:  # LightningCLI hands over its configuration, from which it can build whatever classes it names
            self.save_hyperparameters(logger=False)

    def _evaluated(self, key: str, emitted: Tensor, x: Any, y: Tensor) -> dict[str, Tensor]:
        loss = self._task_loss(emitted, x, y)
        self._log_loss(key, loss, y)
        return {"loss": loss, "preds": emitted}

    def _log_loss(self, key: str, loss: Tensor, y: Tensor) -> None:
        """Log the mean over the rows of all processes: all of them stop, and keep a checkpoint, at the same time."""
        self.log(key, loss, on_step=False, on_epoch=True, batch_size=len(y), prog_bar=True, sync_dist=True)

    def _task_loss(self, emitted: Tensor, x: Any, y: Tensor) -> Tensor:
        loss = self._loss(emitted, y)
        if isinstance(self.model, FairModel) and any(c.needs_labels for c in self.model.constraints):
            loss = loss + self._loss(self.model.raw_scores(x), y)
        return loss

    def _loss(self, predictions: Tensor, y: Tensor) -> Tensor:
        wide = torch.promote_types(predictions.dtype, torch.float32)
        flat, labels = predictions.reshape(-1).to(wide), y.reshape(-1).to(wide)
        if not len(flat):  # the mean over no rows is NaN, which would spoil every weight
            raise EmptyBatchError(
                "a loader gave a batch without rows, which has no loss. Leave it out of the loader, or put its rows "
                "together with those of another batch."
            )
        with torch.autocast(predictions.device.type, enabled=False):  # cross-entropy of probabilities needs float32
            loss: Tensor = _LOSSES[self.loss_name](flat, labels)
        return loss


def _loss_of(model: nn.Module, task: str) -> str:
    """Return the loss that belongs to the layer's geometry; without a layer, to the task."""
    if isinstance(model, FairModel) and task == "classification":
        return model.projection.options.rule.loss
    return "cross_entropy" if task == "classification" else "squared_error"


def _network(width: int | None, hidden: Sequence[int], task: str) -> nn.Sequential:
    if width is None:
        raise ConstraintDefinitionError(
            "FairLightningModule was given neither a backbone nor a width. Pass backbone=, or width= (the number of "
            "features) for an MLP."
        )
    sizes = (width, *hidden)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    last = [nn.Sigmoid()] if task == "classification" else []
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1), nn.Flatten(0), *last)
