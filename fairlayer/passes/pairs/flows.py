"""What flows along the pairs of a working set: in balance, around its circles, and between samples that are equal."""

from __future__ import annotations

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes.pairs.graph import Forest
from fairlayer.passes.pairs.linear import solve_laplacian

__all__ = ["balanced_flow", "opened", "sent_to_roots"]

_LEAK = 1e-9  # how much a node bears per unit of what a pair passes on: nothing in effect, but no matrix is singular


def balanced_flow(
    pairs: tuple[IntArray, IntArray],
    flow: FloatArray,
    held: FloatArray,
    *,
    own: FloatArray,
    noise: FloatArray,
    holds: BoolArray,
    tree: IntArray,
    goal: float,
) -> tuple[FloatArray, FloatArray, float]:
    """Return the forces along pairs, and of bounds, that balance the nodes' own forces.

    No force along a pair changes the sum of a tree. What is left of that sum is rounding, up to the noise of the tree,
    and is taken off where it comes from: off each node in proportion to its noise.

    Args:
        pairs: the two nodes of each pair, (e,) each.
        flow: the forces along the pairs to begin with, (e,).
        held: the forces of bounds to begin with, (n,).
        own: the force on each node, (n,).
        noise: by how much that force may be wrong, (n,).
        holds: the nodes on which a bound acts, (n,).
        tree: the tree that each node is in, (n,).
        goal: what may be left on a node.

    Returns:
        The forces along pairs, those of bounds, and the largest force that is left on a node.
    """
    (i, j), n = pairs, len(own)
    noise_of = np.bincount(tree, noise, n)
    rounding = np.bincount(tree, own, n).clip(-noise_of, noise_of) / np.maximum(noise_of, 1e-300)
    known = own - noise * rounding[tree]
    resistance = np.where(holds, 1.0, _LEAK)
    worst = np.inf
    for _ in range(6):
        left = -(known + np.bincount(i, flow, n) - np.bincount(j, flow, n) + held)
        last, worst = worst, float(np.abs(left).max(initial=0.0))
        if worst <= goal or worst >= 0.5 * last:
            break
        move = solve_laplacian(resistance, i, j, 1.0, left, 1e-12)
        flow, held = flow + move[i] - move[j], held + np.where(holds, move, 0.0)
    return flow, held, worst


def opened(
    trees: Forest,
    graph: tuple[IntArray, IntArray, FloatArray],
    active: IntArray,
    multipliers: FloatArray,
    loose: IntArray,
) -> FloatArray:
    """Return multipliers without circles of pairs whose limits do not add up.

    What flows around such a circle costs more one way than it saves: it is sent the other way until a pair of the
    circle has no multiplier left, and leaves.

    Args:
        trees: a forest through the working set.
        graph: both ends and the limit of every pair.
        active: the working set.
        multipliers: of every pair.
        loose: the pairs of the working set that close such circles.
    """
    i, j, limit = graph
    edges, parent, above = multipliers.copy(), trees.parent, trees.edge
    for e in loose.tolist():
        circle = [(e, 1.0)]
        paths: list[list[int]] = []
        for end in (int(i[e]), int(j[e])):
            path = [end]
            while parent[path[-1]] >= 0:
                path.append(int(parent[path[-1]]))
            paths.append(path)
        common = set(paths[0]) & set(paths[1])
        for path, way in ((paths[0], -1.0), (paths[1], 1.0)):
            for node in path:
                if node in common:
                    break
                edge = int(active[above[node]])
                circle.append((edge, way if i[edge] == node else -way))
        at = np.array([edge for edge, _ in circle])
        turn = np.array([direction for _, direction in circle])
        sign = np.sign(edges[at])
        if not sign.all():
            continue  # another circle has opened this one
        turn = turn * -np.sign(float((limit[at] * sign) @ turn) or 1.0)
        falling = sign * turn < 0
        if not falling.any():
            continue
        step = np.abs(edges[at][falling]).min()
        edges[at] += step * turn
        edges[at[falling][np.abs(edges[at][falling]).argmin()]] = 0.0
    return edges


def sent_to_roots(equal: Forest, first: IntArray, force: FloatArray) -> list[float]:
    """Return what flows along each edge of a forest, from `first` on, when each node sends what is left on it upwards.

    Args:
        equal: the forest, whose edges are those between equal samples.
        first: one end of each edge.
        force: what acts on each node.
    """
    left, sent, ends = force.tolist(), [0.0] * len(first), first.tolist()
    parent, edge = equal.parent.tolist(), equal.edge.tolist()
    for node in reversed(equal.order.tolist()):
        if parent[node] >= 0:  # what is left on a node goes to its parent
            amount = -left[node]
            sent[edge[node]] = amount if ends[edge[node]] == node else -amount
            left[parent[node]] -= amount
    return sent
