"""Connected regions of label planes, and graphs of what touches, in torch that can be scripted.

A plane is ([Z,] Y, X) int64. Neighbours are direct ones: pixels that share a face. Planes are
flattened where pixels are looked up::

    flat index = (z * Y + y) * X + x      one pixel along an axis is a fixed step in it
"""

import torch
from torch import Tensor

Touching = tuple[Tensor, Tensor, Tensor]
"""Columns of pairs: first, second, contact."""


def regions(categories: Tensor) -> Tensor:
    """Connected parts of equal category, 0, 1, ... in the order of their first pixels.

    Pixels are joined to runs along the last axis first; two runs in neighbouring lines meet
    where the later of them begins, so one pair of pixels says it::

        1 1 1 1 0 0        a a a a b b
        0 1 1 2 2 2        c d d e e e        a-d
    """
    starts = torch.ones_like(categories, dtype=torch.bool)
    last = categories.dim() - 1
    high(starts, last).copy_(high(categories, last) != low(categories, last))
    run = (torch.cumsum(starts.view(-1), 0) - 1).view_as(categories)
    first: list[Tensor] = []
    second: list[Tensor] = []
    for axis in range(last):
        begin = low(starts, axis).logical_or(high(starts, axis))
        meet = begin.logical_and_(low(categories, axis) == high(categories, axis))
        first.append(low(run, axis)[meet])
        second.append(high(run, axis)[meet])
    number = int(run.max().item()) + 1
    return components(number, torch.cat(first), torch.cat(second))[run]


def components(number: int, first: Tensor, second: Tensor) -> Tensor:
    """Component 0, 1, ... of each of `number` nodes, in the order of their first nodes.

    In every round each tree of joined nodes hangs itself under the smallest neighbouring tree.
    """
    node = torch.arange(number, device=first.device)
    root = node.clone()
    while True:
        a, b = root[first], root[second]
        apart = a != b
        if not bool(apart.any()):
            break
        first, second, a, b = first[apart], second[apart], a[apart], b[apart]
        root = root.scatter_reduce(0, torch.maximum(a, b), torch.minimum(a, b), "amin")
        root = followed(root)
    return (torch.cumsum(root == node, 0) - 1)[root]


def followed(target: Tensor) -> Tensor:
    """Where pointers end: pointers to pointers double the distance walked each time."""
    further = target[target]
    while not torch.equal(further, target):
        target, further = further, further[further]
    return target


def touching(groups: Tensor) -> Touching:
    """Each pair 0 < a < b of groups that are direct neighbours somewhere, once, and their contact.

    The contact is the number of their pixels that are direct neighbours.
    """
    firsts: list[Tensor] = []
    seconds: list[Tensor] = []
    for axis in range(groups.dim()):
        one, other = low(groups, axis), high(groups, axis)
        differ = (one != other).logical_and_(one > 0).logical_and_(other > 0)
        firsts.append(one[differ])
        seconds.append(other[differ])
    first, second = torch.cat(firsts), torch.cat(seconds)
    return summed(first, second, torch.ones_like(first), int(groups.max().item()) + 1)


def summed(first: Tensor, second: Tensor, contact: Tensor, number: int) -> Touching:
    """Each pair a < b of 0 ... number - 1 once, in order, with the sum of its contacts."""
    apart = first != second
    first, second = first[apart], second[apart]
    key = torch.add(torch.maximum(first, second), torch.minimum(first, second), alpha=number)
    unique, at = torch.unique(key, return_inverse=True)
    total = torch.zeros_like(unique).index_add(0, at, contact[apart])
    return unique // number, unique % number, total


def low(plane: Tensor, axis: int) -> Tensor:
    """A view without the last pixel along `axis`; beside it pixel by pixel lies `high`."""
    return plane.narrow(axis, 0, plane.shape[axis] - 1)


def high(plane: Tensor, axis: int) -> Tensor:
    return plane.narrow(axis, 1, plane.shape[axis] - 1)


def steps(plane: Tensor) -> list[int]:
    """Distance in the flat index of two neighbours along each axis."""
    result: list[int] = []
    step = 1
    for axis in range(plane.dim()):
        result.insert(0, step)
        step *= plane.shape[plane.dim() - 1 - axis]
    return result


def offsets(ndim: int) -> list[list[int]]:
    """All offsets of -1, 0, 1 pixels per axis, in raster order."""
    result: list[list[int]] = []
    for code in range(27 if ndim == 3 else 9):
        offset = [code // 3 % 3 - 1, code % 3 - 1]
        result.append(offset if ndim == 2 else [code // 9 - 1, offset[0], offset[1]])
    return result
