"""A device that is none: its tensors keep their numbers on the host, but say that they are on a device named "far".

Whatever would make a real device wait is written down: reading a number, copying to the host or from it, an operation
whose shape depends on numbers. Run as a program, because a device can be named once per process.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
ASKING = {  # shapes depend on numbers, or CUDA asks for the largest one
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
    aten.equal.default,
    aten.is_nonzero.default,
    aten._linalg_eigh.default,
    aten.linalg_eig.default,
}


class Far(torch.Tensor):
    """A tensor on the device, with its numbers `near`."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Far:
        made: Far = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.size(), strides=near.stride(), dtype=near.dtype, device="far:0", requires_grad=False
        )
        made.near = near
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return answered(func, args, kwargs or {})


TRAFFIC: list[str] = []


def answered(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the host, and write down what would have made a device wait."""
    place = kwargs.get("device")
    to_far = place is not None and torch.device(place).type == "far"
    first = args[0] if args else None
    far_in = any(isinstance(each, Far) for each in torch.utils._pytree.tree_leaves((args, kwargs)))
    if not (far_in or to_far):
        return func(*args, **kwargs)
    out_far = far_in if place is None else to_far
    if func is aten._local_scalar_dense.default:
        TRAFFIC.append("read 1")
        return func(first.near)
    if func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1]):
        TRAFFIC.append("boolean index")
    if func in ASKING:
        TRAFFIC.append(f"asks {func}")
    if func is aten._to_copy.default and to_far != isinstance(first, Far) and place is not None:
        TRAFFIC.append(f"{'to' if to_far else 'from'} the device {first.numel()}")
    if func is aten.copy_.default and isinstance(first, Far) != isinstance(args[1], Far):
        TRAFFIC.append(f"{'to' if isinstance(first, Far) else 'from'} the device {args[1].numel()}")
        out_far = isinstance(first, Far)
    near = tree_map(lambda each: each.near if isinstance(each, Far) else each, (args, kwargs))
    if place is not None:
        near[1]["device"] = "cpu"
    out = func(*near[0], **near[1])
    if func._schema.name.endswith("_"):
        return first
    return tree_map(lambda each: Far(each) if out_far and isinstance(each, torch.Tensor) else each, out)


class Device(TorchDispatchMode):
    """While it is entered, tensors may be made on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return answered(func, args, kwargs or {})


def far(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the same numbers on the device."""
    return Far(tensor.detach().clone())


# --- the program: what is asked of the device, and how far its answers are from those of the host

N = 600
BOXES = {
    "box": {"bounds": (0.0, 1.0)},
    "one side": {"bounds": (0.0, None)},
    "line": {"bounds": None},
    "inner box": {"bounds": (0.0, 1.0), "margin": 0.125},
    "entropic": {"geometry": "entropic"},
    "likelihood": {"geometry": "likelihood"},
    "logits": {"geometry": "entropic", "from_logits": True},
    "likelihood of logits": {"geometry": "likelihood", "from_logits": True},
}


def batch(options: dict[str, Any], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return scores, and two features."""
    torch.manual_seed(0)
    features = {"g": torch.arange(N) % 3, "h": (torch.arange(N) // 7) % 4}
    scores = torch.rand(N, dtype=dtype) * 0.8 + 0.1 * features["g"] / 3 - 0.1 * (features["h"] == 2)
    scores = scores.clamp(0.01, 0.99)
    return (torch.logit(scores) if options.get("from_logits") else scores), features


def differences(run: Any, scores: torch.Tensor, given: dict[str, Any]) -> dict[str, Any]:
    """Run forward and backward on the host and on the device, and say how they differ and what the device was asked."""
    import fairlayer as fl

    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    here = scores.clone().requires_grad_()
    value, _ = run(here, given)
    (value * weights).sum().backward()
    with Device():
        there, weights_there = far(scores).requires_grad_(), far(weights)
        given_there = torch.utils._pytree.tree_map(far, given)
        TRAFFIC.clear()
        value_there, result = run(there, given_there)
        forward = list(TRAFFIC)
        TRAFFIC.clear()
        (value_there * weights_there).sum().backward()
        backward = list(TRAFFIC)
        proof = result() if callable(result) else result
    assert isinstance(proof, fl.Projection)
    assert here.grad is not None
    return {
        "value": float((value_there.detach().near - value.detach()).abs().max()),
        "gradient": float((there.grad.near - here.grad).abs().max()),  # type: ignore[union-attr]
        "passes": proof.passes,
        "holds": proof.certificate.holds,
        "forward": forward,
        "backward": backward,
    }


def one_range(options: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """One parity over known groups, through a model whose backbone hands on what it is given."""
    import fairlayer as fl

    scores, features = batch(options, dtype)
    model = fl.FairModel(torch.nn.Identity(), [fl.DemographicParity("g", tolerance=0.01)], **options)
    model.projection.fit_categories({"g": features["g"]})

    def run(z: torch.Tensor, given: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        return model(z, **given), lambda: model.last_projection

    return differences(run, scores, {"sensitive_features": {"g": features["g"]}, "y": features["h"]})


def other(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What goes the general way."""
    import fairlayer as fl

    scores, features = batch(options)
    y = (torch.rand(N) < 0.5).long()
    rules, extra = {
        "two attributes": ([fl.DemographicParity("g", 0.01), fl.DemographicParity("h", 0.02)], {}),
        "equalised odds": ([fl.EqualizedOdds("g", 0.01)], {"y": y}),
        "label estimates": ([fl.EqualizedOdds("g", 0.01)], {"label_probabilities": torch.rand(N, dtype=torch.float64)}),
        "covariance": ([fl.CovarianceBound("g", 0.001)], {}),
        "sample weights": ([fl.DemographicParity("g", 0.01)], {"sample_weight": torch.rand(N).double() + 0.5}),
        "strata": ([fl.ConditionalParity("g", tolerance=0.01, given="h")], {}),
    }[name]

    def run(z: torch.Tensor, given: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        result = fl.project(z, rules, **given, **options)
        return result.value, result

    return differences(run, scores, {"sensitive_features": features, **extra})


def main() -> None:
    """Print what was found as JSON."""
    _setup_privateuseone_for_python_backend("far")
    found: dict[str, Any] = {}
    for name, options in BOXES.items():
        for dtype in (torch.float64, torch.float32):
            found[f"one range, {name}, {dtype}"] = one_range(options, dtype)
    for name in OTHERS:
        for box in ("box", "entropic", "likelihood"):
            found[f"{name}, {box}"] = other(name, BOXES[box])
    json.dump(found, sys.stdout)


OTHERS = ("two attributes", "equalised odds", "label estimates", "covariance", "sample weights", "strata")


if __name__ == "__main__":
    main()
