"""Ways to a bounded disparity: which one to take, and whether the one taken bears a load."""

from fairlayer.routes.check import Check, check_run, check_seeds
from fairlayer.routes.recommend import METHODS, Method, Recommendation, Situation, methods_table, recommend

__all__ = [
    "METHODS",
    "Check",
    "Method",
    "Recommendation",
    "Situation",
    "check_run",
    "check_seeds",
    "methods_table",
    "recommend",
]
