"""The last step of basin merging: from groups of pixels to connected instances without holes."""

import torch
from torch import Tensor

from packager.graphs.regions import components, regions, touching


def solid_pieces(groups: Tensor, rim: Tensor, min_size: int) -> Tensor:
    """Step 6: each group's pieces without its rim, holes filled with the group's own pixels."""
    kept = groups.masked_fill(rim, 0)
    parts = regions(kept)
    sizes = torch.bincount(parts.view(-1))
    group = torch.zeros_like(sizes)
    group[parts.view(-1)] = kept.view(-1)
    pieces = (group > 0).logical_and_(sizes >= min_size).nonzero()[:, 0]
    order = torch.add(pieces, group[pieces], alpha=sizes.shape[0]).argsort()
    pieces = pieces[order]  # by group, then raster
    number = torch.zeros_like(sizes)
    number[pieces] = torch.arange(1, pieces.shape[0] + 1, device=groups.device)
    return _filled(number[parts], groups, torch.cat([group.new_zeros([1]), group[pieces]]))


def _filled(labels: Tensor, groups: Tensor, group_of: Tensor) -> Tensor:
    """Give each label its group's own pixels (group_of[label]) in the holes of its piece.

    A hole of a piece P is a connected part of "not P" away from the image's border. Cut the image
    into regions: each piece, and each connected part of the rest. Regions are connected, and all
    but P make up "not P", so two of them are in one part of it exactly if they are joined in the
    graph of touching regions without P. So: take P out of the graph; what is cut off from the
    border lies in holes of P. Only regions of label 0 away from the border can be in a hole.

    Two pieces one of which has a hole around the other: the outer one begins earlier (walk up from
    the inner one's first pixel), so has the smaller label, and the inner one, done later, wins.
    """
    region_of = regions(labels)
    number = int(region_of.max().item()) + 1
    at_border = _at_border(region_of, number)
    wanted = (labels == 0).logical_and_(groups > 0)
    wanted.logical_and_(at_border.logical_not()[region_of])
    place = wanted.view(-1).nonzero()[:, 0]
    own, region = groups.reshape(-1)[place], region_of.view(-1)[place]
    piece = torch.zeros_like(group_of)  # the region of each label
    piece[labels.view(-1)] = region_of.view(-1)
    first, second = touching(region_of + 1)
    outer = at_border.nonzero()[:, 0]  # touch node `number`: all that is beyond the border
    beyond = torch.stack([outer, torch.full_like(outer, number)])
    joined = torch.cat([torch.stack([first, second]).sub_(1), beyond], 1)
    found = torch.zeros_like(own)
    waits = torch.zeros([int(groups.max().item()) + 1], dtype=torch.bool, device=labels.device)
    waits[own] = True
    for label in waits[group_of].nonzero()[:, 0]:
        without = joined[:, (joined != piece[label]).all(0)]
        part = components(number + 1, without[0], without[1])
        inside = (own == group_of[label]).logical_and_(part[region] != part[number])
        found[inside] = label
    labels.view(-1)[place] = found
    return labels


def _at_border(region_of: Tensor, number: int) -> Tensor:
    """Which of the `number` regions touch the image's border, (number,) bool."""
    touches = torch.zeros([number], dtype=torch.bool, device=region_of.device)
    for axis in range(region_of.dim()):
        touches[region_of.select(axis, 0).reshape(-1)] = True
        touches[region_of.select(axis, region_of.shape[axis] - 1).reshape(-1)] = True
    return touches
