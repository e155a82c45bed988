"""The present: shifts from recent raw scores, and a guard on recent means. Nothing else remembers the past.

policy       the class that callers write, and the hooks that the machine calls
state        what it remembers, and how that grows, fades and merges
solving      the shifts, from the sketch of recent raw scores
changes      when a cell's scores have clearly changed, and what is then forgotten
answering    predictions, the guard, and their counting
quick        answers, counting and solutions by compiled kernels, where numba is installed
"""

from fairlayer.streaming.policies.present.policy import Present

__all__ = ["Present"]


def __dir__() -> list[str]:
    return list(__all__)
