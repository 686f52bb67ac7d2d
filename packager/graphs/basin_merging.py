"""`zoo_models.postprocessing.basin_merging` step by step in torch, for runtimes without Python.

That file tells what the steps are and why; here is only what differs. Scripted, this runs in
libtorch 2.0 and newer: loops stay loops, and no size is fixed. Same settings, same numbers out.
The order of float32 and float64 sums is the reference's wherever a comparison of neighbouring
pixels hangs on it, so results differ only where the reference's own sums tie in their last bit.

Runtimes compile chains of elementwise operations into kernels, anew for each image size: in
libtorch 2.0 that took ten times as long as the run, and a kernel may round otherwise. So no two
operations that can be compiled follow each other here: the second one works in place, or is one of
those (`square`, `logical_and`, `clamp_min`, ...) that are never compiled. A test watches that.
TorchScript may evaluate an index expression several times, so none works in place.

Nothing here is as large as embeddings times neighbours: channels are taken one by one, pairs are
kept only where regions meet. Planes are flattened where pixels are looked up::

    plane (Z, Y, X)      flat index = (z * Y + y) * X + x      so one pixel along an axis is a
                                                               fixed step in the flat index
"""

import torch
from torch import Tensor, nn

from packager.graphs.pieces import solid_pieces
from packager.graphs.regions import (
    components,
    followed,
    high,
    low,
    offsets,
    steps,
    touching,
)
from zoo_models.postprocessing.basin_merging import BasinMerging


class BasinMergingGraph(nn.Module):
    """Embeddings (B, D, [Z,] Y, X) float32 -> labels (B, 1, [Z,] Y, X) float32.

    Labels are whole numbers 1..n in each image of the batch, 0 is background; float32 because that
    is what consumers take. Settings are those of `BasinMerging`. Every axis has 1 pixel or more.
    """

    background: Tensor
    spread: Tensor

    def __init__(
        self,
        join: float = 0.8,
        merge: float = 3.2,
        radius: float = 3.8,
        solid: float = 0.9,
        min_size: int = 20,
        background: tuple[float, ...] | list[float] = (),
        spread: tuple[float, ...] | list[float] = (),
    ) -> None:
        super().__init__()
        BasinMerging(background=background, spread=spread)  # refuses a spread that does not fit
        self.join = float(join)
        self.merge = float(merge)
        self.radius = float(radius)
        self.solid = float(solid)
        self.min_size = int(min_size)
        self.register_buffer("background", torch.tensor(list(background), dtype=torch.float32))
        self.register_buffer("spread", torch.tensor(list(spread), dtype=torch.float32))

    def forward(self, embeddings: Tensor) -> Tensor:
        labels = [self.cluster(image)[None] for image in embeddings.detach().float().unbind(0)]
        return torch.stack(labels).float()

    def cluster(self, embeddings: Tensor) -> Tensor:
        """Embeddings (D, [Z,] Y, X) float32 -> labels ([Z,] Y, X) int64."""
        distance = self.from_background(embeddings)
        groups, means = _valleys(embeddings, distance >= self.radius, self.join)
        groups = _settle(embeddings, _merge_nearest(groups, means, self.merge))
        flat = groups.reshape(-1)
        total = torch.bincount(flat, distance.reshape(-1).double())
        limit = (total / torch.bincount(flat).clamp_min(1)).mul_(self.solid)
        return solid_pieces(groups, distance < limit[groups], self.min_size)

    def from_background(self, embeddings: Tensor) -> Tensor:
        """Distance ([Z,] Y, X) of every pixel from the background's place, in units of `spread`."""
        place = self.background
        if place.numel() == 0:
            everywhere = torch.ones_like(embeddings[0], dtype=torch.bool)
            valleys, means = _valleys(embeddings, everywhere, self.join)
            sizes = torch.bincount(valleys.reshape(-1))
            place = means[(sizes == sizes.max()).nonzero()[0, 0]]  # of equal ones the first
        squared = torch.zeros_like(embeddings[0])
        if self.spread.numel() == 0:
            for d in range(embeddings.shape[0]):
                squared += (embeddings[d] - place[d]).square()
            return squared.sqrt_()
        for row in self.spread.view(place.numel(), -1).unbind(0):
            along = torch.zeros_like(squared)
            for d in range(embeddings.shape[0]):
                along += (embeddings[d] - place[d]).mul_(row[d])
            squared += along.square()
        return squared.sqrt_()


