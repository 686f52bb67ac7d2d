"""The last steps of basin merging: from groups of pixels to connected instances."""

import torch
from torch import Tensor

from packager.graphs.regions import components, regions, touching


def pieces(groups: Tensor, rim: Tensor, min_size: int) -> Tensor:
    """Steps 5 and 6: connected pieces of each group ([Z,] Y, X), without the rim it does not
    enclose; 1, 2, ... in the order of their first pixels."""
    part = regions((groups * 2).add_(rim))
    sizes = torch.bincount(part.view(-1))
    group, is_rim = torch.zeros_like(sizes), torch.zeros_like(sizes, dtype=torch.bool)
    group[part.view(-1)] = groups.view(-1)
    is_rim[part.view(-1)] = rim.view(-1)
    first, second, _ = touching(part + 1)
    first, second = first - 1, second - 1
    same = group[first] == group[second]
    apart = same.logical_not()
    open_rim = torch.zeros_like(is_rim)
    open_rim[first[apart]] = True
    open_rim[second[apart]] = True
    kept = open_rim.logical_and_(is_rim).logical_not().logical_and_(group > 0)
    join = same.logical_and_(kept[first]).logical_and_(kept[second])
    piece = components(sizes.shape[0], first[join], second[join])
    dropped = kept.logical_not()
    pixels = torch.bincount(piece, sizes.masked_fill(dropped, 0).double())
    wanted = pixels >= max(min_size, 1)
    number = torch.cumsum(wanted, 0).masked_fill_(wanted.logical_not(), 0)
    return number[piece].masked_fill_(dropped, 0)[part]
