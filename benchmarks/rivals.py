"""One adapter per library: `prepare(problem)` once, then `run(batch) -> (value, gradient)` is what is timed.

Each library is called the way its users call it, with the choices that favour it: programs are built once
where the library allows it (then for fixed groups, though groups change from batch to batch), rows are well
scaled, and of several formulations the fastest was taken.
"""

from __future__ import annotations

import importlib.util
import warnings
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import torch
from problems import TOLERANCE, Batch, Problem
from torch import Tensor, nn

Answer = tuple[Tensor, Tensor | None]


class Rival(Protocol):
    """A library under test."""

    name: str
    package: str  # what pip installs
    modules: tuple[str, ...]  # what must import
    fixed_groups: bool  # the program is built for the groups of the first batch

    def prepare(self, problem: Problem) -> None:
        """Build what the library builds once."""

    def run(self, batch: Batch) -> Answer:
        """Forward and backward."""


class Fairlayer:
    """This package; groups are read anew on each call."""

    name, package, modules, fixed_groups = "fairlayer", "fairlayer", ("fairlayer",), False

    def prepare(self, problem: Problem) -> None:
        """Make the layer."""
        import fairlayer as fl

        parity = fl.DemographicParity("group", tolerance=TOLERANCE)
        self.layer = fl.FairProjection([parity], bounds=(0.0, 1.0))

    def run(self, batch: Batch) -> Answer:
        """Forward and backward."""
        scores = batch.scores.detach().requires_grad_()
        value = self.layer(scores, sensitive_features={"group": batch.groups})
        return value, torch.autograd.grad(value, scores, batch.upstream)[0]


class FairlayerForward(Fairlayer):
    """This package without gradient, as in inference."""

    name = "fairlayer, forward only"

    @torch.no_grad()
    def run(self, batch: Batch) -> Answer:
        """Forward."""
        return self.layer(batch.scores, sensitive_features={"group": batch.groups}), None


class Floor:
    """An autograd function that does nothing: no layer in torch can cost less."""

    name, package, modules, fixed_groups = "empty autograd.Function", "torch", ("torch",), False

    def prepare(self, problem: Problem) -> None:
        """Nothing to build."""

    def run(self, batch: Batch) -> Answer:
        """Forward and backward."""
        scores = batch.scores.detach().requires_grad_()
        value = _Nothing.apply(scores)
        return value, torch.autograd.grad(value, scores, batch.upstream)[0]


class _Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return scores.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return upstream


class FairnessTraining:
    """fairness_training's FairModel around a network that hands out scores; builds its program each call."""

    name, package = "fairness_training", "fairness_training"
    modules, fixed_groups = ("fairness_training",), False

    def prepare(self, problem: Problem) -> None:
        """Make the model; beyond two groups, with a metric of all pairs in the manner of its own."""
        from fairness_training import FairModel

        warnings.simplefilter("ignore")  # it warns on each call about groups other than 0 and 1
        self.network = _HandsOut()
        self.model = FairModel(
            input_dim=2,
            custom_network=self.network,
            protected_attr_idx=0,
            prediction_bounds=(0.0, 1.0),
            fairness_tolerance=TOLERANCE,
            fairness_metric="mean_pred" if problem.group_count == 2 else _all_pairs_metric(problem),
        )

    def run(self, batch: Batch) -> Answer:
        """Forward and backward."""
        scores = batch.scores.detach().requires_grad_()
        self.network.scores = scores  # not a column of x: it cannot read groups from an x with gradient
        value = self.model(torch.stack([batch.groups.to(scores.dtype), batch.scores], dim=1)).squeeze(1)
        return value, torch.autograd.grad(value, scores, batch.upstream.to(value.dtype))[0]


class _HandsOut(nn.Module):
    scores: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.scores.unsqueeze(1)


def _all_pairs_metric(problem: Problem) -> Any:
    import cvxpy as cp
    from fairness_training import MeanPredictionParity

    pairs = [(int(np.argmax(row)), int(np.argmin(row))) for row in problem.pairs()]

    class AllPairs(MeanPredictionParity):
        def create_selection_matrices(self, x: Tensor, y: Any, protected_attr_idx: Any) -> list[np.ndarray]:
            codes = x[:, protected_attr_idx[0]].numpy()
            return [(codes == g).astype(np.float32) for g in range(problem.group_count)]

        def create_constraints(self, yhat: Any, selection_matrices: Any, slack: Any, y: Any = None) -> list[Any]:
            means = [cp.sum(cp.multiply(yhat, chosen)) / chosen.sum() for chosen in selection_matrices]
            differences = [means[g] - means[h] for g, h in pairs]
            return [side for each in differences for side in (each <= slack, -each <= slack)]

    return AllPairs()