def _valleys(embeddings: Tensor, inside: Tensor, join: float) -> tuple[Tensor, Tensor]:
    """Steps 2 and 3: groups numbered 1..n, 0 outside, and means (n + 1, D), row 0 not used."""
    basins, roots = _basins(_change(embeddings), inside)
    bottoms = _bottoms(embeddings, inside, roots)
    first, second = touching(basins)
    near = _between(bottoms, first, second) < join
    valley = components(bottoms.shape[0], first[near], second[near])
    sizes = torch.bincount(basins.reshape(-1), minlength=bottoms.shape[0]).double()
    weight = torch.bincount(valley, sizes).clamp_min(1)
    sums = [torch.bincount(valley, sizes * bottoms[:, d]) for d in range(bottoms.shape[1])]
    return valley[basins], torch.stack(sums, 1).div_(weight.view(-1, 1)).float()


def _change(embeddings: Tensor) -> Tensor:
    """How much a pixel differs from its direct neighbours: summed squares, smoothed."""
    change = torch.zeros_like(embeddings[0])
    for axis in range(change.dim()):
        squared = torch.zeros_like(low(change, axis))
        for d in range(embeddings.shape[0]):
            squared += (high(embeddings[d], axis) - low(embeddings[d], axis)).square()
        low(change, axis).add_(squared)
        high(change, axis).add_(squared)
    for axis in range(change.dim()):  # the border pixel stands for its missing neighbour
        middle = change.double()
        first, last = middle.narrow(axis, 0, 1), middle.narrow(axis, middle.shape[axis] - 1, 1)
        sides = torch.cat([first, low(middle, axis)], axis)
        sides += torch.cat([high(middle, axis), last], axis)
        change.copy_(sides.add_(middle, alpha=2).mul_(0.25))
    return change


