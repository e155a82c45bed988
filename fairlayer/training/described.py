"""What the route of a run does, in sentences for a reader."""

from __future__ import annotations

from typing import Any

from fairlayer.training.kept import THROUGH
from fairlayer.training.run import Run, finite

__all__ = ["describe_route"]

_STEPS = {
    "projected": "Each batch of scores is moved to the nearest ones that keep the limits. That needs the group of "
    "every person. Decisions are taken at a score of 0.5, and are not bounded.",
    "decision rule": "The scores stay as they are, and their gap is not bounded. Decisions are taken by thresholds per "
    "group, which were fitted to {fitted}. On other people their gap differs by chance. That needs the group of every "
    "person.",
    "batch decisions": "The scores stay as they are, and their gap is not bounded. Decisions are taken on each batch "
    "as a whole, by thresholds per group that keep the limits in it. That needs the group of every person. One person "
    "at a time is decided by thresholds that were fitted to {fitted} (`predict --decisions rule`).",
    "as it is": "The scores are emitted as they are, and decisions are taken at a score of 0.5. Nothing holds a gap, "
    "and no group is needed.",
}


_SCORED_BY = {
    "network": "the network trained without constraints",
    "trees": "boosted trees",
    "both": "the network trained without constraints, with a weight of {share:.0%}, and boosted trees, of which the "
    "mean counts",
}


def describe_route(run: Run, chosen_by: str | None = None) -> dict[str, Any]:
    """Return what a route does, in sentences, and the thresholds of its rule, for the document."""
    route = run.route
    scores = _SCORED_BY[route.scored_by].format(share=route.share)
    if route.name == THROUGH.name:
        scores = "the network trained through its layer"
    done = _STEPS[route.step].format(fitted=route.fitted)
    sentences = [f"The run keeps the route '{route.name}': its scores are those of {scores}.", done]
    if chosen_by is not None:
        sentences.append(chosen_by)
    cells = route.rule.cells if route.step == "decision rule" and route.rule is not None else ()
    return {
        "name": route.name,
        "step": route.step,
        "sentences": sentences,
        "thresholds": [
            {
                "group": ", ".join(
                    f"{name} {'not known' if value is None else value}"
                    for name, value in zip(route.rule.features if route.rule else (), cell.categories, strict=True)
                ),
                "thresholds": [finite(float(each)) for each in cell.thresholds],
                "shares": [float(each) for each in cell.weights],
                "fitted_on": cell.count,
            }
            for cell in cells
        ],
    }
