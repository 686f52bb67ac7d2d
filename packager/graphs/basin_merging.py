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

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from packager.graphs.pieces import pieces
from packager.graphs.regions import (
    Touching,
    components,
    followed,
    high,
    low,
    offsets,
    steps,
    summed,
    touching,
)
from zoo_models.postprocessing.basin_merging import AHEAD, BasinMerging


class BasinMergingGraph(nn.Module):
    """Embeddings (B, D, [Z,] Y, X) float32 -> labels (B, 1, [Z,] Y, X) float32.

    Labels are whole numbers 1..n in each image of the batch, 0 is background; float32 because that
    is what consumers take. Settings are those of `BasinMerging`. Every axis has 1 pixel or more.
    """

    background: Tensor
    spread: Tensor

    def __init__(
        self,
        delta_v: float = 0.5,
        delta_d: float = 2.0,
        join: float | None = None,
        merge: float | None = None,
        radius: float | None = None,
        solid: float = 0.9,
        min_size: int = 20,
        background: Sequence[float] = (),
        spread: Sequence[float] = (),
        tension: float | None = None,
    ) -> None:
        super().__init__()
        known = BasinMerging(
            delta_v, delta_d, join, merge, radius, solid, min_size, background, spread, tension
        )
        self.join = float(known.join)
        self.merge = float(known.merge)
        self.tension = float(known.tension)
        self.radius = float(known.radius)
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
        target, basins, bottoms = _basins(embeddings, distance >= self.radius)
        groups = _groups(bottoms, basins, self.join, self.merge, self.tension)[basins]
        groups = _settled(embeddings, target, groups)
        flat = groups.reshape(-1)
        total = torch.bincount(flat, distance.reshape(-1).double())
        limit = (total / torch.bincount(flat).clamp_min(1)).mul_(self.solid)
        limit[0] = 0
        return pieces(groups, distance < limit[groups], self.min_size)

    def from_background(self, embeddings: Tensor) -> Tensor:
        """Distance ([Z,] Y, X) of every pixel from the background's place, in units of `spread`."""
        place = self.background
        if place.numel() == 0:
            everywhere = torch.ones_like(embeddings[0], dtype=torch.bool)
            place = _largest_valley(embeddings, everywhere, self.join)
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


def _largest_valley(embeddings: Tensor, everywhere: Tensor, join: float) -> Tensor:
    """Mean embedding (D,) of the largest valley, of equal ones the first."""
    _, basins, bottoms = _basins(embeddings, everywhere)
    valley = _groups(bottoms, basins, join, 0.0, 0.0)
    sizes = torch.bincount(basins.reshape(-1), minlength=bottoms.shape[0]).double()
    pixels = torch.bincount(valley, sizes)
    largest = valley == (pixels == pixels.max()).nonzero()[0, 0]
    weight = sizes[largest]
    total = torch.zeros([bottoms.shape[1]], dtype=torch.float64, device=bottoms.device)
    for d in range(bottoms.shape[1]):
        total[d] = (bottoms[:, d][largest] * weight).sum()
    return total.div_(weight.sum()).float()


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


