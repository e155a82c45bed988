"""A progress bar while training, when someone is watching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fairlayer.constraints import Constraint
from fairlayer.errors import require
from fairlayer.training import Epoch

__all__ = ["training_progress"]


@contextmanager
def training_progress(epochs: int, constraints: Sequence[Constraint]) -> Iterator[Callable[[str, Epoch], None] | None]:
    """Yield what to tell about each epoch; None where the output is not a terminal."""
    console = require("rich.console", "train").Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    progress = require("rich.progress", "train")
    bar = progress.Progress(
        progress.TextColumn("{task.description:<13}"),
        progress.BarColumn(bar_width=16),
        progress.TextColumn("{task.completed:>3}/{task.total} {task.fields[words]}"),
        console=console,
    )
    tasks: dict[str, int] = {}
    with bar:

        def on_epoch(which: str, epoch: Epoch) -> None:
            if which not in tasks:
                tasks[which] = bar.add_task(which, total=epochs, words="")
            bar.update(tasks[which], completed=epoch.number, words=_words(epoch, constraints))

        yield on_epoch


def _words(epoch: Epoch, constraints: Sequence[Constraint]) -> str:
    """Return the loss, the largest gap before the layer with its limit, and the largest multiplier."""
    words = f"loss {epoch.valid_loss:.4f}"
    if epoch.gap:
        name = max(epoch.gap, key=lambda each: epoch.gap[each])
        limits = [each.limit for each in constraints if each.name == name and each.limit is not None]
        limit = f"/{limits[0]:g}" if limits else ""
        words += f" gap {epoch.gap[name]:.3f}{limit}"
    if epoch.multiplier:
        words += f" multiplier {max(epoch.multiplier.values()):.4f}"
    return words
