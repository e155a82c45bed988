"""A progress bar while training, when someone is watching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fairlayer.errors import require
from fairlayer.training import Epoch

__all__ = ["training_progress"]


@contextmanager
def training_progress(epochs: int) -> Iterator[Callable[[str, Epoch], None] | None]:
    """Yield what to tell about each epoch; None where the output is no terminal."""
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
            bar.update(tasks[which], completed=epoch.number, words=_words(epoch))

        yield on_epoch


def _words(epoch: Epoch) -> str:
    words = f"loss {epoch.valid_loss:.4f}"
    if epoch.gap:
        words += f" gap {max(epoch.gap.values()):.3f}"
    if epoch.multiplier:
        words += f" price {max(epoch.multiplier.values()):.2f}"
    return words
