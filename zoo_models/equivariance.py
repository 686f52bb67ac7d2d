"""The smallest shift with which a network commutes, along one space axis.

**Period.** Two windows of one long image of noise, `shift` pixels apart, are both shown to the
network. Where the answers are about the same pixels they must agree::

    image     |---------------------------------------------------|
    window 0  |==========================================|
    window s  |--s-->|==========================================|
    compared         :     |<------ interior ------>|    :
                      ^ no pixel here depends on anything beyond either window, so neither
                        zero padding nor a statistic of the border can disturb the comparison

The smallest shift at which they agree, for two images and (where the interior is wide enough) at
its double too, is the period. With an output of another resolution only shifts that move it by
whole output pixels can be compared (scale 1/2: even shifts). Agreement is float32 agreement:
windows put the same sum at another place of memory, where it is rounded differently, so the
tolerance is raised to what the network makes of a change in the last bit of its input.
"""

from __future__ import annotations

import numpy as np

from zoo_models.probing import Field, deviation

LAST_BIT = 2.0**-23
ROUNDINGS = 16
"""By how much a whole network may round worse than a change in the last bit of its input."""
LARGEST_ROUNDING = 100
"""Cap of the tolerance, in times the asked: an output that jumps (labels) never rounds well."""


def smallest_period(field: Field, largest: int) -> int | None:
    """The smallest shift, at most `largest`, with which the network commutes; None: none found."""
    line, length = field.view.line, field.view.length
    images = [line.noise(length + 2 * largest) for _ in range(2)]
    windows = [line.part(image, 0, length) for image in images]
    answers = [line.answer(window) for window in windows]
    last_bit = np.float32(1) + np.float32(LAST_BIT) * np.sign(line.noise(length))
    moved_by_rounding = deviation(line.answer(windows[0] * last_bit), answers[0]).max()
    tolerance = field.view.threshold
    limit = min(max(tolerance, ROUNDINGS * moved_by_rounding), LARGEST_ROUNDING * tolerance)

    def agree(shift: int, number: int, *, unseen: bool = False) -> bool:
        here, moved = field.compared(shift), int(shift * field.scale)
        if here.start == here.stop:
            return unseen
        window = line.part(images[number], shift, shift + length)
        there = answers[number][here.start + moved : here.stop + moved]
        return bool(deviation(line.answer(window)[here], there).max() <= limit)

    for shift in range(1, largest + 1):
        whole = (shift * field.scale).denominator == 1
        if whole and agree(shift, 0) and agree(shift, 1) and agree(2 * shift, 0, unseen=True):
            return shift
    return None
