"""A problem that the solver did not finish, in a form that can be sent to those who mend it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch

from fairlayer._typing import FloatArray
from fairlayer.passes import Passes
from fairlayer.solve.slabs import RowSlabs, SlabSystem

__all__ = ["StuckProblem"]


@dataclass(frozen=True)
class StuckProblem:
    """What a solver saw of a batch: statistics of cells and limits, no single score.

    A cell of one sample has that sample's score for its mean, so look at it before you pass it on.

    Args:
        geometry: name of the geometry, with "simplex" where rows of classes are projected.
        samples: number of samples.
        seed: the seed of torch's generator in this process.
        counts: samples of each cell, (cells,).
        start: statistics before anything is moved, (s,).
        metric: how they answer a pull there, (s,) or (s, s).
        matrices: one matrix over the statistics per block of slabs.
        limits: for each block, its limits in words of JSON.
    """

    geometry: str
    samples: int
    seed: int
    counts: FloatArray
    start: FloatArray
    metric: FloatArray
    matrices: tuple[FloatArray, ...]
    limits: tuple[str, ...]

    @staticmethod
    def of(passes: Passes, slabs: SlabSystem) -> StuckProblem:
        """Describe a problem."""
        point = passes.at(None)
        return StuckProblem(
            passes.geometry.name + (" simplex" if passes.geometry.on_simplex else ""),
            passes.n,
            torch.initial_seed(),
            passes.cells.counts,
            point.statistics,
            np.asarray(point.curvature),
            tuple(block.matrix for block in slabs.blocks),
            tuple(_limits(block) for block in slabs.blocks),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write it to a file that `numpy.load` reads.

        Example:
            >>> import tempfile
            >>> one = np.ones(1)
            >>> problem = StuckProblem("euclidean", 3, 0, 3 * one, one, one, (np.eye(1),), ('{"upper": [0.5]}',))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     problem.save(f"{folder}/problem.npz")
            ...     print(np.load(f"{folder}/problem.npz")["limits 0"])
            {"upper": [0.5]}
        """
        blocks = {f"matrix {j}": matrix for j, matrix in enumerate(self.matrices)}
        limits = {f"limits {j}": np.array(text) for j, text in enumerate(self.limits)}
        np.savez(
            path,
            geometry=np.array(self.geometry),
            samples=np.array(self.samples),
            seed=np.array(self.seed, dtype=np.uint64),
            counts=self.counts,
            start=self.start,
            metric=self.metric,
            **blocks,  # type: ignore[arg-type]
            **limits,  # type: ignore[arg-type]
        )


def _limits(block: object) -> str:
    if isinstance(block, RowSlabs):
        scale = None if block.scale is None else block.scale.tolist()
        return json.dumps({"lower": block.lower.tolist(), "upper": block.upper.tolist(), "scale": scale})
    offset = None if block.offset is None else block.offset.tolist()  # type: ignore[attr-defined]
    return json.dumps({"width": block.width, "scale": block.scale, "offset": offset})  # type: ignore[attr-defined]