class CvxpyLayers:
    """A CvxpyLayer built once, parametrised by the scores; rows times sqrt(n)."""

    package, modules, fixed_groups = "cvxpylayers", ("cvxpylayers.torch",), True

    def __init__(self, solver: str) -> None:
        self.solver = solver
        self.name = f"cvxpylayers ({solver})"
        self.modules = ("cvxpylayers.torch", solver.lower())

    def prepare(self, problem: Problem) -> None:
        """Build the program.

        Fastest of six formulations tried: |y - z|^2 (not |y|^2 - 2 z'y); the pair itself for two groups, and
        c <= mean_g <= c + tolerance for more (28 rows for pairs take twice as long).
        """
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        root = np.sqrt(problem.n)
        averages = root * problem.averages(problem.batches[0])
        y, z = cp.Variable(problem.n), cp.Parameter(problem.n)
        if problem.group_count == 2:
            low, means = -root * TOLERANCE, problem.pairs() @ averages @ y
            rows = [means >= low, means <= -low]
        else:
            low, means = root * cp.Variable(), averages @ y
            rows = [means >= low, means <= low + root * TOLERANCE]
        program = cp.Problem(cp.Minimize(cp.sum_squares(y - z)), [y >= 0, y <= 1, *rows])
        self.layer = CvxpyLayer(program, parameters=[z], variables=[y])

    def run(self, batch: Batch) -> Answer:
        """Forward and backward."""
        scores = batch.scores.detach().requires_grad_()
        (value,) = self.layer(scores, solver_args={"solve_method": self.solver})
        return value, torch.autograd.grad(value, scores, batch.upstream.to(value.dtype))[0]


class ProxSuite:
    """proxsuite's QPFunction on dense matrices that are built once."""

    name, package, modules, fixed_groups = "proxsuite", "proxsuite", ("proxsuite.torch.qplayer",), True

    def prepare(self, problem: Problem) -> None:
        """Build the matrices and the layer."""
        from proxsuite.torch.qplayer import QPFunction

        rows = np.sqrt(problem.n) * problem.pairs() @ problem.averages(problem.batches[0])
        limits = np.full(problem.slabs, np.sqrt(problem.n) * TOLERANCE)
        eye, n = np.eye(problem.n), problem.n
        self.Q, self.G = torch.from_numpy(eye), torch.from_numpy(np.vstack([rows, eye]))
        self.lower = torch.from_numpy(np.concatenate([-limits, np.zeros(n)]))
        self.upper = torch.from_numpy(np.concatenate([limits, np.ones(n)]))
        self.none = torch.zeros(0, n, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        self.layer = QPFunction(structural_feasibility=True)

    def run(self, batch: Batch) -> Answer:
        """Forward and backward."""
        scores = batch.scores.detach().requires_grad_()
        inequalities = (self.G, self.lower, self.upper)
        value = self.layer(self.Q, -scores.double(), *self.none, *inequalities)[0].reshape(-1)
        return value, torch.autograd.grad(value, scores, batch.upstream.double())[0]


class Qpth:
    """qpth's QPFunction (OptNet) on dense matrices that are built once."""

    name, package, modules, fixed_groups = "qpth", "qpth", ("qpth.qp",), True

    def prepare(self, problem: Problem) -> None:
        """Build the matrices."""
        from qpth.qp import QPFunction

        self.Q, self.G, self.h = (torch.from_numpy(array) for array in _one_sided(problem))
        self.none = torch.zeros(0, dtype=torch.float64)
        self.layer = QPFunction(verbose=-1, check_Q_spd=False)

    def run(self, batch: Batch) -> Answer:
        """Forward and backward."""
        scores = batch.scores.detach().requires_grad_()
        value = self.layer(self.Q, -scores.double(), self.G, self.h, self.none, self.none).reshape(-1)
        return value, torch.autograd.grad(value, scores, batch.upstream.double())[0]


class Qpax:
    """qpax in JAX, jitted, on dense matrices that are built once."""

    name, package, modules, fixed_groups = "qpax", "qpax", ("jax", "qpax"), True

    def prepare(self, problem: Problem) -> None:
        """Build the matrices and trace the function."""
        import jax
        import qpax

        jax.config.update("jax_enable_x64", True)
        Q, G, h = (jax.numpy.asarray(array) for array in _one_sided(problem))
        A, b = jax.numpy.zeros((0, problem.n)), jax.numpy.zeros(0)

        @jax.jit
        def both(z: Any, upstream: Any) -> tuple[Any, Any]:
            value, pull = jax.vjp(lambda scores: qpax.solve_qp_primal(Q, -scores, A, b, G, h), z)
            return value, pull(upstream)[0]

        self.both = both

    def run(self, batch: Batch) -> Answer:
        """Forward and backward."""
        value, gradient = self.both(batch.scores.double().numpy(), batch.upstream.double().numpy())
        return torch.from_numpy(np.array(value)), torch.from_numpy(np.array(gradient))


def _one_sided(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Q, G, h of 1/2 y'Qy subject to G y <= h."""
    rows = np.sqrt(problem.n) * problem.pairs() @ problem.averages(problem.batches[0])
    limits = np.full(problem.slabs, np.sqrt(problem.n) * TOLERANCE)
    eye, n = np.eye(problem.n), problem.n
    h = np.concatenate([limits, limits, np.ones(n), np.zeros(n)])
    return eye, np.vstack([rows, -rows, eye, -eye]), h


OURS = Fairlayer.name
RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        FairnessTraining(),
        CvxpyLayers("SCS"),
        CvxpyLayers("Clarabel"),
        CvxpyLayers("ECOS"),
        ProxSuite(),
        Qpth(),
        Qpax(),
    )
}


def missing(rival: Rival) -> bool:
    """Return whether a library is not installed."""
    return any(importlib.util.find_spec(module.split(".")[0]) is None for module in rival.modules)


def version(package: str) -> str:
    """Return the installed version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
