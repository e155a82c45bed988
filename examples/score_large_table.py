"""A table that is never in memory: scores read in chunks, projected as one batch, and written row by row."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import fairlayer as fl
from fairlayer.scoring import project_chunks

ROWS = 60_000 if os.environ.get("FAIRLAYER_EXAMPLE_FAST") else 2_000_000
CHUNK = 20_000

# A file of scores and groups, as a scoring job would leave it; here made up.
folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
region = np.lib.format.open_memmap(folder / "region.npy", "w+", np.int8, (ROWS,))
scores = np.lib.format.open_memmap(folder / "scores.npy", "w+", np.float32, (ROWS,))
for start in range(0, ROWS, CHUNK):
    part = slice(start, start + CHUNK)
    region[part] = rng.integers(0, 4, CHUNK)
    scores[part] = np.clip(rng.beta(1.5, 2.5, CHUNK) + 0.04 * region[part], 0.0, 1.0)


def chunks() -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Read the table from its start; called once per sweep."""
    for start in range(0, ROWS, CHUNK):
        yield scores[start : start + CHUNK], {"region": region[start : start + CHUNK]}


rules = [fl.DemographicParity("region", tolerance=0.01)]
table = project_chunks(chunks, rules, bounds=(0.0, 1.0))

values = np.lib.format.open_memmap(folder / "values.npy", "w+", np.float32, (ROWS,))
row = 0
for value in table.values():
    values[row : row + len(value)] = value
    row += len(value)

print(f"{'cell':<10} {'rows':>9} {'shift':>9}")
for cell, shift in table.shift.items():
    print(f"{cell:<10} {table.counts[cell]:>9} {shift:>9.5f}")
print(f"sweeps {table.sweeps} + 1, values within {table.accuracy:.1e} of exact, violation {table.violation:.1e}")

whole = fl.project(
    torch.tensor(scores).double(), rules, sensitive_features={"region": region.astype(np.int64)}, bounds=(0.0, 1.0)
)
print(f"largest difference from the projection in memory: {np.abs(values - whole.value.numpy()).max():.1e}")
