"""FairnessCallback: group disparities of any LightningModule, measured, logged and acted upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from fairlayer.constraints.base import as_names
from fairlayer.edge import check_choice
from fairlayer.errors import ConstraintDefinitionError
from fairlayer.integrations.lightning.layers import Streams, Vocabularies, key_of, layers_of
from fairlayer.integrations.lightning.schedules import Schedule, ToleranceSchedule, adversaries_of, steps_of
from fairlayer.integrations.lightning.stage import Found, Reading, Stage
from fairlayer.projection import FairProjection

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

    The batch is read as `(x, y, sensitive)`, or as a dict with the keys x, y, sensitive_features. The predictions are
    those that the step returned (`{"preds": ...}`), else what forward hooks caught in the step; no second forward is
    made.

    Streams (`inference=True`) begin empty in each validation and test, and go on afterwards where they were: what was
    emitted there is counted in no stream of production. The sanity check leaves no trace.

    Args:
        sensitive_features: names, in the order of the columns of a tensor (n, a).
        threshold: a score at or above it is a decision for 1; None where there are no decisions (regression).
        logits: predictions are logits, to be taken through a sigmoid, or a softmax for (n, 2).
        stages: where to measure; "train" costs a look at each training batch.
        tolerance: schedule (progress in [0, 1] -> tolerance) while training, for every constraint with a tolerance or
            by its name. Validation, test and the model after training have the tolerances they were made with.
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
        stop_on_infeasible: bool = True,
        batch_adapter: Callable[[Any], Any] | None = None,
        predict: Callable[[nn.Module, Any, Any], Tensor] | None = None,
    ) -> None:
        names = as_names(sensitive_features)
        if len(set(names)) < len(names):
            raise ConstraintDefinitionError(f"sensitive_features={list(names)} names a feature twice; name each once.")
        self.reading = Reading(names, threshold, logits, batch_adapter, predict)
        self.stages = tuple(check_choice("stages", stage, _STAGES) for stage in stages)
        self.stop_on_infeasible = stop_on_infeasible
        self.history: list[dict[str, float]] = []
        self.stopped: str | None = None
        self._tolerance = tolerance
        self._train: Stage | None = None
        self._evaluated: Stage | None = None
        self._streams: Streams | None = None
        self._vocabularies: Vocabularies | None = None
        self._schedule: ToleranceSchedule | None = None
        self._relaxed: list[FairProjection] = []
        self._relaxing = ExitStack()
        self._steps = 1.0
        self._clash: str | None = None
        self._scheduled: dict[str, float] = {}
        self._said: set[str] = set()

    # ---- fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare schedules, and let infeasible limits end the fit in order."""
        self._clash = self.stopped = None
        if self._tolerance is not None:
            self._schedule = ToleranceSchedule(pl_module, self._tolerance)
        if self.stop_on_infeasible:
            self._relaxed = [layer for layer in layers_of(pl_module) if not layer.options.relax]
        for layer in self._relaxed:
            self._relaxing.enter_context(layer.relaxed())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look at training batches."""
        self._adversaries = adversaries_of(pl_module)
        if self._schedule is not None or self._adversaries:
            self._steps = steps_of(trainer)
        self._train = self._stage(pl_module, "train", 1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set tolerances and adversary strengths for this step."""
        if self._train is not None:
            self._train.begin_step()
        progress = min(1.0, trainer.global_step / self._steps)
        if self._schedule is not None:
            tolerances = self._schedule.advance(progress)
            self._scheduled |= {f"tolerance/{key_of(name)}": value for name, value in tolerances.items()}
        for adversary in self._adversaries:
            adversary.advance(progress)
            self._scheduled["adversary_strength"] = adversary.strength

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the batch, if asked to, and stop where its limits could not be met."""
        if self._train is not None:
            self._train.end_step(pl_module, batch, outputs)
        self._stop_if_infeasible(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is known of training."""
        if self._train is None:
            return
        self._log(trainer, pl_module, "train", self._train, more=self._scheduled)
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
        self._clash = None

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
            self._stop_if_infeasible(trainer)

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
        """Restore it."""
        self.history, self.stopped = list(state_dict["history"]), state_dict["stopped"]

    # ---- internals

    def _stage(self, module: nn.Module, name: str, loaders: int) -> Stage:
        return Stage(module, self.reading, loaders, measure=name in self.stages, on_widened=self._note_widened)

    def _begin(self, module: nn.Module, name: str, loaders: int) -> None:
        if self._schedule is not None:
            self._schedule.put_back()
        if self._train is not None:
            self._train.pause(True)
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
        self._relaxing.close()
        if self._schedule is not None:
            self._schedule.put_back()
        for stage in (self._train, self._evaluated):
            if stage is not None:
                stage.close()
        self._train = self._evaluated = self._streams = self._schedule = None
        self._relaxed = []

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
        logged = {f"{name}/{key}": value for key, value in {**found.numbers, **(more or {})}.items()}
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

    def _note_widened(self, layer: FairProjection) -> None:
        if layer not in self._relaxed or layer.last is None:
            return
        names = ", ".join(constraint.name for constraint in layer.constraints)
        self._clash = f"no predictions meet {names} together; every limit was widened by {layer.last.widening:.3g}"

    def _stop_if_infeasible(self, trainer: Trainer) -> None:
        if not self._relaxed:
            return
        clash = self._clash is not None
        if trainer.world_size > 1:
            clash = trainer.strategy.reduce_boolean_decision(clash, all=False)
        if clash and not trainer.should_stop:
            trainer.should_stop = True
            self.stopped = self._clash or "limits could not be met on another process"
            rank_zero_warn(f"training stops in step {trainer.global_step}: {self.stopped}. Loosen the limits.")
