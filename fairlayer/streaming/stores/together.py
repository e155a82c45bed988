"""Questions of several threads, asked as one: who comes while one is under way goes with the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fairlayer.streaming.store import Id, StoredAnswer

__all__ = ["Together"]


@dataclass
class _Round:
    """The ids that are asked for at once, and what became of them."""

    ids: list[Id] = field(default_factory=list)
    found: Mapping[Id, StoredAnswer] | None = None
    error: BaseException | None = None


class Together:
    """Looks ids up for several threads, with one question for all that have come meanwhile.

    Args:
        ask: looks ids up; called by one thread at a time.

    Example:
        >>> from fairlayer.streaming.store import StoredAnswer
        >>> together = Together(lambda ids: {each: StoredAnswer(0.5, None, 0.4) for each in ids if each == "a"})
        >>> together(["a", "b"])
        {'a': StoredAnswer(emitted=0.5, label=None, raw=0.4, digest=None)}
    """

    def __init__(self, ask: Callable[[Sequence[Id]], Mapping[Id, StoredAnswer]]) -> None:
        self._ask, self._next, self._busy = ask, _Round(), False
        self._changed = threading.Condition()

    def __call__(self, ids: Sequence[Id]) -> dict[Id, StoredAnswer]:
        """Return what is known of the ids; an error of the question is raised in each thread that it was for."""
        with self._changed:
            mine = self._next
            mine.ids.extend(ids)
            while self._busy and mine.found is None and mine.error is None:
                self._changed.wait()
            asks = mine.found is None and mine.error is None
            if asks:
                self._busy, self._next = True, _Round()
        if asks:
            self._answer(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.found is not None
        return {each: mine.found[each] for each in ids if each in mine.found}

    def _answer(self, mine: _Round) -> None:
        try:
            mine.found = self._ask(mine.ids)
        except BaseException as error:
            mine.error = error
        with self._changed:
            self._busy = False
            self._changed.notify_all()