def _basins(height: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Basins 1..n of the pixels that walk down to one minimum, and the minima's flat index (n,)."""
    outside = inside.logical_not()
    height = height.masked_fill(outside, float("inf"))
    lowest = torch.full_like(height, float("inf"))
    ahead = torch.zeros_like(height, dtype=torch.int64)  # from a pixel to its lowest neighbour
    for offset in offsets(height.dim()):  # in the order of the flat index: the first stays
        step = 0
        here, there, ahead_here = lowest, height, ahead
        for axis, stride in enumerate(steps(height)):
            o = offset[axis]
            step += o * stride
            width = height.shape[axis] - abs(o)
            here = here.narrow(axis, max(0, -o), width)
            ahead_here = ahead_here.narrow(axis, max(0, -o), width)
            there = there.narrow(axis, max(0, o), width)
        ahead_here.masked_fill_(there < here, step)
        here.copy_(torch.minimum(here, there))
    minimum = (ahead == 0).logical_and_(inside).view(-1)
    walked = followed(torch.arange(height.numel(), device=height.device).add_(ahead.view(-1)))
    basins = torch.cumsum(minimum, 0)[walked].view_as(height).masked_fill_(outside, 0)
    return basins, minimum.nonzero()[:, 0]


def _bottoms(embeddings: Tensor, inside: Tensor, roots: Tensor) -> Tensor:
    """Row b, of (n + 1, D), is the mean embedding of the 3 ** d pixels inside around root b."""
    number, width = roots.shape[0], 1
    near = roots.view(number, 1)
    offset = torch.arange(-1, 2, device=roots.device)
    for axis, step in enumerate(steps(inside)):
        size = inside.shape[axis]
        position = (roots // step % size).view(number, 1)
        moved = (position + offset).clamp_(0, size - 1).sub_(position).mul_(step)
        near = near.view(number, width, 1) + moved.view(number, 1, 3)
        width *= 3
    near = near.view(number, width)
    mask = inside.reshape(-1)[near]
    covered = _box_mean(mask.float()).clamp_min(1e-6)
    bottoms = torch.zeros([number + 1, embeddings.shape[0]], device=inside.device)
    for d in range(embeddings.shape[0]):
        values = embeddings[d].reshape(-1)[near].masked_fill_(mask.logical_not(), 0)
        bottoms[1:, d] = _box_mean(values).div_(covered)
    return bottoms


def _box_mean(values: Tensor) -> Tensor:
    """(n, 3 ** d) -> (n,), one axis after the other, as a filter of the whole image rounds."""
    number, width = values.shape
    while width > 1:
        width = width // 3
        values = values.view(number, 3, width).sum(1, dtype=torch.float64).div_(3).float()
    return values.view(number)


def _merge_nearest(groups: Tensor, means: Tensor, limit: float) -> Tensor:
    """Step 4: centroid linkage between touching groups, nearest first.

    Each pair of touching groups is one row of `first`, `second`, `length`; a row that is used up
    has length infinity. When b joins a, the rows of both are used up, and some of them are used
    again for a and each group that touched a or b.
    """
    into = torch.arange(means.shape[0], device=means.device)
    centre = torch.zeros_like(means, dtype=torch.float64).copy_(means)
    size = torch.bincount(groups.reshape(-1), minlength=means.shape[0]).double()
    first, second = touching(groups)
    length = _between(centre, first, second)
    while length.numel() > 0:
        shortest = length.min()
        if shortest.item() >= limit:
            break
        tied = (length == shortest).nonzero()[:, 0]
        order = torch.add(second[tied], first[tied], alpha=means.shape[0])
        row = tied[order == order.min()][0]
        a, b = first[row].clone(), second[row].clone()
        total = (centre[a] * size[a]).add_(centre[b] * size[b])
        size[a] += size[b]
        centre[a] = total.div_(size[a])
        into[b] = a
        in_first = (first == a).logical_or_(first == b)
        in_second = (second == a).logical_or_(second == b)
        rows = in_second.logical_or_(in_first).nonzero()[:, 0]
        others = torch.unique(torch.where(in_first[rows], second[rows], first[rows]))
        further = (others != a).logical_and_(others != b)
        others = others[further]
        first[rows] = -1
        second[rows] = -1
        length[rows] = float("inf")
        rows = rows[: others.shape[0]]
        first[rows] = a
        second[rows] = others
        length[rows] = _between(centre, first[rows], others)
    return followed(into)[groups]


def _between(centre: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return (centre[first] - centre[second]).square().sum(1).sqrt_()


def _settle(embeddings: Tensor, groups: Tensor) -> Tensor:
    """Step 5. Every change brings a pixel nearer to its group's mean, so this ends."""
    shape, groups = groups.shape, groups.reshape(-1).clone()
    counts = torch.bincount(groups).clamp_min(1)
    sums = [torch.bincount(groups, channel.reshape(-1).double()) for channel in embeddings]
    means = torch.stack(sums).div_(counts).float()
    flat = embeddings.reshape(embeddings.shape[0], -1)
    moved = True
    while moved:
        place, beside = _borders(groups.view(shape))
        own = groups[place]
        choice, nearest = own.clone(), _from_mean(flat, means, place, own)
        for group in beside:
            distance = _from_mean(flat, means, place, group)
            closer = (distance < nearest).logical_and_(group > 0)
            nearest[closer] = distance[closer]
            choice[closer] = group[closer]
        moved = not torch.equal(choice, own)
        groups[place] = choice
    return groups.view(shape)


def _from_mean(flat: Tensor, means: Tensor, place: Tensor, group: Tensor) -> Tensor:
    """Distance of the pixels at `place` of (D, pixels) from the means (D, n) of `group`."""
    squared = torch.zeros([place.shape[0]], device=flat.device)
    for d in range(flat.shape[0]):
        squared += (flat[d][place] - means[d][group]).square()
    return squared.sqrt_()


def _borders(groups: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Flat indices of grouped pixels beside another group, and the group of each neighbour."""
    border = torch.zeros_like(groups, dtype=torch.bool)
    for axis in range(groups.dim()):
        one, other = low(groups, axis), high(groups, axis)
        differ = (one != other).logical_and_(one > 0).logical_and_(other > 0)
        low(border, axis).logical_or_(differ)
        high(border, axis).logical_or_(differ)
    place = border.view(-1).nonzero()[:, 0]
    beside: list[Tensor] = []
    for axis, step in enumerate(steps(groups)):
        position = place // step % groups.shape[axis]
        for offset in [-1, 1]:
            moved = (position + offset).clamp_(0, groups.shape[axis] - 1)
            moved.sub_(position).mul_(step).add_(place)
            beside.append(groups.reshape(-1)[moved])
    return place, beside