def _basins(embeddings: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flat index (pixels,) of the next pixel downhill, basins 1..n, and bottoms (n + 1, D)."""
    outside = inside.logical_not()
    height = _change(embeddings).masked_fill_(outside, float("inf"))
    target = _downhill(height)
    here = torch.arange(target.shape[0], device=target.device)
    minimum = (target == here).logical_and_(inside.view(-1))
    basins = torch.cumsum(minimum, 0)[followed(target)].view_as(height).masked_fill_(outside, 0)
    return target, basins, _bottoms(embeddings, inside, minimum.nonzero()[:, 0])


def _downhill(height: Tensor) -> Tensor:
    """Flat index (pixels,) of the lowest neighbour of each pixel."""
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
    return torch.arange(height.numel(), device=height.device).add_(ahead.view(-1))


def _settled(embeddings: Tensor, target: Tensor, labels: Tensor, ahead: int = AHEAD) -> Tensor:
    """Labels, where the pixels at which two of them meet may change sides."""
    flat, old = embeddings.reshape(embeddings.shape[0], -1), labels.reshape(-1)
    further = target
    while ahead > 1:
        further = further[further]
        ahead = ahead // 2
    place = _meeting(labels)
    chosen, nearest = old[place], _squared_distance(flat, place, further[place])
    for axis, step in enumerate(steps(labels)):
        position = place // step % labels.shape[axis]
        for offset in [-1, 1]:
            beside = (position + offset).clamp_(0, labels.shape[axis] - 1)
            beside.sub_(position).mul_(step).add_(place)
            squared = _squared_distance(flat, place, further[beside])
            closer = (squared < nearest).logical_and_(old[beside] > 0)
            nearest[closer] = squared[closer]
            chosen[closer] = old[beside[closer]]
    new = old.clone()
    new[place] = chosen
    return new.view_as(labels)


def _meeting(labels: Tensor) -> Tensor:
    """Flat indices of labelled pixels beside another label."""
    meet = torch.zeros_like(labels, dtype=torch.bool)
    for axis in range(labels.dim()):
        one, other = low(labels, axis), high(labels, axis)
        differ = (one != other).logical_and_(one > 0).logical_and_(other > 0)
        low(meet, axis).logical_or_(differ)
        high(meet, axis).logical_or_(differ)
    return meet.view(-1).nonzero()[:, 0]


def _squared_distance(flat: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Between pixels of (D, pixels)."""
    squared = torch.zeros([first.shape[0]], device=flat.device)
    for d in range(flat.shape[0]):
        squared += (flat[d][first] - flat[d][second]).square()
    return squared


def _bottoms(embeddings: Tensor, inside: Tensor, roots: Tensor) -> Tensor:
    """Row b, of (n + 1, D), is the mean embedding of the 3 ** d pixels inside around root b."""
    number = roots.shape[0]
    count = torch.zeros([number], dtype=torch.float64, device=inside.device)
    bottoms = torch.zeros(
        [embeddings.shape[0], number + 1], dtype=torch.float64, device=inside.device
    )
    for offset in offsets(inside.dim()):
        pixel = roots.clone()
        within = torch.ones_like(roots, dtype=torch.bool)
        for axis, step in enumerate(steps(inside)):
            position = roots // step % inside.shape[axis]
            moved = (position + offset[axis]).clamp_(0, inside.shape[axis] - 1).sub_(position)
            within.logical_and_(moved == offset[axis])
            pixel.add_(moved.mul_(step))
        within.logical_and_(inside.reshape(-1)[pixel])
        count += within
        for d in range(embeddings.shape[0]):
            values = embeddings[d].reshape(-1)[pixel].masked_fill_(within.logical_not(), 0)
            bottoms[d, 1:] += values
    bottoms[:, 1:] /= count
    single = torch.zeros([number + 1, embeddings.shape[0]], device=inside.device)
    return single.copy_(bottoms.t())


def _groups(bottoms: Tensor, basins: Tensor, join: float, merge: float, tension: float) -> Tensor:
    """Steps 3 and 4: the group (n + 1,) of each basin, 0 for row 0."""
    sizes = torch.bincount(basins.reshape(-1), minlength=bottoms.shape[0]).double()
    first, second, contact = touching(basins)
    near = _between(bottoms.double(), first, second) < join
    valley = components(bottoms.shape[0], first[near], second[near])
    weight = torch.bincount(valley, sizes).clamp_min(1)
    sums = [torch.bincount(valley, sizes * bottoms[:, d]) for d in range(bottoms.shape[1])]
    means = torch.stack(sums, 1).div_(weight.view(-1, 1))
    pairs = summed(valley[first], valley[second], contact, weight.shape[0])
    limit = 1.0
    for _ in range(basins.dim()):
        limit *= tension
    return _linked(means, weight, pairs, merge, limit, basins.dim())[valley]


def _linked(
    centre: Tensor, size: Tensor, pairs: Touching, merge: float, limit: float, ndim: int
) -> Tensor:
    """Step 4: centroid linkage of touching groups (n, D), least tension first: the group of each.

    Each pair of touching groups is one row of `first` < `second`, `contact` and `tension`; a row
    that is used up, or that must not merge, has tension infinity. When b joins a, the rows of both
    are used up, and some of them are used again for a and each group that touched a or b.
    """
    number = centre.shape[0]
    into = torch.arange(number, device=centre.device)
    first, second, contact = pairs
    tension = _tensions(centre, size, pairs, merge, ndim)
    while tension.numel() > 0:
        least = tension.min()
        if least.item() >= limit:
            break
        tied = (tension == least).nonzero()[:, 0]
        order = torch.add(second[tied], first[tied], alpha=number)
        row = tied[order == order.min()][0]
        a, b = first[row].clone(), second[row].clone()
        total = (centre[a] * size[a]).add_(centre[b] * size[b])
        size[a] += size[b]
        centre[a] = total.div_(size[a])
        into[b] = a
        in_first = (first == a).logical_or_(first == b)
        in_second = (second == a).logical_or_(second == b)
        rows = in_second.logical_or_(in_first).nonzero()[:, 0]
        beside, before = second[rows], in_first[rows].logical_not_()
        beside[before] = first[rows][before]
        further = (beside != a).logical_and_(beside != b)
        others, at = torch.unique(beside[further], return_inverse=True)
        contacts = torch.zeros_like(others).index_add(0, at, contact[rows][further])
        first[rows] = -1
        second[rows] = -1
        tension[rows] = float("inf")
        rows = rows[: others.shape[0]]
        first[rows] = torch.minimum(others, a)
        second[rows] = torch.maximum(others, a)
        contact[rows] = contacts
        again = (first[rows], second[rows], contacts)
        tension[rows] = _tensions(centre, size, again, merge, ndim)
    return followed(into)


def _tensions(centre: Tensor, size: Tensor, pairs: Touching, merge: float, ndim: int) -> Tensor:
    """Tension of pairs, to the power of `ndim`; infinite of what is `merge` apart or more."""
    first, second, contact = pairs
    distance = _between(centre, first, second)
    tension = distance / contact
    of_side = tension.clone().mul_(torch.minimum(size[first], size[second]))
    for _ in range(ndim - 1):
        tension.mul_(of_side)
    return tension.masked_fill_(distance >= merge, float("inf"))


def _between(centre: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Distances of rows, summed dimension by dimension."""
    squared = torch.zeros([first.shape[0]], dtype=centre.dtype, device=centre.device)
    for d in range(centre.shape[1]):
        squared += (centre[:, d][first] - centre[:, d][second]).square()
    return squared.sqrt_()
