"""Three classes: every class is offered to both groups alike, and each row stays a vector of probabilities."""

import os

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

import fairlayer as fl

FAST = bool(os.environ.get("FAIRLAYER_EXAMPLE_FAST"))
ROWS, STEPS = (1_500, 40) if FAST else (12_000, 250)
COURSES = ("craft", "office", "laboratory")


def pupils() -> tuple[Tensor, Tensor, Tensor]:
    """Return marks (n, 4), the course taken and the group; one mark stands in for the group."""
    group = torch.randint(0, 2, (ROWS,))
    marks = torch.randn(ROWS, 4)
    marks[:, 0] += 0.9 * group
    pull = torch.stack([-marks[:, 1], marks[:, 2], marks[:, 0] + marks[:, 3]], dim=1)
    return marks, torch.distributions.Categorical(logits=pull).sample(), group


def gaps(name: str, p: Tensor, group: Tensor, among: Tensor | None = None) -> str:
    """Say, for each course, how far the groups' mean probabilities are apart: of all, or of those who took it."""
    rows = [slice(None) if among is None else among == c for c in range(3)]
    means = [[p[of, c][group[of] == g].mean() for g in (0, 1)] for c, of in enumerate(rows)]
    return f"{name:<36}" + "".join(f"{abs(first - second):>12.4f}" for first, second in means)


torch.manual_seed(0)
x, y, group = pupils()
new_x, new_y, new_group = pupils()
net = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 3))
optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
for _ in range(STEPS):
    optimiser.zero_grad()
    cross_entropy(net(x), y).backward()
    optimiser.step()

logits, known = net(new_x).detach(), {"sensitive_features": {"group": new_group}, "bounds": "simplex"}
plain, parity = torch.softmax(logits, dim=1), [fl.DemographicParity("group", tolerance=0.02)]
ways = {
    "no constraint": plain,
    "entropic": fl.project(logits, parity, geometry="entropic", from_logits=True, **known).value,
    "euclidean": fl.project(plain, parity, **known).value,
}
print(f"{'gaps of all pupils':<36}" + "".join(f"{course:>12}" for course in COURSES) + f"{'log loss':>10}{'zeros':>7}")
for name, p in ways.items():
    loss, zeros = nll_loss(p.clamp_min(1e-4).log(), new_y), (p == 0).double().mean()
    print(gaps(name, p, new_group) + f"{loss:>10.4f}{zeros:>7.1%}")
    assert (p.sum(dim=1) - 1).abs().max() < 1e-5

opportunity = [fl.EqualOpportunity("group", tolerance=0.02)]
audited = fl.project(logits, opportunity, y=new_y, geometry="entropic", from_logits=True, **known).value
print("gaps of the pupils who took the course (their labels are known here, as in an audit)")
print(gaps("no constraint", plain, new_group, new_y))
print(gaps("entropic", audited, new_group, new_y))
