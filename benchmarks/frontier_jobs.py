"""What is trained for the frontier, once for each setting and seed, and how each result is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from frontier_data import Splits
from frontier_numbers import Point
from frontier_readings import Reading, Scored
from frontier_training import Loss, Protocol, logits_of, train
from scipy.special import expit
from torch import nn


@dataclass(frozen=True)
class Outcome:
    """The points of one training, and the CPU seconds of its steps, where it is the network's."""

    points: list[Point]
    seconds: float | None = None


Run = Callable[[Splits, int, Protocol], Outcome]


@dataclass(frozen=True)
class Job:
    """One training with one setting, of which every seed is a run (the first few, where it takes long)."""

    name: str
    setting: str
    run: Run
    most_seeds: int | None = None

    @property
    def title(self) -> str:
        """Name and setting."""
        return f"{self.name}, {self.setting}" if self.setting else self.name


def network_job(name: str, setting: str, make_loss: Callable[[Splits], Loss], readings: tuple[Reading, ...]) -> Job:
    """Return a job that trains the network with a loss, and reads its scores."""

    def run(splits: Splits, seed: int, protocol: Protocol) -> Outcome:
        network, seconds = train(splits.train, make_loss(splits), seed, protocol)
        return Outcome(list(read_all(splits, network, readings)), seconds)

    return Job(name, setting, run)


def read_all(splits: Splits, network: nn.Module, readings: tuple[Reading, ...]) -> Iterator[Point]:
    """Yield the points of every reading of one network."""
    scored = Scored(splits, *(expit(logits_of(network, part)) for part in (splits.valid, splits.test)))
    for reading in readings:
        yield from reading(scored)
