"""Running a model and reading what one of its submodules gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fairlayer.adversarial.errors import AdversaryDefinitionError
from fairlayer.adversarial.tap import Read, Tap, find_module
from fairlayer.errors import EmptyBatchError

__all__ = ["activations", "example_features"]

CHUNK = 4096


def activations(model: nn.Module, inputs: Tensor | Iterable[Any], *, at: str, read: Read | None = None) -> Tensor:
    """Return what a submodule gives for the inputs, (n, width) on the CPU, in evaluation mode and without gradient.

    Args:
        model: any module; of a FairModel the backbone runs, not the projection.
        inputs: a tensor (n, ...), run in chunks, or an iterable of inputs as for `Adversary(example=)`.
        at: dotted name of the submodule.
        read: see `Adversary`.

    Raises:
        AdversaryDefinitionError: no such submodule, or it did not run.
        EmptyBatchError: there are no inputs.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> activations(net, torch.randn(100, 3), at="1").shape
        torch.Size([100, 8])
    """
    batches = _chunks(inputs) if isinstance(inputs, Tensor) else inputs
    with _listening(model, at, read) as run:
        parts = [run(batch).cpu() for batch in batches]
    if sum(map(len, parts)) == 0:
        raise EmptyBatchError("the representation was asked for, but there are no inputs. Give at least one batch.")
    return torch.cat(parts)


def example_features(model: nn.Module, at: str | None, read: Read | None, example: Any) -> Tensor:
    """Return what an adversary would read for the example."""
    with _listening(model, at, read) as run:
        return run(example)


@contextmanager
def _listening(model: nn.Module, at: str | None, read: Read | None) -> Iterator[Callable[[Any], Tensor]]:
    """Give a function input -> features; the model's modes are put back, and its hooks, afterwards."""
    tap = Tap.at(at, read).attach(find_module(model, at))
    modes = {each: each.training for each in model.modules()}
    call = getattr(model, "raw_scores", model)  # a FairModel needs no groups for its features
    model.eval()

    def run(example: Any) -> Tensor:
        runs = tap.runs
        with torch.no_grad():
            output = _call(call, example)
        if tap.runs == runs and at is None:  # raw_scores is not a call of the module itself
            tap.keep(output)
        if tap.runs == runs:
            raise AdversaryDefinitionError(
                f"{tap.where} did not run when the model was called, so there is nothing to read. Name a submodule "
                "that its forward calls."
            )
        return tap.peek()

    try:
        yield run
    finally:
        tap.close()
        for each, training in modes.items():
            each.training = training


def _chunks(inputs: Tensor) -> Iterator[Tensor]:
    return (inputs[first : first + CHUNK] for first in range(0, len(inputs), CHUNK))


def _call(model: Any, example: Any) -> Any:
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)
