"""A sweep in a process of its own, to be killed: python -m tests.pareto.killed_sweep FOLDER MARKS."""

from __future__ import annotations

import functools
import sys

from fairlayer.pareto import pareto_sweep
from tests.pareto.jobs import marked

VALUES, SEEDS, WORKERS = [0.1, 0.2, 0.3, 0.4], (0, 1, 2), 2

if __name__ == "__main__":
    train = functools.partial(marked, folder=sys.argv[2])
    pareto_sweep(train, VALUES, seeds=SEEDS, folder=sys.argv[1], workers=WORKERS, progress=False)
