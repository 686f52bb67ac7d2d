"""`zoo_models.postprocessing.basin_merging` step by step in torch, for runtimes without Python.

That file tells what the steps are and why; here is only what differs. Scripted, this runs in
libtorch 2.0 and newer: loops stay loops, and no size is fixed. Same settings, same numbers out.
The order of float32 and float64 sums is the reference's wherever a comparison of neighbouring
pixels hangs on it, so results differ only where the reference's own sums tie in their last bit.

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


class BasinMergingGraph(nn.Module):
    """Embeddings (B, D, [Z,] Y, X) float32 -> labels (B, 1, [Z,] Y, X) float32.

    Labels are whole numbers 1..n in each image of the batch, 0 is background; float32 because that
    is what consumers take. Settings are those of `BasinMerging`. Every axis has 1 pixel or more.
    """

    background: Tensor

    def __init__(
        self,
        join: float = 0.8,
        merge: float = 3.2,
        radius: float = 3.8,
        solid: float = 0.9,
        min_size: int = 20,
        background: tuple[float, ...] | list[float] = (),
    ) -> None:
        super().__init__()
        self.join = float(join)
        self.merge = float(merge)
        self.radius = float(radius)
        self.solid = float(solid)
        self.min_size = int(min_size)
        self.register_buffer("background", torch.tensor(list(background), dtype=torch.float32))

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
        limit = self.solid * total / torch.bincount(flat).clamp(min=1)
        return solid_pieces(groups, distance.double() >= limit[groups], self.min_size)

    def from_background(self, embeddings: Tensor) -> Tensor:
        """Distance ([Z,] Y, X) of every pixel from the background's place."""
        place = self.background
        if place.numel() == 0:
            everywhere = torch.ones_like(embeddings[0], dtype=torch.bool)
            valleys, means = _valleys(embeddings, everywhere, self.join)
            sizes = torch.bincount(valleys.reshape(-1))
            place = means[(sizes == sizes.max()).nonzero()[0, 0]]  # of equal ones the first
        squared = torch.zeros_like(embeddings[0])
        for d in range(embeddings.shape[0]):
            difference = embeddings[d] - place[d]
            squared += difference * difference
        return squared.sqrt()


def _valleys(embeddings: Tensor, inside: Tensor, join: float) -> tuple[Tensor, Tensor]:
    """Steps 2 and 3: groups numbered 1..n, 0 outside, and means (n + 1, D), row 0 not used."""
    basins, roots = _basins(_change(embeddings), inside)
    bottoms = _bottoms(embeddings, inside, roots)
    first, second = touching(basins)
    difference = bottoms[first] - bottoms[second]
    near = (difference * difference).sum(1).sqrt() < join
    valley = components(bottoms.shape[0], first[near], second[near])
    sizes = torch.bincount(basins.reshape(-1), minlength=bottoms.shape[0]).double()
    weight = torch.bincount(valley, sizes).clamp(min=1)
    sums = [torch.bincount(valley, sizes * bottoms[:, d]) for d in range(bottoms.shape[1])]
    return valley[basins], (torch.stack(sums, 1) / weight[:, None]).float()


def _change(embeddings: Tensor) -> Tensor:
    """How much a pixel differs from its direct neighbours: summed squares, smoothed."""
    change = torch.zeros_like(embeddings[0])
    for axis in range(change.dim()):
        squared = torch.zeros_like(low(change, axis))
        for d in range(embeddings.shape[0]):
            step = high(embeddings[d], axis) - low(embeddings[d], axis)
            squared += step * step
        low(change, axis).add_(squared)
        high(change, axis).add_(squared)
    for axis in range(change.dim()):  # the border pixel stands for its missing neighbour
        middle = change.double()
        first, last = middle.narrow(axis, 0, 1), middle.narrow(axis, middle.shape[axis] - 1, 1)
        sides = torch.cat([first, low(middle, axis)], axis)
        sides += torch.cat([high(middle, axis), last], axis)
        change = (0.5 * middle + 0.25 * sides).float()
    return change


