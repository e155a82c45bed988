"""What the sweeps of these tests train: small functions that other processes can import."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch


def line(value: float, seed: int) -> dict[str, float]:
    """Accuracy rises with the value, the gap faster."""
    return {"val_auc": 0.8 + value + 0.001 * seed, "val_gap": value**0.5, "test_auc": 0.7 + value}


def threads(value: float, seed: int) -> dict[str, float]:
    return {"threads": torch.get_num_threads(), "process": os.getpid()}


def sometimes_failing(value: float, seed: int, flag: str) -> dict[str, float]:
    if value == 1 and seed == 1 and not Path(flag).exists():
        raise ZeroDivisionError("no such tolerance")
    return line(value, seed)


def dying(value: float, seed: int) -> dict[str, float]:
    os._exit(1)


def infinite(value: float, seed: int) -> dict[str, float]:
    return {"auc": float("nan")}


def marked(value: float, seed: int, folder: str) -> dict[str, float]:
    """Leave a trace of the start, take a while, and leave one of the end."""
    with (Path(folder) / f"{value}-{seed}-{os.getpid()}.start").open("x", encoding="utf-8"):
        time.sleep(0.25)
    return line(value, seed)
