"""Every public callable answers an old, foreign or misspelt keyword with the name that is meant."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

import fairlayer as fl
from fairlayer import errors
from fairlayer._keywords import FOREIGN, explained, ours_for, refuse_foreign_keywords
from fairlayer.audit import Provenance
from fairlayer.errors import KeywordError
from fairlayer.integrations import sklearn
from fairlayer.integrations import torchmetrics as metrics
from fairlayer.trail import decisions_of

PARITY = fl.DemographicParity("sex", tolerance=0.1)
SEX = {"sex": ["F", "F", "M", "M"]}
SCORES = [0.9, 0.7, 0.2, 0.4]

# Rooms that a reader of the package does not call: arrays in, arrays out.
INTERNAL = ("cli", "edge", "fused", "passes", "projection.reference", "solve")
# Classes whose methods a projection or a stream calls for each batch; their constructors answer.
INNER = {
    *(
        "Batch",
        "GroupMeans",
        "Rows",
        "Spread",
        "CellRule",
        "EncodedFeature",
        "Groups",
        "Vocabulary",
        "Assembly",
        "Plan",
    ),
    *("Entropic", "EntropicSimplex", "Euclidean", "EuclideanSimplex", "Geometry", "Likelihood"),
    *("Anytime", "PerBatch", "Policy", "Present", "Tracking", "InferenceState.emit_simply"),
    *("FairModel.forward", "FairModel.scores"),
}
MODULES = ("calibration", "integrations.huggingface", "integrations.ray")


class Public(NamedTuple):
    """A public callable, and how many arguments come before its own: the object, for a method."""

    name: str
    call: Callable[..., Any]
    before: int

    @property
    def parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.call).parameters.values())[self.before :]

    @property
    def known(self) -> list[str]:
        many = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return [each.name for each in self.parameters if each.kind not in many]

    @property
    def hands_on(self) -> bool:
        return any(each.kind is each.VAR_KEYWORD for each in self.parameters)

    def answer(self, keyword: str) -> str:
        with pytest.raises(TypeError) as caught:
            self.call(*[None] * self.before, **{keyword: None})
        assert isinstance(caught.value, KeywordError), f"{self.name}({keyword}=...): {caught.value}"
        return str(caught.value)


def packages() -> Iterator[str]:
    yield "fairlayer"
    for found in pkgutil.walk_packages(fl.__path__, "fairlayer."):
        short = found.name.removeprefix("fairlayer.")
        inside = any(short == room or short.startswith(f"{room}.") for room in INTERNAL)
        if short in MODULES or (found.ispkg and not inside and short != "integrations"):
            yield found.name


def methods_of(public: type) -> Iterator[tuple[str, Callable[..., Any], int]]:
    for name in dir(public):
        found = inspect.getattr_static(public, name)
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(found, classmethod | staticmethod) and found.__func__.__module__.startswith("fairlayer"):
            yield name, getattr(public, name), 0
        elif inspect.isfunction(found) and found.__module__.startswith("fairlayer"):
            yield name, found, 1


def is_made(public: type) -> bool:
    """Whether a reader can call the class: it is no interface."""
    constructed = inspect.getattr_static(public, "__init__") is not object.__init__ or issubclass(public, tuple)
    return constructed and not inspect.isabstract(public) and not getattr(public, "_is_protocol", False)


def publics() -> list[Public]:
    seen: set[Any] = set()
    found: list[Public] = []
    for package in packages():
        module = importlib.import_module(package)
        for name in module.__all__:
            public = getattr(module, name)
            if inspect.isclass(public) and not issubclass(public, BaseException | Enum):
                if public not in seen and is_made(public):
                    found.append(Public(f"{package}.{name}", public, 0))
                for method, call, before in methods_of(public):
                    if {name, f"{name}.{method}"} & INNER:
                        continue
                    if (call if before else (public, method)) not in seen:
                        found.append(Public(f"{package}.{name}.{method}", call, before))
                        seen.add(call if before else (public, method))
                seen.add(public)
            elif inspect.isfunction(inspect.unwrap(public)) and public not in seen:
                found.append(Public(f"{package}.{name}", public, 0))
                seen.add(public)
    return found


PUBLIC = [each for each in publics() if not each.hands_on]
ROOMS = {each.name.split(".")[1] for each in PUBLIC if each.name.count(".") > 1} | {"fairlayer"}
every = pytest.mark.parametrize("room", sorted(ROOMS))


def publics_of(room: str) -> list[Public]:
    """Those of one room; `fairlayer` is what the package itself shows, without methods."""
    return [each for each in PUBLIC if (each.name.split(".")[1] if each.name.count(".") > 1 else "fairlayer") == room]


# ---- the walk


def test_the_walk_meets_what_is_public() -> None:
    names = {each.name for each in PUBLIC}
    assert len(names) > 600
    assert names >= {
        "fairlayer.project",
        "fairlayer.DemographicParity",
        "fairlayer.FairModel.observe_labels",
        "fairlayer.InferenceState.emit",
        "fairlayer.HSIC.forward",
        "fairlayer.calibration.GroupCalibrator.fit",
        "fairlayer.constraints.Spread",
        "fairlayer.integrations.sklearn.FairRidge",
        "fairlayer.integrations.sklearn.FairRidge.fit",
        "fairlayer.integrations.torchmetrics.ConstraintExcess.update",
        "fairlayer.integrations.torchmetrics.GroupMetricCollection",
        "fairlayer.training.FitOptions",
    }


@every
def test_a_keyword_that_stands_for_one_of_ours(room: str) -> None:
    for public in publics_of(room):
        for theirs in sorted({theirs for ours in public.known for theirs in FOREIGN.get(ours, ())}):
            if theirs not in public.known:
                answer = public.answer(theirs)
                ours = ours_for(theirs, public.known)
                assert f"no argument {theirs!r}; here it is called {ours!r}." in answer, answer


@every
def test_a_misspelt_keyword(room: str) -> None:
    for public in publics_of(room):
        assert f"no argument 'qqqq'. Its arguments are: {', '.join(public.known)}." in public.answer("qqqq")
        for name in public.known:
            misspelt = f"{name[:-2]}{name[-1:]}{name[-2:-1]}"  # the last two letters in the other order
            if len(name) > 4 and misspelt not in public.known:
                assert f"no argument {misspelt!r}; " in public.answer(misspelt)
                if not ours_for(misspelt, public.known):
                    assert "did you mean '" in public.answer(misspelt)


@every
def test_it_stays_what_it_was(room: str) -> None:
    """Its name, its module and its signature are those of its source, and pickle finds it under its name."""
    for public in publics_of(room):
        owner: Any = importlib.import_module(public.call.__module__)
        for part in public.call.__qualname__.split("."):
            owner = getattr(owner, part)
        assert owner == public.call
        assert not {"args", "kwargs"} & set(public.known)
        if not public.before and not inspect.ismethod(public.call):
            assert pickle.loads(pickle.dumps(public.call)) is public.call


# ---- those that hand keywords on


class Backbone(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0]


X = torch.tensor(SCORES, dtype=torch.float64)[:, None]
ROWS, LABELS = np.array(SCORES)[:, None], np.array([1, 1, 0, 0])
MODEL = fl.FairModel(Backbone(), [PARITY])
RULE = fl.DecisionRule.fit([*SCORES] * 50, PARITY, sensitive_features={"sex": SEX["sex"] * 50})
CLASSIFIER = sklearn.FairClassifier(LogisticRegression(), [PARITY]).fit(ROWS, LABELS)
REGRESSOR = sklearn.FairRegressor(Ridge(), [PARITY])
POSTPROCESSOR = sklearn.FairPostprocessor(LogisticRegression(), [PARITY])


@pytest.mark.parametrize(
    ("call", "ours"),
    [
        (lambda **given: fl.DecisionStream(RULE, [PARITY], **given), {"memory": "half_life"}),
        (lambda **given: fl.FairModel(Backbone(), [PARITY], **given), {"bounds": "clip", "tolerance": "eps"}),
        (lambda **given: MODEL(X, **given), {"y": "labels", "sensitive_features": "protected"}),
        (lambda **given: fl.FairProjection([PARITY], **given), {"bounds": "clip"}),
        (lambda **given: fl.fairness_path(SCORES, [PARITY], [0.1], **given), {"y": "labels", "bounds": "clip"}),
        (lambda **given: fl.project(X[:, 0], [PARITY], **given), {"y": "labels", "bounds": "clip"}),
        (lambda **given: fl.project_many(X.T, [PARITY], **given), {"y": "labels", "bounds": "clip"}),
        (lambda **given: fl.decide(SCORES, PARITY, **given), {"y": "labels", "sensitive_features": "protected"}),
        (lambda **given: metrics.ScoreGap(2, **given), {}),
        (lambda **given: metrics.EqualizedOddsRatio(2, **given), {}),
        (lambda **given: metrics.ConstraintExcess(PARITY, **given), {"constraints": None}),
        (lambda **given: CLASSIFIER.fit(ROWS, LABELS, **given), {"sensitive_features": "protected"}),
        (lambda **given: CLASSIFIER.decide(ROWS, sensitive_features=SEX, **given), {"y": "labels"}),
        (lambda **given: REGRESSOR.fit(ROWS, LABELS, **given), {"sample_weight": "weights"}),
        (lambda **given: POSTPROCESSOR.fit(ROWS, LABELS, **given), {"sample_weight": "weights"}),
        (Provenance.now, {}),
        (lambda **given: Provenance.of_file(__file__, **given), {}),
        (lambda **given: decisions_of([0.5], time=0.0, cells={"sex": ["F"]}, **given), {}),
        (lambda **given: MODEL.without_layer()(X, **given), {}),
    ],
)  # fmt: skip
def test_what_hands_keywords_on(call: Callable[..., Any], ours: dict[str, str | None]) -> None:
    """Where the others are right: what it hands them to answers, or it answers for a library outside."""
    for name, theirs in ours.items():
        if theirs is not None:
            with pytest.raises(KeywordError, match=f"no argument '{theirs}'; here it is called '{name}'"):
                call(**{theirs: None})
    with pytest.raises(TypeError, match="'qqqq'"):
        call(qqqq=None)


def test_options_of_torchmetrics() -> None:
    assert metrics.ScoreGap(2, compute_on_cpu=True).compute_on_cpu is True
    with pytest.raises(KeywordError, match="ScoreGap has no argument 'compute_on_cpus'; did you mean 'compute_on_cpu'"):
        metrics.ScoreGap(2, compute_on_cpus=True)
    with pytest.raises(KeywordError, match=r"'treshold'; did you mean 'threshold'\? Its arguments are: constraint, "):
        metrics.ConstraintExcess(PARITY, treshold=0.4)
    with pytest.raises(ValueError, match="Expected keyword argument `compute_on_cpu` to be an `bool`"):
        metrics.ScoreGap(2, compute_on_cpu=3)


# ---- by hand


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fl.DemographicParity("sex", eps=0.1), "DemographicParity has no argument 'eps'.*called 'tolerance'"),
        (
            lambda: fl.EqualizedOdds("sex", fairness_tolerance=0.1),
            "'fairness_tolerance'; here it is called 'tolerance'",
        ),
        (lambda: fl.DemographicParity("sex", slack=0.1), "'slack'; here it is called 'tolerance'"),
        (lambda: fl.DemographicParity("sex", epsilon=0.1), "'epsilon'; here it is called 'tolerance'"),
        (lambda: fl.DemographicParity("sex", tolerence=0.1), "'tolerence'; did you mean 'tolerance'"),
        (lambda: fl.DemographicParity(feature="sex", tolerance=0.1), "'feature'; here it is called 'on'"),
        (lambda: fl.DemographicParity("sex", zzz=0.1), r"no argument 'zzz'\. Its arguments are: on, tolerance"),
        (lambda: fl.decide(SCORES, PARITY, groups=SEX), "decide has no argument 'groups'.*'sensitive_features'"),
        (lambda: fl.decide(SCORES, PARITY, sensitive_features=SEX, labels=[1] * 4), "'labels'; here it is called 'y'"),
        (lambda: fl.decide(SCORES, PARITY, A=SEX), "'A'; here it is called 'sensitive_features'"),
        (lambda: fl.Penalty(PARITY)(torch.tensor(SCORES), protected=SEX), "'protected'; here .* 'sensitive_features'"),
        (lambda: fl.Penalty(PARITY, nrom="abs"), "Penalty has no argument 'nrom'; did you mean 'norm'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), [PARITY], bound=(0, 1)), "FairModel has no argument 'bound'.*'bounds'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), [PARITY], prediction_bounds=(0, 1)), "'prediction_bounds'.*'bounds'"),
        (lambda: fl.FairModel(custom_network=nn.Linear(2, 1)), "'custom_network'; here it is called 'backbone'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), fairness_metric="x"), "'fairness_metric'; here .* 'constraints'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), epsilon=1.0), "'epsilon'; here it is called 'tolerance'"),
        (lambda: fl.FairModel(nn.Linear(2, 1), [PARITY])(torch.rand(4, 2), labels=[1] * 4), "'labels'; .*called 'y'"),
        (lambda: fl.DecisionRule.fit(SCORES, PARITY, sensitive=SEX), "'sensitive'; here .* 'sensitive_features'"),
    ],
)
def test_a_foreign_keyword_is_answered_with_ours(call: Any, said: str) -> None:
    with pytest.raises(KeywordError, match=said) as caught:
        call()
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, errors.ParameterError)


def test_signatures_stay_as_they_were_written() -> None:
    assert list(inspect.signature(fl.DemographicParity).parameters) == ["on", "tolerance", "classes"]
    assert "sensitive_features" in inspect.signature(fl.decide).parameters
    assert "protected_attr_idx" in inspect.signature(fl.FairModel).parameters


def test_an_error_inside_is_left_alone() -> None:
    @explained
    def broken(left: Any, *, right: Any) -> Any:
        return left + right

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        broken(1, right="a")
    assert not isinstance(caught.value, KeywordError)
    with pytest.raises(TypeError, match="missing 1 required") as caught:
        broken(1)
    assert not isinstance(caught.value, KeywordError)


def test_a_constraint_of_ones_own_answers_too() -> None:
    class Mine(fl.DemographicParity):
        def __init__(self, on: str, width: float) -> None:
            super().__init__(on, tolerance=width)

    assert Mine("sex", width=0.1).tolerance == 0.1
    with pytest.raises(KeywordError, match="did you mean 'width'"):
        Mine("sex", widht=0.1)


def test_a_backbone_takes_its_own_keywords() -> None:
    class Takes(nn.Module):
        def forward(self, x: torch.Tensor, labels: Any = None) -> torch.Tensor:
            return x[:, 0] * (1.0 if labels is None else 2.0)

    model = fl.FairModel(Takes(), [PARITY])
    x = torch.tensor(SCORES)[:, None]
    once, twice = (model(x, sensitive_features=SEX, **given) for given in ({}, {"labels": [1]}))
    assert not torch.equal(once, twice)


def test_known_names_pass() -> None:
    refuse_foreign_keywords("here", ["y"], ("x", "y"))


def test_values_are_copied_and_pickled() -> None:
    found = fl.project(torch.tensor(SCORES), [PARITY], sensitive_features=SEX)
    for value in (PARITY, fl.Present(), found.certificate, fl.decide(SCORES, PARITY, sensitive_features=SEX)):
        for twin in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert type(twin) is type(value)
            assert repr(twin) == repr(value)


# ---- what goes by keyword, given by position


def notes_of(call: Callable[[], Any], said: str = "takes . positional arguments but .") -> str:
    with pytest.raises(TypeError, match=said) as caught:
        call()
    return " ".join(getattr(caught.value, "__notes__", ()))


@pytest.mark.parametrize(
    "call",
    [
        lambda: fl.project(torch.tensor(SCORES), PARITY, SEX),  # type: ignore[misc]
        lambda: fl.decide(torch.tensor(SCORES), PARITY, SEX),  # type: ignore[misc]
        lambda: fl.FairProjection(PARITY)(torch.tensor(SCORES), SEX),  # type: ignore[misc]
        lambda: fl.Penalty(PARITY)(torch.tensor(SCORES), SEX),  # type: ignore[misc]
    ],
)
def test_too_many_positions_say_what_goes_by_keyword(call: Callable[[], Any]) -> None:
    assert "These arguments go by keyword: sensitive_features=" in notes_of(call)


def test_a_model_says_what_its_backbone_was_handed() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, mask: Any = None) -> torch.Tensor:
            return x[:, 0] * mask.float()

    x, sex = torch.rand(4, 3), torch.tensor([0, 0, 1, 1])
    model = fl.FairModel(nn.Sequential(nn.Linear(3, 1)), [PARITY, fl.MinimumRate("race", 0.1)])
    hint = "here 2 arguments. Sensitive features and labels go by keyword: model(x, sensitive_features={'sex': ..., "
    assert hint in notes_of(lambda: model(x, {"sex": sex}))
    assert hint in notes_of(lambda: model(x, sex))
    masked = fl.FairModel(Masked(), [PARITY])
    with pytest.raises(AttributeError, match="'dict' object has no attribute 'float'") as caught:
        masked(x, {"sex": sex})
    assert "go by keyword" in caught.value.__notes__[0]
    assert masked(x, torch.ones(4), sensitive_features={"sex": sex}).shape == (4,)


def test_errors_of_a_backbone_stay_its_own() -> None:
    model = fl.FairModel(nn.Sequential(nn.Linear(3, 1)), [PARITY])
    assert not notes_of(lambda: model(None, sensitive_features=SEX), "must be Tensor, not NoneType")
    assert not notes_of(lambda: model(torch.rand(4, 3), 1, sensitive_features=SEX))
    assert not notes_of(lambda: model(None), "must be Tensor, not NoneType")


def test_the_call_of_a_model_answers_though_it_is_not_wrapped() -> None:
    model = fl.FairModel(torch.nn.Linear(3, 1), [fl.DemographicParity("sex", tolerance=0.1)])
    with pytest.raises(KeywordError, match="no argument 'groups'; here it is called 'sensitive_features'"):
        model(torch.ones(4, 3), groups={"sex": [0, 1, 0, 1]})
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        model(torch.ones(4, 3), sensitive_features={"sex": [0, 1, 0, 1]}, depth=3)
