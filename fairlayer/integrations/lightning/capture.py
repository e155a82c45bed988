"""The predictions that a step made, caught by forward hooks, so that nothing is computed twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss
from torchmetrics import Metric

from fairlayer.integrations.lightning.errors import BatchReadingError
from fairlayer.integrations.lightning.reading import scores_in
from fairlayer.model import FairModel
from fairlayer.projection import FairProjection
from fairlayer.tracing import in_backward

__all__ = ["Capture"]

_SAY = "Pass predict=, a function that returns the ones to measure, or return {'preds': ...} in the step."


class Capture:
    """Hooks on the outermost layers of fairlayer, on the module itself, and on its direct children.

    The output of a `FairModel` (or a lone `FairProjection`) is taken first, for that is what is emitted; then what the
    module's own `forward` returned; then the output of the only child that gave one score per row. Losses and metrics
    among the children are not predictions. Forwards that checkpointing runs again in the backward pass do not count.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = _outermost(module)
        children = {
            f"self.{name}": child
            for name, child in module.named_children()
            if child not in layers and not isinstance(child, _Loss | Metric)
        }
        self._outputs: dict[str, list[Any]] = {}
        self._ranked: list[list[str]] = [[f"layer {i}" for i in range(len(layers))], ["self"], list(children)]
        named = {**dict(zip(self._ranked[0], layers, strict=True)), "self": module, **children}
        self._handles = [each.register_forward_hook(self._hook(name)) for name, each in named.items()]

    def clear(self) -> None:
        """Forget the step before."""
        self._outputs.clear()

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self.clear()

    def predictions(self, n: int) -> Tensor:
        """Return the predictions of a batch of n rows.

        Raises:
            BatchReadingError: the step made none that can be told, or several different ones.
        """
        for names in self._ranked:
            found = {name: each for name in names if (each := self._scores(name, n))}
            if len(found) > 1:
                raise BatchReadingError(
                    f"{len(found)} modules gave predictions for the {n} rows of the batch ({', '.join(found)}). {_SAY}"
                )
            for name, each in found.items():
                return _the_same(name, each, n)
        raise BatchReadingError(
            f"no predictions for the {n} rows of the batch were found: the step returned none, and neither the module "
            "nor a child of it gave one score per row. Return {'loss': ..., 'preds': ...} in the step, call the module "
            "(self(x)) in it, or pass predict=, a function of (module, batch, outputs) that returns them."
        )

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if not in_backward():
                self._outputs.setdefault(name, []).append(output)

        return keep

    def _scores(self, name: str, n: int) -> list[Tensor]:
        found = [each if isinstance(each, Tensor) else scores_in(each) for each in self._outputs.get(name, [])]
        shapes = ((n,), (n, 1), (n, 2))
        return [each for each in found if each is not None and each.is_floating_point() and each.shape in shapes]


def _the_same(name: str, scores: list[Tensor], n: int) -> Tensor:
    """Return the scores of a module that ran once, or several times with the same scores."""
    first = scores[0]
    if all(each is first or (each.shape == first.shape and torch.equal(each, first)) for each in scores[1:]):
        return first
    raise BatchReadingError(
        f"{name} ran {len(scores)} times in the step and gave different predictions for the {n} rows of the batch. "
        f"{_SAY}"
    )


def _outermost(module: nn.Module) -> list[nn.Module]:
    """Return the models of fairlayer and lone projections, none of which lies inside another."""
    kinds = FairModel | FairProjection
    if isinstance(module, kinds):
        return [module]
    return [found for child in module.children() for found in _outermost(child)]
