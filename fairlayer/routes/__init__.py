"""Ways to the same promise: compared side by side, which one to take, and whether the one taken bears a load."""

from fairlayer._keywords import explain_public
from fairlayer.routes.candidates import Candidate
from fairlayer.routes.check import Check, check_run, check_seeds
from fairlayer.routes.compare import compare_routes
from fairlayer.routes.criterion import Criterion, parse_criterion
from fairlayer.routes.numbers import RouteNumbers
from fairlayer.routes.recommendation import METHODS, Method, Recommendation, Situation, methods_table, recommend
from fairlayer.routes.route import Route, Routes
from fairlayer.routes.training import TrainedRoutes, save_routes, train_routes

__all__ = [
    "METHODS",
    "Candidate",
    "Check",
    "Criterion",
    "Method",
    "Recommendation",
    "Route",
    "RouteNumbers",
    "Routes",
    "Situation",
    "TrainedRoutes",
    "check_run",
    "check_seeds",
    "compare_routes",
    "methods_table",
    "parse_criterion",
    "recommend",
    "save_routes",
    "train_routes",
]


def __dir__() -> list[str]:
    return list(__all__)


explain_public(__name__)
