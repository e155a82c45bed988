"""FairnessCallback: group disparities of any LightningModule, measured, logged and acted upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from fairlayer.constraints.base import as_names
from fairlayer.edge import check_choice
from fairlayer.errors import CheckpointError, ConstraintDefinitionError
from fairlayer.integrations.lightning.infeasible import InfeasibleStop
from fairlayer.integrations.lightning.layers import Streams, Vocabularies
from fairlayer.integrations.lightning.schedules import Schedule, adversaries_of
from fairlayer.integrations.lightning.scheduling import Scheduling
from fairlayer.integrations.lightning.stage import Found, Reading, Stage

__all__ = ["FairnessCallback"]

_STAGES = ("train", "val", "test")


class FairnessCallback(Callback):
    """Measure group disparities of any LightningModule in validation and test, and log them under fixed keys.

    Over all rows of a stage, on all processes (`<stage>` is val or test, and train if asked for):

        <stage>/score_gap                        largest minus smallest group mean of the scores
        <stage>/demographic_parity_difference    the same of the decisions `score >= threshold`
        <stage>/equalized_odds_difference        the same within each label; the larger of the two
        <stage>/smallest_group                   rows of the smallest group seen

    A number that could not be observed (fewer than two groups) is NaN. With several features the plain key holds the
    worst of them, and `<key>/<feature>` each. With several loaders `/dataloader_idx_<i>` is added. Where the module
    holds a `FairModel` or `FairProjection`:

        <stage>/multiplier/<constraint>          mean over batches of the multiplier per row
        <stage>/violation                        largest violation of a batch, from the certificates
        <stage>/widening                         largest widening of the limits of a batch (also for train)
        train/tolerance/<constraint>, train/adversary_strength       where they are scheduled

        train/penalty_weight                     where it is scheduled

    The batch is read as `(x, y, sensitive)`, or as a dict with the keys x, y, sensitive_features. The predictions are
    those that the step returned (`{"preds": ...}`), else what forward hooks caught in the step; no second forward is
    made. Where several forwards of a module gave scores for the batch, or the step returned a bare tensor of one number
    per row, which may be losses, the callback asks which are meant. Schedules count batches.

    Several callbacks may measure one module, each under a `name` of its own; the first of them in the trainer's list
    speaks for the layers and keeps the streams.

    Streams (`inference=True`) begin empty in each validation and test, and go on afterwards where they were: what was
    emitted there is counted in no stream of production. The sanity check leaves no trace.

    Args:
        sensitive_features: names, in the order of the columns of a tensor (n, a).
        threshold: a score at or above it is a decision for 1; None where there are no decisions (regression).
        logits: predictions are logits, to be taken through a sigmoid, or a softmax for (n, 2).
        stages: where to measure; "train" costs a look at each training batch.
        tolerance: schedule (progress in [0, 1] -> tolerance) while training, for every constraint with a tolerance or
            by its name. Validation, test and the model after training have the tolerances they were made with.
        penalty_weight: schedule of the module's attribute of this name, such as that of `FairLightningModule`, while
            training; afterwards it is what it was.
        name: a word that goes between stage and key, as `val/<name>/score_gap`; needed for the second callback of a
            trainer.
        stop_on_infeasible: where a layer would raise InfeasibleConstraintsError, end the fit in order after that batch
            (its limits are widened by the least), with a warning; False lets it raise.
        batch_adapter: function from your batch to one of the forms above.
        predict: function of (module, batch, outputs of the step) that returns the predictions.

    Raises:
        BatchReadingError: batch or predictions cannot be read; it says what to pass.

    Example:
        >>> callback = FairnessCallback(sensitive_features=["sex"])
        >>> callback.history
        []
    """

    def __init__(
        self,
        sensitive_features: str | Sequence[str],
        *,
        threshold: float | None = 0.5,
        logits: bool = False,
        stages: Sequence[str] = ("val", "test"),
        tolerance: Schedule | Mapping[str, Schedule] | None = None,
        penalty_weight: Schedule | None = None,
        name: str | None = None,
        stop_on_infeasible: bool = True,
        batch_adapter: Callable[[Any], Any] | None = None,
        predict: Callable[[nn.Module, Any, Any], Tensor] | None = None,
    ) -> None:
        names = as_names(sensitive_features)
        self.reading = Reading(names, threshold, logits, batch_adapter, predict)
        self.stages = tuple(check_choice("stages", stage, _STAGES) for stage in stages)
        self.stop_on_infeasible = stop_on_infeasible
        self.history: list[dict[str, float]] = []
        self.stopped: str | None = None
        self.name = name
        self._tolerance = tolerance
        self._penalty_weight = penalty_weight
        self._leads = True
        self._train: Stage | None = None
        self._evaluated: Stage | None = None
        self._streams: Streams | None = None
        self._vocabularies: Vocabularies | None = None
        self._scheduling: Scheduling | None = None
        self._infeasible = InfeasibleStop()
        self._said: set[str] = set()

    @property
    def state_key(self) -> str:
        """What tells this callback from others of its kind in a checkpoint."""
        return self._generate_state_key(name=self.name, sensitive_features=self.reading.names, stages=self.stages)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Agree with the other callbacks of this kind.

        Raises:
            ConstraintDefinitionError: another one writes the same keys, or schedules tolerances or weights as well.
        """
        alike = [other for other in trainer.callbacks if isinstance(other, FairnessCallback)]  # type: ignore[attr-defined]
        self._leads = not alike or alike[0] is self
        for other in alike:
            if other is not self:
                self._check_against(other)

    # ---- fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare schedules, and let infeasible limits end the fit in order."""
        self.stopped = None
        self._infeasible.forget()
        self._scheduling = Scheduling(pl_module, self._tolerance, self._penalty_weight)
        if self.stop_on_infeasible:
            self._infeasible.begin(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look at training batches."""
        if self._scheduling is not None:
            self._scheduling.start(trainer, adversaries_of(pl_module) if self._leads else [])
        self._train = self._stage(pl_module, "train", 1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set tolerances, weights and adversary strengths for this step."""
        if self._train is not None:
            self._train.begin_step()
        if self._scheduling is not None:
            self._scheduling.advance(trainer, batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the batch, if asked to, and stop where its limits could not be met."""
        if self._train is not None:
            self._train.end_step(pl_module, batch, outputs)
        self.stopped = self._infeasible.stop(trainer) or self.stopped

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is known of training."""
        if self._train is None:
            return
        scheduled = None if self._scheduling is None else self._scheduling.values
        self._log(trainer, pl_module, "train", self._train, more=scheduled)
        self._train.clear()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was given, but for what it learnt."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model as it was given, but for what it learnt."""
        if self._streams is not None:
            self._streams.put_back()
        self._leave()

    # ---- validation and test

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what the layers know before the sanity check."""
        self._vocabularies = Vocabularies(pl_module)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what the sanity check taught."""
        if self._vocabularies is not None:
            self._vocabularies.put_back()
        self._infeasible.forget()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin empty streams and sums."""
        loaders = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._begin(pl_module, "val", len(loaders))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Forget the predictions of the step before."""
        if self._evaluated is not None:
            self._evaluated.begin_step()

    def on_validation_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the batch to the sums."""
        if self._evaluated is not None:
            self._evaluated.end_step(pl_module, batch, outputs, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the disparities of the epoch."""
        if self._evaluated is not None and not trainer.sanity_checking:
            numbers = self._log(trainer, pl_module, "val", self._evaluated)
            self.history.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **numbers})
            self.stopped = self._infeasible.stop(trainer) or self.stopped

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the streams of before."""
        self._end()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin empty streams and sums."""
        self._begin(pl_module, "test", len(trainer.num_test_batches))

    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the disparities."""
        if self._evaluated is not None:
            self._log(trainer, pl_module, "test", self._evaluated)

    on_test_end = on_validation_end

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the history of validation, and why the fit was stopped."""
        return {"history": self.history, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it.

        Raises:
            CheckpointError: it is not what `state_dict` returned; nothing has changed.
        """
        history: Any = state_dict.get("history")
        stopped = state_dict.get("stopped")
        entries = isinstance(history, list) and all(isinstance(entry, dict) for entry in history)
        if not entries or "stopped" not in state_dict or not isinstance(stopped, str | None):
            raise CheckpointError(
                f"the checkpoint's state of FairnessCallback holds {sorted(map(str, state_dict))}, and not a list of "
                "entries as 'history' with the reason as 'stopped': another version wrote it, or it was changed. "
                "Resume without this callback, or take its entry out of checkpoint['callbacks']."
            )
        self.history, self.stopped = list(history), stopped

    # ---- internals

    def _stage(self, module: nn.Module, name: str, loaders: int) -> Stage:
        return Stage(
            module,
            self.reading,
            loaders,
            measure=name in self.stages,
            of_layers=self._leads,
            on_widened=self._infeasible.note,
        )

    def _check_against(self, other: FairnessCallback) -> None:
        shared = [stage for stage in self.stages if stage in other.stages]
        if other.name == self.name and shared:
            raise ConstraintDefinitionError(
                f"two FairnessCallbacks, of {list(self.reading.names)} and of {list(other.reading.names)}, would log "
                f"the same keys in {', '.join(shared)}. Give one of them name=..., which goes into its keys, or give "
                "all features to one callback."
            )
        for what, mine, theirs in (
            ("tolerance", self._tolerance, other._tolerance),
            ("penalty_weight", self._penalty_weight, other._penalty_weight),
        ):
            if mine is not None and theirs is not None:
                raise ConstraintDefinitionError(
                    f"two FairnessCallbacks were given a schedule {what}=, and the second would undo the first. Give "
                    "all of it to one of them."
                )

    def _begin(self, module: nn.Module, name: str, loaders: int) -> None:
        if self._scheduling is not None:
            self._scheduling.put_tolerances_back()
        if self._train is not None:
            self._train.pause(True)
        if self._leads:
            self._streams = Streams(module)
            self._streams.begin()
        self._evaluated = self._stage(module, name, loaders)

    def _end(self) -> None:
        if self._evaluated is not None:
            self._evaluated.close()
        if self._streams is not None:
            self._streams.put_back()
        if self._train is not None:
            self._train.pause(False)
        self._evaluated = self._streams = None

    def _leave(self) -> None:
        self._infeasible.end()
        if self._scheduling is not None:
            self._scheduling.end()
        for stage in (self._train, self._evaluated):
            if stage is not None:
                stage.close()
        self._train = self._evaluated = self._streams = self._scheduling = None

    def _log(
        self,
        trainer: Trainer,
        module: LightningModule,
        name: str,
        stage: Stage,
        *,
        more: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        found = stage.found(trainer.world_size)
        prefix = name if self.name is None else f"{name}/{self.name}"
        numbers = {**found.numbers, **(more or {})}
        if not (self._leads or numbers):
            return {}
        logged = {f"{prefix}/{key}": value for key, value in numbers.items()}
        shown = {key: value for key, value in logged.items() if "/score_gap" in key or "/multiplier/" in key}
        # the values of all processes are equal already, but Lightning wants to be told so; the keys name the loaders
        options: dict[str, Any] = {"sync_dist": trainer.world_size > 1, "add_dataloader_idx": False}
        module.log_dict(shown, prog_bar=True, **options)
        module.log_dict({key: value for key, value in logged.items() if key not in shown}, **options)
        self._speak(name, found)
        return logged

    def _speak(self, name: str, found: Found) -> None:
        if found.broken:
            self._once(f"{len(found.broken)} certificates of {name} do not hold, first: {found.broken[0]}")
        for feature, disparities in (item for by_feature in found.by_loader for item in by_feature.items()):
            if disparities.groups < 2:
                self._once(
                    f"fewer than two groups of '{feature}' were seen in {name}, so its disparities are NaN (not "
                    "observed). ModelCheckpoint counts NaN as worst; EarlyStopping stops on it, unless "
                    "check_finite=False. Use rows that hold every group."
                )
        if self.reading.threshold is not None and found.outside:
            self._once(
                f"scores of {name} lie outside [0, 1]; decisions are taken at {self.reading.threshold}. If they are "
                "logits, pass logits=True; for regression threshold=None."
            )

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            rank_zero_warn(text)
