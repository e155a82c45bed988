"""Every entrance takes every geometry, and what comes out keeps the limit; or it refuses it and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fairlayer as fl
from fairlayer.distillation import AmortisedShifts, remaining_gap
from fairlayer.errors import FairlayerError
from fairlayer.scoring import project_chunks

N, TOLERANCE = 80, 0.02
RANDOM = np.random.default_rng(0)
SEX = np.arange(N) % 2
GROUPS = {"sex": SEX}
RULE = fl.DemographicParity("sex", TOLERANCE)
CHANCES = np.clip(0.2 + 0.5 * RANDOM.random(N) + 0.2 * SEX, 0.01, 0.99)
ROWS = RANDOM.dirichlet([1.0, 1.0, 1.0], N)
ROWS[SEX == 1] = 0.5 * ROWS[SEX == 1] + 0.5 * np.array([0.7, 0.2, 0.1])


class Place(NamedTuple):
    """A geometry, on a box or on the simplex, from probabilities or from logits."""

    geometry: str
    simplex: bool
    logits: bool

    @property
    def options(self) -> dict[str, Any]:
        """How an entrance is told of it."""
        return {
            "geometry": self.geometry,
            "bounds": "simplex" if self.simplex else (0.0, 1.0),
            "from_logits": self.logits,
        }

    @property
    def scores(self) -> Tensor:
        """(n,), or (n, 3) on the simplex."""
        chances = ROWS if self.simplex else CHANCES
        if not self.logits:
            return torch.tensor(chances)
        return torch.tensor(np.log(ROWS) if self.simplex else np.log(CHANCES / (1 - CHANCES)))

    @property
    def inputs(self) -> Tensor:
        """What a backbone without layers passes on as the scores."""
        return self.scores if self.simplex else self.scores[:, None]

    def backbone(self) -> nn.Module:
        """It hands on its input as scores."""
        return nn.Identity() if self.simplex else nn.Flatten(0)

    def model(self) -> fl.FairModel:
        """A model whose scores are its inputs."""
        return fl.FairModel(self.backbone(), [RULE], **self.options)

    @property
    def batch(self) -> dict[str, Any]:
        """One batch of a loader."""
        return {"x": self.inputs, "sensitive_features": GROUPS}


KNOWN = [
    Place("euclidean", simplex=False, logits=False),
    Place("entropic", simplex=False, logits=False),
    Place("entropic", simplex=False, logits=True),
    Place("likelihood", simplex=False, logits=False),
    Place("likelihood", simplex=False, logits=True),
    Place("euclidean", simplex=True, logits=False),
    Place("entropic", simplex=True, logits=False),
    Place("entropic", simplex=True, logits=True),
]
NOWHERE = {
    Place("euclidean", simplex=False, logits=True): r"Use geometry='entropic' \(or 'likelihood'\), or pass prob",
    Place("euclidean", simplex=True, logits=True): "Use geometry='entropic', or pass probabilities",
    Place("likelihood", simplex=True, logits=False): "one of 'euclidean', 'entropic' with bounds=\"simplex\"",
    Place("likelihood", simplex=True, logits=True): "one of 'euclidean', 'entropic' with bounds=\"simplex\"",
}
known = pytest.mark.parametrize("place", KNOWN, ids=str)


def gap(values: Any) -> float:
    """The largest difference of the groups' means, over the columns."""
    table = np.asarray(values.detach() if isinstance(values, Tensor) else values, dtype=float).reshape(N, -1)
    return float(np.abs(table[SEX == 0].mean(axis=0) - table[SEX == 1].mean(axis=0)).max())


def stream(policy: str) -> Callable[[Place], Any]:
    """One batch through a stream of a policy."""
    return lambda place: fl.InferenceState([RULE], policy=policy, **place.options).emit(place.scores, GROUPS)


def chunks(place: Place) -> Any:
    """Said as `project` is told, geometry and all, where it is not the default."""
    more = {} if place.geometry == "euclidean" else {"geometry": place.geometry}
    source = lambda: iter([(place.scores.numpy(), GROUPS)])  # noqa: E731
    table = project_chunks(source, [RULE], bounds=place.options["bounds"], **more)  # type: ignore[arg-type]
    return np.concatenate(list(table.values()))


def shifts(place: Place) -> Any:
    """The same of shifts fitted to scores alone."""
    more = {} if place.geometry == "euclidean" else {"geometry": place.geometry}
    found = AmortisedShifts.fit(  # type: ignore[misc]
        place.scores, [RULE], sensitive_features=GROUPS, bounds=place.options["bounds"], **more
    )
    return found(place.scores, found.encode(GROUPS))


def path(place: Place) -> Any:
    """The gap at one limit of a path."""
    return fl.fairness_path(place.scores, [RULE], [TOLERANCE], sensitive_features=GROUPS, **place.options)


def _amortised(model: Any, place: Place) -> Any:
    return model(place.inputs, cells=model.encode(GROUPS))


