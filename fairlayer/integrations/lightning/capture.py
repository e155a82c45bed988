"""The predictions that a step made, caught by forward hooks, so that nothing is computed twice."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fairlayer.integrations.lightning.errors import BatchReadingError
from fairlayer.integrations.lightning.reading import scores_in
from fairlayer.model import FairModel
from fairlayer.projection import FairProjection

__all__ = ["Capture"]


class Capture:
    """Hooks on the outermost layers of fairlayer, on the module itself, and on its direct children.

    The output of a `FairModel` (or a lone `FairProjection`) is taken first, for that is what is emitted; then what the
    module's own `forward` returned; then the output of the only child that gave one score per row.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = _outermost(module)
        children = {f"self.{name}": child for name, child in module.named_children() if child not in layers}
        self._outputs: dict[str, Any] = {}
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
        """Return the latest predictions of a batch of n rows.

        Raises:
            BatchReadingError: the step made none that can be told.
        """
        for names in self._ranked:
            found = {name: scores for name in names if (scores := self._scores(name, n)) is not None}
            if len(found) == 1:
                return next(iter(found.values()))
            if found:
                raise BatchReadingError(
                    f"{len(found)} modules gave predictions for the {n} rows of the batch ({', '.join(found)}). "
                    "Pass predict=, a function that returns the ones to measure, or return {'preds': ...} in the step."
                )
        raise BatchReadingError(
            f"no predictions for the {n} rows of the batch were found: the step returned none, and neither the module "
            "nor a child of it gave one score per row. Return {'loss': ..., 'preds': ...} in the step, call the module "
            "(self(x)) in it, or pass predict=, a function of (module, batch, outputs) that returns them."
        )

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._outputs[name] = output

        return keep

    def _scores(self, name: str, n: int) -> Tensor | None:
        scores = scores_in(self._outputs.get(name), n)
        fits = scores is not None and scores.is_floating_point() and tuple(scores.shape) in ((n,), (n, 1), (n, 2))
        return scores if fits else None


def _outermost(module: nn.Module) -> list[nn.Module]:
    """Models of fairlayer and lone projections, none of which lies inside another."""
    kinds = FairModel | FairProjection
    if isinstance(module, kinds):
        return [module]
    return [found for child in module.children() for found in _outermost(child)]
