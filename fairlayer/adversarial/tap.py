"""A tap on a module: a forward hook that remembers the latest output until it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fairlayer.adversarial.errors import AdversaryDefinitionError, CaptureError
from fairlayer.errors import OutputError
from fairlayer.tracing import in_backward

__all__ = ["Read", "Tap", "find_module"]

Read = Callable[[Any], Tensor]


class Tap:
    """The latest output of one module, as features (n, width), until it is read.

    Copies and pickles carry no output and no handle: an activation belongs to the process and the graph it was
    computed in. A model and its adversary that are copied together stay connected.

    Args:
        where: how messages call the module.
        read: a function that takes the tensor out of the module's output; None where the output is one, or has
            `.logits`.
    """

    def __init__(self, where: str, read: Read | None = None) -> None:
        self.where = where
        self.read = read
        self.closed = False
        self.runs = 0
        self._handle: RemovableHandle | None = None
        self._output: Tensor | None = None
        self._version = 0
        self._graphless = False  # the output kept was computed without a graph
        self._read_graphless = False  # and was read by a loss that has one

    @staticmethod
    def at(name: str | None, read: Read | None) -> Tap:
        """Return a tap for a submodule, or for the model's output."""
        return Tap("the model's output" if name is None else f"the submodule '{name}'", read)

    def attach(self, module: nn.Module) -> Tap:
        """Listen to a module."""
        self._handle = module.register_forward_hook(self)
        return self

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Remember an output; called by torch after the module's forward.

        Raises:
            CaptureError: checkpointing of the old kind runs a forward again, whose first run had no graph.
        """
        if self.closed:
            return
        if in_backward():  # checkpointing repeats a forward that was seen
            self._refuse_reentrant()
            return
        self.keep(output)

    def keep(self, output: Any) -> None:
        """Remember an output."""
        self._output = _as_tensor(output, self.read, self.where)
        self._version = _version(self._output)
        self._graphless, self._read_graphless = not torch.is_grad_enabled(), False
        self.runs += 1

    def peek(self) -> Tensor:
        """Return the features of the latest forward; they stay until `clear`.

        Raises:
            CaptureError: there are none, or they were changed in place after the module returned them.
        """
        if self._output is None:
            raise CaptureError(self._why_empty())
        if _version(self._output) != self._version:
            raise CaptureError(
                f"the output of {self.where} was changed in place after the module returned it (for example by "
                "nn.ReLU(inplace=True)), so it is not what the adversary was to read. Attach the adversary to the "
                "module that changes it, or use inplace=False."
            )
        self._read_graphless = self._graphless and torch.is_grad_enabled()
        return self._output.flatten(1) if self._output.ndim > 1 else self._output[:, None]

    def clear(self) -> None:
        """Forget the output, so that no later batch can read it."""
        self._output = None

    def close(self) -> None:
        """Stop listening, for good."""
        self.closed = True
        self.clear()
        if self._handle is not None:
            self._handle.remove()

    def _refuse_reentrant(self) -> None:
        if self._read_graphless and torch.is_grad_enabled():
            raise CaptureError(
                f"{self.where} lies inside torch.utils.checkpoint(..., use_reentrant=True), which first runs it "
                "without a graph, so that no reversed gradient reaches the model. Use "
                "checkpoint(..., use_reentrant=False), or attach the adversary outside the checkpointed part."
            )

    def _why_empty(self) -> str:
        if self.closed:
            return f"this adversary was removed from {self.where}. Build a new one to attach it again."
        if self.runs == 0:
            return (
                f"the adversary reads {self.where}, but no forward of the model has run since it was built (or "
                "copied, or loaded). Call the model on the batch first; an adversary copied without its model "
                "listens to nothing."
            )
        return (
            f"the output of {self.where} was already read, and no forward of the model has run since. Call the "
            "model on each batch before adversary.loss(...), which reads it once."
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_output": None, "_read_graphless": False, "runs": 0}


def find_module(model: nn.Module, name: str | None) -> nn.Module:
    """Return a submodule by its dotted name, the model itself for None.

    Raises:
        AdversaryDefinitionError: there is none of that name.
    """
    if name is None:
        return model
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name and name in modules:
        return modules[name]
    known = [each for each in modules if each]
    shown = ", ".join(map(repr, known[:12])) + (f" (and {len(known) - 12} more)" if len(known) > 12 else "")
    raise AdversaryDefinitionError(
        f"an adversary was asked for at={name!r}, but {type(model).__name__} has no submodule of that name. It has: "
        f"{shown or 'none'}. Name one of them, or leave at=None for the model's output."
    )


def _as_tensor(output: Any, read: Read | None, where: str) -> Tensor:
    if read is not None:
        output = read(output)
    elif not isinstance(output, Tensor):
        output = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 0:
        return output
    found = f"a tensor of {output.dtype}, {output.ndim}-d" if isinstance(output, Tensor) else type(output).__name__
    raise OutputError(
        f"an adversary reads {where}, whose output must be a floating tensor with one row per sample (or have such "
        f"`.logits`), but it is {found}. Pass read=, a function from the module's output to such a tensor."
    )


def _version(output: Tensor) -> int:
    if torch.compiler.is_compiling() or output.is_inference():  # neither keeps count
        return 0
    return output._version
