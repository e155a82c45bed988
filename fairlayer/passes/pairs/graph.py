"""The graph of the pairs: samples that must be equal as one node, and trees through sets of edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fairlayer._typing import FloatArray, IntArray

__all__ = ["Forest", "Pairs", "forest", "strong_components"]


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
    tree, offset = np.arange(n), np.zeros(n)
    parent, edge, order = np.full(n, -1), np.full(n, -1), np.arange(n)
    if not len(first):
        return Forest(tree, offset, order, parent, edge)
    ends, starts = _neighbours(n, first, second)
    ends_of, starts_of = ends.tolist(), starts.tolist()
    first_of, second_of, difference_of = first.tolist(), second.tolist(), difference.tolist()
    seen, walked = [-1] * n, []
    height, parents, edges = [0.0] * n, [-1] * n, [-1] * n
    trees = 0
    for root in range(n):
        if seen[root] >= 0:
            continue
        seen[root] = trees
        queue = [root]
        for node in queue:
            here = height[node]
            for e in ends_of[starts_of[node] : starts_of[node + 1]]:
                if first_of[e] == node:
                    other, step = second_of[e], -difference_of[e]
                else:
                    other, step = first_of[e], difference_of[e]
                if seen[other] < 0:
                    seen[other], parents[other], edges[other] = trees, node, e
                    height[other] = here + step
                    queue.append(other)
        walked += queue
        trees += 1
    return Forest(np.array(seen), np.array(height), np.array(walked), np.array(parents), np.array(edges))


def _neighbours(n: int, first: IntArray, second: IntArray) -> tuple[IntArray, IntArray]:
    """Return the edges at each node, one node after the other, and where those of each node start."""
    at = np.concatenate([first, second])
    order = np.argsort(at, kind="stable")
    return order % len(first), np.append(0, np.cumsum(np.bincount(at, minlength=n)))


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