def _basins(height: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Basins 1..n of the pixels that walk down to one minimum, and the minima's flat index (n,)."""
    height = torch.where(inside, height, torch.full_like(height, float("inf")))
    lowest = torch.full_like(height, float("inf"))
    target = torch.arange(height.numel(), device=height.device).view_as(height)
    index, strides = target.clone(), steps(height)
    for offset in offsets(height.dim()):  # in the order of the flat index: the first stays
        step = 0
        here, there, from_here, to_there = lowest, height, index, target
        for axis, o in enumerate(offset):
            step += o * strides[axis]
            width = height.shape[axis] - abs(o)
            here = here.narrow(axis, max(0, -o), width)
            from_here = from_here.narrow(axis, max(0, -o), width)
            to_there = to_there.narrow(axis, max(0, -o), width)
            there = there.narrow(axis, max(0, o), width)
        lower = there < here
        to_there.copy_(torch.where(lower, from_here + step, to_there))
        here.copy_(torch.where(lower, there, here))
    minimum = (inside & (target == index)).view(-1)
    walked = followed(target.view(-1))
    number = torch.cumsum(minimum, 0)
    basins = torch.where(inside, number[walked].view_as(height), torch.zeros_like(index))
    return basins, minimum.nonzero()[:, 0]


def _bottoms(embeddings: Tensor, inside: Tensor, roots: Tensor) -> Tensor:
    """Row b, of (n + 1, D), is the mean embedding of the 3 ** d pixels inside around root b."""
    ndim = inside.dim()
    near = roots
    for axis, step in enumerate(steps(inside)):
        size = inside.shape[axis]
        position = roots // step % size
        offset = torch.arange(-1, 2, device=roots.device)
        moved = (position[:, None] + offset).clamp(0, size - 1) - position[:, None]
        near = near[..., None] + (moved * step).view([-1] + [1] * axis + [3])
    mask = inside.reshape(-1)[near]
    covered = _box_mean(mask.float(), ndim).clamp(min=1e-6)
    bottoms = torch.zeros([len(roots) + 1, embeddings.shape[0]], device=inside.device)
    for d in range(embeddings.shape[0]):
        values = embeddings[d].reshape(-1)[near]
        values = torch.where(mask, values, torch.zeros_like(values))
        bottoms[1:, d] = _box_mean(values, ndim) / covered
    return bottoms


def _box_mean(values: Tensor, ndim: int) -> Tensor:
    """(n, 3, ...) -> (n,), one axis after the other, as a filter of the whole image rounds."""
    for _ in range(ndim):
        values = (values.double().sum(1) / 3).float()
    return values


def _merge_nearest(groups: Tensor, means: Tensor, limit: float) -> Tensor:
    """Step 4: centroid linkage between touching groups, nearest first.

    Each pair of touching groups is one row of `first`, `second`, `length`; a row that is used up
    has length infinity. When b joins a, the rows of both are used up, and some of them are used
    again for a and each group that touched a or b.
    """
    centre, into = means.double(), torch.arange(means.shape[0], device=means.device)
    size = torch.bincount(groups.reshape(-1), minlength=means.shape[0]).double()
    first, second = touching(groups)
    length = _between(centre, first, second)
    while length.numel() > 0:
        shortest = length.min()
        if shortest.item() >= limit:
            break
        tied = (length == shortest).nonzero()[:, 0]
        row = tied[(first[tied] * means.shape[0] + second[tied]).argmin()]
        a, b = first[row].clone(), second[row].clone()
        centre[a] = (centre[a] * size[a] + centre[b] * size[b]) / (size[a] + size[b])
        size[a] += size[b]
        into[b] = a
        in_first, in_second = (first == a) | (first == b), (second == a) | (second == b)
        rows = (in_first | in_second).nonzero()[:, 0]
        others = torch.unique(torch.where(in_first[rows], second[rows], first[rows]))
        others = others[(others != a) & (others != b)]
        first[rows] = -1
        second[rows] = -1
        length[rows] = float("inf")
        rows = rows[: others.shape[0]]
        first[rows] = a
        second[rows] = others
        length[rows] = _between(centre, first[rows], others)
    return followed(into)[groups]


def _between(centre: Tensor, first: Tensor, second: Tensor) -> Tensor:
    difference = centre[first] - centre[second]
    return (difference * difference).sum(1).sqrt()


def _settle(embeddings: Tensor, groups: Tensor) -> Tensor:
    """Step 5. Every change brings a pixel nearer to its group's mean, so this ends."""
    shape, groups = groups.shape, groups.reshape(-1).clone()
    counts = torch.bincount(groups).clamp(min=1)
    sums = [torch.bincount(groups, channel.reshape(-1).double()) for channel in embeddings]
    means = (torch.stack(sums) / counts).float()
    flat = embeddings.reshape(embeddings.shape[0], -1)
    moved = True
    while moved:
        place, beside = _borders(groups.view(shape))
        own = groups[place]
        choice, nearest = own, _from_mean(flat, means, place, own)
        for group in beside:
            distance = _from_mean(flat, means, place, group)
            closer = (distance < nearest) & (group > 0)
            nearest = torch.where(closer, distance, nearest)
            choice = torch.where(closer, group, choice)
        moved = not torch.equal(choice, own)
        groups[place] = choice
    return groups.view(shape)


def _from_mean(flat: Tensor, means: Tensor, place: Tensor, group: Tensor) -> Tensor:
    """Distance of the pixels at `place` of (D, pixels) from the means (D, n) of `group`."""
    squared = torch.zeros([place.shape[0]], device=flat.device)
    for d in range(flat.shape[0]):
        difference = flat[d][place] - means[d][group]
        squared += difference * difference
    return squared.sqrt()


def _borders(groups: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Flat indices of grouped pixels beside another group, and the group of each neighbour."""
    border = torch.zeros_like(groups, dtype=torch.bool)
    for axis in range(groups.dim()):
        one, other = low(groups, axis), high(groups, axis)
        differ = (one != other) & (one > 0) & (other > 0)
        low(border, axis).logical_or_(differ)
        high(border, axis).logical_or_(differ)
    place = border.view(-1).nonzero()[:, 0]
    beside: list[Tensor] = []
    for axis, step in enumerate(steps(groups)):
        position = place // step % groups.shape[axis]
        for offset in [-1, 1]:
            moved = (position + offset).clamp(0, groups.shape[axis] - 1)
            beside.append(groups.reshape(-1)[place + (moved - position) * step])
    return place, beside
