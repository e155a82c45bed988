"""Ways to the same promise, side by side: plain, projected, trained through, decided by a rule; networks and trees."""

from fairlayer.routes.candidates import Candidate
from fairlayer.routes.compare import Route, Routes, compare_routes
from fairlayer.routes.criterion import Criterion, parse_criterion
from fairlayer.routes.numbers import RouteNumbers
from fairlayer.routes.training import TrainedRoutes, save_routes, train_routes

__all__ = [
    "Candidate",
    "Criterion",
    "Route",
    "RouteNumbers",
    "Routes",
    "TrainedRoutes",
    "compare_routes",
    "parse_criterion",
    "save_routes",
    "train_routes",
]
