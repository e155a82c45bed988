"""The graph of the pairs: samples that must be equal as one node, and trees through sets of edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray

__all__ = ["Forest", "Pairs", "closest_between", "forest", "not_implied", "strong_components", "tightest_bound"]

_MOST_BESIDE = 64  # neighbours of a node, above which the ways through it are not looked at
_SAMPLE = 256  # nodes whose ways are looked at first: where they imply no pair, the others are not looked at
_ROUNDING = 4.0 * float(np.spacing(1.0))  # of a sum of two limits, relative


@dataclass(frozen=True)
class Pairs:
    """How far apart the predictions of pairs of samples may be: |y_first - y_second| <= limit.

    Args:
        first: one sample of each pair, (e,).
        second: the other, (e,).
        limit: (e,), >= 0.
        n: number of samples.
    """

    first: IntArray
    second: IntArray
    limit: FloatArray
    n: int

    def __len__(self) -> int:
        return len(self.first)


class Forest(NamedTuple):
    """A spanning forest, node by node in the order in which it was walked.

    Args:
        tree: which tree each node is in, (n,), numbered from 0.
        offset: what walking from the root to a node adds up, (n,).
        order: the nodes, each after its parent, (n,).
        parent: the parent of each node, -1 for a root, (n,).
        edge: the edge to the parent, -1 for a root, (n,).
    """

    tree: IntArray
    offset: FloatArray
    order: IntArray
    parent: IntArray
    edge: IntArray

    @property
    def trees(self) -> int:
        """Number of trees."""
        return int(self.tree.max(initial=-1)) + 1


def forest(n: int, first: IntArray, second: IntArray, difference: FloatArray) -> Forest:
    """Walk the graph on n nodes breadth first.

    Args:
        n: number of nodes.
        first: one end of each edge.
        second: the other end.
        difference: by how much the offset of `first` is above that of `second`.
    """
    if not len(first):
        return Forest(np.arange(n), np.zeros(n), np.arange(n), np.full(n, -1), np.full(n, -1))
    library = _graph_library()
    tree, order, parent = _walked(n, first, second) if library is None else _walked_by(library, n, first, second)
    edge = _edges_to(parent, first, second)
    above = edge >= 0
    taken, step = edge[above], np.zeros(n)
    step[above] = np.where(first[taken] == np.flatnonzero(above), difference[taken], -difference[taken])
    return Forest(tree, _summed(step, parent), order, parent, edge)


def _walked(n: int, first: IntArray, second: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the tree of each node, the nodes in the order in which they are met, and their parents."""
    others, starts = _neighbours(n, first, second)
    others_of, starts_of = others.tolist(), starts.tolist()
    seen, parents, walked, trees = [-1] * n, [-1] * n, [], 0
    for root in range(n):
        if seen[root] >= 0:
            continue
        seen[root] = trees
        queue = [root]
        for node in queue:
            for other in others_of[starts_of[node] : starts_of[node + 1]]:
                if seen[other] < 0:
                    seen[other], parents[other] = trees, node
                    queue.append(other)
        walked += queue
        trees += 1
    return np.array(seen), np.array(walked), np.array(parents)


