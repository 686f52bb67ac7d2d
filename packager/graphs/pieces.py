"""The last step of basin merging: from groups of pixels to connected instances without holes."""

import torch
from torch import Tensor

from packager.graphs.regions import components, regions, touching


def solid_pieces(groups: Tensor, solid: Tensor, min_size: int) -> Tensor:
    """Step 6: the solid pieces of each group, holes in them filled with the group's own pixels."""
    kept = torch.where(solid, groups, torch.zeros_like(groups))
    parts = regions(kept)
    sizes = torch.bincount(parts.view(-1))
    group = torch.zeros_like(sizes)
    group[parts.view(-1)] = kept.view(-1)
    pieces = ((group > 0) & (sizes >= min_size)).nonzero()[:, 0]
    pieces = pieces[(group[pieces] * sizes.shape[0] + pieces).argsort()]  # by group, then raster
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
    open_ = torch.zeros([number], dtype=torch.bool, device=labels.device)
    for axis in range(labels.dim()):
        open_[region_of.select(axis, 0).reshape(-1)] = True
        open_[region_of.select(axis, labels.shape[axis] - 1).reshape(-1)] = True
    wanted = (labels == 0) & (groups > 0) & ~open_[region_of]
    place = wanted.view(-1).nonzero()[:, 0]
    own, region = groups.reshape(-1)[place], region_of.view(-1)[place]
    piece = torch.zeros_like(group_of)  # the region of each label
    piece[labels.view(-1)] = region_of.view(-1)
    first, second = touching(region_of + 1)
    at_border = open_.nonzero()[:, 0]  # touches node `number`: all that is beyond the border
    first = torch.cat([first - 1, at_border])
    second = torch.cat([second - 1, torch.full_like(at_border, number)])
    found = torch.zeros_like(own)
    waits = torch.zeros([int(groups.max().item()) + 1], dtype=torch.bool, device=labels.device)
    waits[own] = True
    for label in waits[group_of].nonzero()[:, 0]:
        left = (first != piece[label]) & (second != piece[label])
        part = components(number + 1, first[left], second[left])
        inside = (own == group_of[label]) & (part[region] != part[number])
        found = torch.where(inside, label, found)
    labels.view(-1)[place] = found
    return labels