ENTRANCES: dict[str, Callable[[Place], Any]] = {
    "project": lambda p: fl.project(p.scores, [RULE], sensitive_features=GROUPS, **p.options).value,
    "layer": lambda p: fl.FairProjection([RULE], **p.options)(p.scores, sensitive_features=GROUPS),
    "compiled": lambda p: torch.compile(fl.FairProjection([RULE], **p.options), backend="eager")(
        p.scores, sensitive_features={"sex": torch.tensor(SEX)}
    ),
    "model in training": lambda p: p.model().train()(p.inputs, sensitive_features=GROUPS),
    "model": lambda p: p.model().eval()(p.inputs, sensitive_features=GROUPS),
    "many": lambda p: fl.project_many(p.scores[None], [RULE], sensitive_features={"sex": SEX[None]}, **p.options).value[
        0
    ],
    "reference": lambda p: (
        fl.project(p.scores, [RULE], sensitive_features=GROUPS, backend="cvxpylayers", **p.options).value
    ),
    "amortised": lambda p: _amortised(p.model().amortised([p.batch]), p),
    "chunks": chunks,
    "fixed shifts": shifts,
    "anytime": stream("anytime"),
}
# What an entrance answers to a place that it does not serve; None: it serves all of them.
REFUSES: dict[str, Callable[[Place], str | None]] = {
    "many": lambda p: "project the rows one by one for bounds='simplex'" if p.simplex else None,
    "reference": lambda p: None if p[:2] == ("euclidean", False) else 'Use backend="exact"',
    "amortised": lambda p: None if p[:2] == ("euclidean", False) else "Use geometry='euclidean' and bounds=",
    "chunks": lambda p: _euclidean_box(p, "other geometries are for project, FairProjection and FairModel"),
    "fixed shifts": lambda p: _euclidean_box(p, "geometr"),
    "anytime": lambda p: _euclidean_box(p, "Use policy='present'"),
}


def _euclidean_box(place: Place, words: str) -> str | None:
    if place.geometry != "euclidean":
        return f"{words}|rows of class probabilities are for project"
    return "rows of class probabilities are for project" if place.simplex else None


@known
@pytest.mark.parametrize("name", ENTRANCES)
def test_it_keeps_the_limit_or_is_refused(name: str, place: Place) -> None:
    if name == "reference":
        pytest.importorskip("cvxpylayers")
    words = REFUSES.get(name, lambda _: None)(place)
    if words is not None:
        with pytest.raises(FairlayerError, match=words):
            ENTRANCES[name](place)
        return
    value = ENTRANCES[name](place)
    assert gap(value) == pytest.approx(TOLERANCE, abs=1e-5)  # it was wider, and no more than needed was done
    if place.simplex:
        np.testing.assert_allclose(np.asarray(value.detach()).sum(axis=1), 1.0, atol=1e-9)


@pytest.mark.parametrize("place", NOWHERE, ids=str)
@pytest.mark.parametrize("name", [name for name in ENTRANCES if name not in {"chunks", "fixed shifts"}])
def test_what_no_geometry_is(name: str, place: Place) -> None:
    """The two entrances left out have no argument for it."""
    words = NOWHERE[place] + "|rows of class probabilities are for project"
    with pytest.raises(FairlayerError, match=words):
        ENTRANCES[name](place)


@known
def test_paths(place: Place) -> None:
    if place.simplex:
        with pytest.raises(FairlayerError, match="Call project at each limit"):
            path(place)
        return
    assert path(place).gaps[0, 0] == pytest.approx(TOLERANCE, abs=1e-7)


@known
@pytest.mark.parametrize("policy", ["present", "tracking", "per_batch"])
def test_streams(policy: str, place: Place) -> None:
    """A long stream: whatever each batch shows, the gap of all that was emitted comes down to the limit."""
    words = None if policy == "present" and not place.simplex else _euclidean_box(place, "Use policy='present'")
    if words is not None:
        with pytest.raises(FairlayerError, match=words):
            stream(policy)(place)
        return
    state = fl.InferenceState([RULE], policy=policy, **place.options)
    for _ in range(40):
        state.emit(place.scores, GROUPS)
    found = state.measured()[RULE.name]
    assert found is not None
    assert found.value is not None
    assert found.value < 0.5 * gap(CHANCES)
    assert found.limit == TOLERANCE
    if policy == "present":
        assert found.value <= 1.25 * TOLERANCE  # the room of its first rows is not yet all made up for


@known
def test_a_stream_of_a_model(place: Place) -> None:
    model = place.model().eval()
    if place.simplex:
        with pytest.raises(FairlayerError, match="or call the model"):
            model(place.inputs, sensitive_features=GROUPS, inference=True)
        return
    same = fl.InferenceState([RULE], **place.options).emit(place.scores, GROUPS)
    found = model(place.inputs, sensitive_features=GROUPS, inference=True)
    torch.testing.assert_close(found, same)


@known
def test_a_model_without_its_layer_gives_the_raw_probabilities(place: Place) -> None:
    plain = place.model().without_layer()
    value = plain(place.inputs).detach().numpy()
    np.testing.assert_allclose(value, ROWS if place.simplex else CHANCES, atol=1e-12)
    [found] = remaining_gap(plain, [place.batch], [RULE])
    assert found.scores == pytest.approx(gap(ROWS if place.simplex else CHANCES), abs=1e-12)
    assert found.measured.limit == TOLERANCE
