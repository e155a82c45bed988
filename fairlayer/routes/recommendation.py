"""Which method fits a situation, with the reason and with what it does not give.

The same table is the page that helps to choose. Each method says for which situations it is meant; the first one that
is meant for a situation is recommended, and the others that fit are named with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fairlayer.errors import ParameterError

__all__ = ["DEFINITIONS", "METHODS", "MODELS", "Method", "Recommendation", "Situation", "methods_table", "recommend"]

Model: TypeAlias = Literal["network", "linear", "trees", "any"]
MODELS: tuple[Model, ...] = ("network", "linear", "trees", "any")
DEFINITIONS = (
    "demographic_parity",
    "equal_opportunity",
    "predictive_equality",
    "equalized_odds",
    "mean_residual_parity",
    "calibration",
    "individual",
)
PROMISES = ("scores", "decisions")

_FEW = 30  # people in the smallest group, below which a bound on it is mostly noise
_SOME = 200


@dataclass(frozen=True)
class Situation:
    """What is known when a method is chosen.

    Args:
        model: "network" (PyTorch), "linear", "trees", or "any" (only its scores are at hand).
        definition: what should be equal between groups, see `DEFINITIONS`.
        promise: whether the promise is made about "scores" or about "decisions".
        group_at_inference: whether the group of a person is known, and may be used, when a score is made.
        group_is_input: whether it is a feature of the model too.
        hard: whether a bound must hold in every batch, and not only roughly and on average.
        stream: whether people come one by one.
        smallest_group: people of the smallest group in the data; None where not known.

    Raises:
        ParameterError: a choice is unknown.

    Example:
        >>> Situation(model="trees", promise="decisions", smallest_group=400).promise
        'decisions'
    """

    model: Model = "any"
    definition: str = "demographic_parity"
    promise: str = "scores"
    group_at_inference: bool = True
    group_is_input: bool = False
    hard: bool = True
    stream: bool = False
    smallest_group: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("model", self.model, MODELS),
            ("definition", self.definition, DEFINITIONS),
            ("promise", self.promise, PROMISES),
        ):
            if value not in known:
                raise ParameterError(f"{name} is one of {', '.join(known)}, not {value!r}.")


@dataclass(frozen=True)
class Method:
    """One way to predictions that keep a limit, with the situations that it is meant for.

    Args:
        name: what it is called.
        how: the function, the class or the command.
        when: for which situations it is meant, in words.
        fits: the same as a function.
        reason: why it is the one to take there.
        not_given: what it does not give.

    Example:
        >>> found = recommend(Situation(model="network")).method
        >>> found.fits(Situation(model="network")), found.fits(Situation(model="trees"))
        (True, False)
    """

    name: str
    how: str
    when: str
    fits: Callable[[Situation], bool]
    reason: str
    not_given: str


@dataclass(frozen=True)
class Recommendation:
    """The method to take, others that fit, and what to mind.

    Args:
        method: the method.
        others: further methods that fit the situation, in the order of the table.
        warnings: what the situation itself does not allow.

    Example:
        >>> found = recommend(Situation(model="trees", smallest_group=12))
        >>> len(found.others) > 0, len(found.warnings)
        (False, 2)
    """

    method: Method
    others: tuple[Method, ...]
    warnings: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [
            f"Take: {self.method.name} ({self.method.how}).",
            f"Why: {self.method.reason}",
            f"It does not give: {self.method.not_given}",
        ]
        lines += [f"It would fit too: {other.name} ({other.how}). {other.reason}" for other in self.others]
        return "\n".join([*lines, *(f"Mind: {warning}" for warning in self.warnings)])


def _of_groups(s: Situation) -> bool:
    return s.definition not in ("individual", "calibration")


METHODS: tuple[Method, ...] = (
    Method(
        "a bound on pairs of alike people",
        "fairlayer.LipschitzFairness with fairlayer.project; fairlayer.audit.consistency and "
        "lipschitz_violations measure it",
        "alike people are to be treated alike",
        lambda s: s.definition == "individual",
        "The scores of two near neighbours differ by no more than a constant times their distance, with or without a "
        "limit on groups. Which distance is right is a question for people.",
        "a bound on far pairs, on people of other batches, or on decisions. Group methods alone may move two alike "
        "people of different groups apart.",
    ),
    Method(
        "calibration within each group",
        "scikit-learn's CalibratedClassifierCV per group, then `fairlayer audit`",
        "a score should mean the same in every group",
        lambda s: s.definition == "calibration",
        "Calibration within groups is had by calibrating in each of them. Where base rates differ, it excludes equal "
        "error rates, and the audit shows by how much.",
        "equal error rates, or equal shares of positive decisions.",
    ),
    Method(
        "decisions on the batch",
        "fairlayer.decide",
        "the promise is about decisions, the group is known, and people come in batches",
        lambda s: _of_groups(s) and s.promise == "decisions" and s.group_at_inference and s.hard and not s.stream,
        "People live with decisions. This one bounds the decisions of the batch at hand exactly, with a lottery where "
        "it has to, for the scores of any model.",
        "a bound on other batches, and scores that are bounded.",
    ),
    Method(
        "a decision rule",
        "fairlayer.DecisionRule, or Fairlearn's ThresholdOptimizer",
        "the promise is about decisions, the group is known, and people come one by one",
        lambda s: _of_groups(s) and s.promise == "decisions" and s.group_at_inference,
        "Thresholds per group, fitted once, decide one person at a time for any model.",
        "a hard bound: on new people the gap is the one that thresholds fitted on so many people leave.",
    ),
    Method(
        "a stream",
        "fairlayer.InferenceState, `fairlayer stream`, `fairlayer serve`",
        "scores of people who come one by one, and the group is known",
        lambda s: _of_groups(s) and s.stream and s.group_at_inference,
        "One person has no gap. The stream keeps the gap of recent people within the tolerance and a stated noise.",
        "a bound on decisions, or on every window of people.",
    ),
    Method(
        "projection of the scores",
        "fairlayer.project",
        "the group is known, and the model is not trained by you, is not a network, or reads the group already",
        lambda s: (
            _of_groups(s)
            and s.promise == "scores"
            and s.group_at_inference
            and (s.model in ("trees", "any") or (s.model == "network" and s.group_is_input))
        ),
        "The nearest scores that keep the limit, for any model, with a certificate. Where the model reads the group, "
        "training through the layer has nothing to win over it.",
        "a bound on decisions; labels that are not known are estimated, and the bound is then one on estimates.",
    ),
    Method(
        "a convex model",
        "fairlayer.integrations.sklearn.FairLogisticRegression, FairRidge",
        "a linear model that is trained by you",
        lambda s: _of_groups(s) and s.promise == "scores" and s.model == "linear",
        "The limits are part of a convex program that is solved to optimality, with the price of each limit.",
        "a bound on people who were not in the training table.",
    ),
    Method(
        "training through the layer",
        "fairlayer.FairModel with geometry='entropic', `fairlayer train`",
        "a network that you train, the group is known and is not an input",
        lambda s: _of_groups(s) and s.promise == "scores" and s.model == "network" and s.group_at_inference,
        "Features that carry the group are used better when the network is trained with the projection behind it; "
        "every batch keeps its limit, with a certificate.",
        "a bound on decisions, or on batches smaller than b_tau, which are streamed.",
    ),
    Method(
        "a penalty, or a model without its layer",
        "fairlayer.Penalty, AugmentedLagrangian, FairModel.without_layer(), FairModel.amortised()",
        "a network that you train, and the group is not known when a score is made",
        lambda s: _of_groups(s) and s.model == "network" and not s.group_at_inference,
        "The group is needed in training only, so that nobody is treated by group later on.",
        "a hard bound: the gap on new people is measured, and not bounded.",
    ),
    Method(
        "reductions",
        "Fairlearn's ExponentiatedGradient",
        "trees, or any model that takes sample weights, and the group is not known when a score is made",
        lambda s: _of_groups(s) and not s.group_at_inference,
        "It reweights the training rows of a model as it is, and needs the group in training only.",
        "a hard bound, and scores (its answers are decisions of a mixture of models).",
    ),
)


def recommend(situation: Situation) -> Recommendation:
    """Return the method for a situation.

    Raises:
        ParameterError: a choice in the situation is unknown.

    Example:
        >>> recommend(Situation(model="trees", group_at_inference=False)).method.name
        'reductions'
        >>> print(recommend(Situation(model="network")).method.how)
        fairlayer.FairModel with geometry='entropic', `fairlayer train`
    """
    fitting = [method for method in METHODS if method.fits(situation)]
    return Recommendation(fitting[0], tuple(fitting[1:]), _warnings(situation))


def methods_table() -> str:
    """Return the table of methods in Markdown, as the page that helps to choose has it.

    Example:
        >>> methods_table().splitlines()[0]
        '| situation | method | how | why | what it does not give |'
    """
    lines = ["| situation | method | how | why | what it does not give |", "|---|---|---|---|---|"]
    lines += [f"| {m.when} | {m.name} | {_code(m.how)} | {m.reason} | {m.not_given} |" for m in METHODS]
    return "\n".join(lines) + "\n"


def _code(how: str) -> str:
    return how.replace("|", "\\|")


def _warnings(s: Situation) -> tuple[str, ...]:
    found = []
    if s.smallest_group is not None and s.smallest_group < _FEW:
        found.append(
            f"The smallest group has {s.smallest_group} people. What is bounded for so few is mostly chance: name the "
            "group, and leave it out of limits, or gather more."
        )
    elif s.smallest_group is not None and s.smallest_group < _SOME:
        found.append(
            f"The smallest group has {s.smallest_group} people: a gap of less than about 10 points cannot be told from "
            "chance on so few."
        )
    if s.hard and not s.group_at_inference and _of_groups(s):
        found.append("A bound that must hold needs the group when the score is made; without it, none is hard.")
    if s.definition in ("equal_opportunity", "predictive_equality", "equalized_odds", "mean_residual_parity"):
        found.append(
            "Labels are not known when scores are made, so that this bound holds on estimates of them; decisions on "
            "past people show what it was worth."
        )
    if s.group_at_inference and _of_groups(s):
        found.append("People of different groups are treated by their group: see the page on law and use.")
    return tuple(found)
