"""What flows along the pairs of a working set: in balance, around its circles, and between samples that are equal."""

from __future__ import annotations

import numpy as np

from fairlayer._typing import BoolArray, FloatArray, IntArray
from fairlayer.passes.pairs.graph import Forest
from fairlayer.passes.pairs.linear import solve_laplacian

__all__ = ["balanced_flow", "opened", "sent_to_roots"]

_BORNE = 1e-3  # how much the node of a tree that is known worst bears, per unit of what a pair passes on
_LEAK = 1e-9  # the same of nodes that are known well: nothing in effect, but no matrix is singular


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
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Return the forces along pairs, and of bounds, that balance the nodes' own forces.

    What rounding leaves of a tree is borne where it comes from: by each node in proportion to how badly its own force
    is known.

    Args:
        pairs: the two nodes of each pair, (e,) each.
        flow: the forces along the pairs to begin with, (e,).
        held: the forces of bounds to begin with, (n,).
        own: the force on each node, (n,).
        noise: how badly it is known, (n,).
        holds: the nodes on which a bound acts, (n,).
        tree: the tree that each node is in, (n,).
        goal: what may be left on a node.

    Returns:
        The forces along pairs, those of bounds, what rounding is taken to bear of each node, and the largest rest.
    """
    (i, j), n = pairs, len(own)
    loudest = np.zeros(n)
    np.maximum.at(loudest, tree, noise)
    share = np.where(noise > goal, _BORNE * noise / np.maximum(loudest[tree], 1e-300), 0.0)
    resistance = np.where(holds, 1.0, np.maximum(share, _LEAK))
    borne, worst = np.zeros(n), np.inf
    for _ in range(6):
        left = -(own + np.bincount(i, flow, n) - np.bincount(j, flow, n) + held + borne)
        last, worst = worst, float(np.abs(left).max(initial=0.0))
        if worst <= goal or worst >= 0.5 * last:
            break
        move = solve_laplacian(resistance, i, j, 1.0, left, 1e-12)
        flow = flow + move[i] - move[j]
        held, borne = held + np.where(holds, move, 0.0), borne + np.where(holds, 0.0, share * move)
    return flow, held, borne, worst


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