def _walked_by(library: Any, n: int, first: IntArray, second: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the same by SciPy: all trees hang from one node more, which the walk begins at."""
    graph = library.coo_matrix((np.ones(len(first)), (first, second)), shape=(n, n)).tocsr()
    trees, tree = library.csgraph.connected_components(graph, directed=False)
    roots = np.full(trees, n)
    np.minimum.at(roots, tree, np.arange(n))
    ends = np.concatenate([first, np.full(trees, n)]), np.concatenate([second, roots])
    hung = library.coo_matrix((np.ones(len(ends[0])), ends), shape=(n + 1, n + 1)).tocsr()
    order, parent = library.csgraph.breadth_first_order(hung, n, directed=False)
    parent = parent[:n].astype(np.int64)
    parent[roots] = -1
    return tree.astype(np.int64), order[1:].astype(np.int64), parent


def _graph_library() -> Any:
    try:
        import scipy.sparse
        import scipy.sparse.csgraph
    except ImportError:  # the core has no SciPy, and needs none for this
        return None
    return scipy.sparse


def _edges_to(parent: IntArray, first: IntArray, second: IntArray) -> IntArray:
    """Return the first edge between each node and its parent, -1 for a root."""
    n, below = len(parent), np.flatnonzero(parent >= 0)
    keys = np.minimum(first, second) * n + np.maximum(first, second)
    order = np.argsort(keys, kind="stable")
    own = np.minimum(below, parent[below]) * n + np.maximum(below, parent[below])
    edge = np.full(n, -1)
    edge[below] = order[np.searchsorted(keys[order], own)]
    return edge


def _summed(step: FloatArray, parent: IntArray) -> FloatArray:
    """Return what the steps from the root to each node add up to: each round looks twice as far up."""
    found, above = np.append(step, 0.0), np.append(np.where(parent < 0, len(parent), parent), len(parent))
    while bool((above < len(parent)).any()):
        found, above = found + found[above], above[above]
    return found[:-1]


def _neighbours(n: int, first: IntArray, second: IntArray) -> tuple[IntArray, IntArray]:
    """Return the nodes beside each node, one node after the other, and where those of each node start."""
    at = np.concatenate([first, second])
    order = np.argsort(at, kind="stable")
    return np.concatenate([second, first])[order], np.append(0, np.cumsum(np.bincount(at, minlength=n)))


def closest_between(pairs: Pairs, node: IntArray, nodes: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return the pairs between different nodes, of several between the same two the closest, and their two nodes.

    Args:
        pairs: the pairs of samples.
        node: the node of each sample.
        nodes: number of nodes.
    """
    i, j = node[pairs.first], node[pairs.second]
    rows = np.flatnonzero(i != j)
    order = rows[np.argsort(pairs.limit[rows], kind="stable")]
    low, high = np.minimum(i[order], j[order]), np.maximum(i[order], j[order])
    _, kept = np.unique(low * nodes + high, return_index=True)
    return order[kept], i[order[kept]], j[order[kept]]


def not_implied(first: IntArray, second: IntArray, limit: FloatArray, n: int) -> IntArray:
    """Return the pairs that are not implied by two shorter ones, in ascending order.

    A pair (i, k) is implied where |y_i - y_j| <= c_ij and |y_j - y_k| <= c_jk are asked too, and c_ij + c_jk <= c_ik.
    The two are shorter, so that what implies an implied pair may be implied in turn. On a line, where neighbours of
    neighbours are neighbours, a path through the sorted samples is left.

    Args:
        first: one node of each pair, (e,); no two pairs join the same nodes.
        second: the other node, (e,).
        limit: how far apart the two may be, (e,), > 0.
        n: number of nodes.
    """
    at = np.concatenate([first, second])
    order = np.argsort(at, kind="stable")
    other, each = np.concatenate([second, first])[order], np.tile(limit, 2)[order]
    beside = np.bincount(at, minlength=n)
    starts = np.append(0, np.cumsum(beside))
    keys = np.minimum(first, second) * n + np.maximum(first, second)
    sorted_by = np.argsort(keys)
    sorted_keys = keys[sorted_by]

    def implied_through(nodes: IntArray) -> IntArray:
        """Return the pairs that two pairs at one of these nodes imply."""
        count = beside[nodes]
        left = np.repeat(np.arange(len(nodes)), count)  # one row for each pair at a node,
        own = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
        wedge = np.repeat(np.arange(len(left)), own)  # and one for each pair at it with an earlier one
        before = np.arange(len(wedge)) - np.repeat(np.cumsum(own) - own, own)
        start = starts[nodes[left[wedge]]]
        a, b = start + own[wedge], start + before
        key = np.minimum(other[a], other[b]) * n + np.maximum(other[a], other[b])
        place = np.searchsorted(sorted_keys, key).clip(max=len(keys) - 1)
        third = sorted_by[place]
        implied = (
            (sorted_keys[place] == key)
            & (each[a] + each[b] <= limit[third] * (1.0 + _ROUNDING))
            & (np.maximum(each[a], each[b]) < limit[third])
        )
        return np.asarray(third[implied])

    nodes = np.flatnonzero((beside > 1) & (beside <= _MOST_BESIDE))
    kept = np.ones(len(first), dtype=bool)
    if len(nodes) > _SAMPLE and not len(implied_through(nodes[:: len(nodes) // _SAMPLE])):
        nodes = nodes[:0]
    for part in np.array_split(nodes, 1 + len(nodes) // 10_000):
        kept[implied_through(part)] = False
    return np.flatnonzero(kept)


def tightest_bound(bound: Any, node: IntArray, nodes: int, tightest: Any) -> FloatArray:
    """Return the bound of each node: the tightest one of its samples.

    Args:
        bound: a bound for all samples, or one for each.
        node: the node of each sample.
        nodes: number of nodes.
        tightest: `numpy.maximum` for lower bounds, `numpy.minimum` for upper ones.
    """
    found = np.full(nodes, -np.inf if tightest is np.maximum else np.inf)
    tightest.at(found, node, np.broadcast_to(np.asarray(bound, dtype=np.float64), len(node)))
    return found


def strong_components(n: int, tail: IntArray, head: IntArray) -> IntArray:
    """Return for each of n nodes which strongly connected component of the directed graph it is in.

    Source: Tarjan (1972), "Depth-first search and linear graph algorithms", without recursion.
    """
    order = np.argsort(tail, kind="stable")
    heads, starts = head[order].tolist(), np.append(0, np.cumsum(np.bincount(tail, minlength=n))).tolist()
    component, index, low = [-1] * n, [-1] * n, [0] * n
    stack: list[int] = []
    counter = found = 0
    for root in np.unique(tail).tolist():
        if index[root] >= 0:
            continue
        work = [(root, starts[root])]
        index[root] = low[root] = counter
        counter += 1
        stack.append(root)
        while work:
            node, place = work.pop()
            if place < starts[node + 1]:
                work.append((node, place + 1))
                other = heads[place]
                if index[other] < 0:
                    index[other] = low[other] = counter
                    counter += 1
                    stack.append(other)
                    work.append((other, starts[other]))
                elif component[other] < 0:
                    low[node] = min(low[node], index[other])
                continue
            if low[node] == index[node]:
                while True:
                    member = stack.pop()
                    component[member] = found
                    if member == node:
                        break
                found += 1
            if work:
                above = work[-1][0]
                low[above] = min(low[above], low[node])
    alone = np.array(component)
    missing = alone < 0
    alone[missing] = found + np.arange(int(missing.sum()))
    return alone
