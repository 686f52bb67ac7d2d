"""Connected regions of label planes (Z, Y, X), and which labels touch, compiled."""

from __future__ import annotations

import numba
import numpy as np

from zoo_models.compiled.linkage import root_of
from zoo_models.postprocessing.basin_merging import Integers, Labels, Touching


@numba.njit(cache=True)
def regions(categories: Labels) -> tuple[Labels, Labels, Integers]:
    """Connected parts 0, 1, ... of equal category, in the order of their first pixels.

    Returns the part of each pixel, and the category and the pixels of each part. Runs along x are
    the nodes; two runs in neighbouring lines are joined where the later of them begins.
    """
    planes, rows, width = categories.shape
    runs = 0
    for z in range(planes):
        for y in range(rows):
            line = categories[z, y]
            for x in range(width):
                runs += x == 0 or line[x] != line[x - 1]
    part = np.empty((planes, rows, width), np.int32)
    parent = np.arange(runs)
    run = -1
    for z in range(planes):
        for y in range(rows):
            line = categories[z, y]
            for x in range(width):
                starts = x == 0 or line[x] != line[x - 1]
                run += starts
                part[z, y, x] = run
                for dz, dy in ((1, 0), (0, 1)):
                    if z < dz or y < dy:
                        continue
                    beside = categories[z - dz, y - dy]
                    if beside[x] == line[x] and (starts or beside[x - 1] != beside[x]):
                        a = root_of(parent, part[z - dz, y - dy, x])
                        b = root_of(parent, run)
                        if a != b:
                            parent[max(a, b)] = min(a, b)
    number = np.empty(runs, np.int32)
    count = 0
    for node in range(runs):
        if parent[node] == node:
            number[node] = count
            count += 1
        else:
            number[node] = number[root_of(parent, node)]
    category, sizes = np.empty(count, np.int32), np.zeros(count, np.int64)
    for z in range(planes):
        for y in range(rows):
            for x in range(width):
                place = number[part[z, y, x]]
                part[z, y, x] = place
                category[place] = categories[z, y, x]
                sizes[place] += 1
    return part, category, sizes


@numba.njit(cache=True)
def pairs_touching(labels: Labels) -> Touching:
    """Each pair 0 < a < b of labels that are direct neighbours somewhere, once, in order.

    Third the contact: how many of their pixels are direct neighbours. A pair is noted with the
    pixels at which it runs on along x; the notes are sorted by a with one count, then the few of
    each a among themselves.
    """
    notes = _notes(labels)
    number = labels.max() + 1
    begin = np.zeros(number + 1, np.int64)
    for note in range(len(notes)):
        begin[notes[note, 0] + 1] += 1
    begin = np.cumsum(begin)
    others, end = np.empty((len(notes), 2), np.int32), begin[:-1].copy()
    for note in range(len(notes)):
        others[end[notes[note, 0]]] = notes[note, 1:]
        end[notes[note, 0]] += 1
    first, second, contact = np.empty((3, len(notes)), np.int64)
    count = 0
    for a in range(number):
        _sort(others, begin[a], begin[a + 1])
        for place in range(begin[a], begin[a + 1]):
            if place == begin[a] or others[place, 0] != others[place - 1, 0]:
                first[count], second[count], contact[count] = a, others[place, 0], 0
                count += 1
            contact[count - 1] += others[place, 1]
    return first[:count].copy(), second[:count].copy(), contact[:count].copy()


@numba.njit(cache=True)
def _notes(labels: Labels) -> Labels:
    """Rows (a, b, n) with 0 < a < b, neighbours at n pixels that follow one another along x."""
    planes, rows, width = labels.shape
    notes, count = np.empty((4096 + 3 * width, 3), np.int32), 0
    for z in range(planes):
        for y in range(rows):
            if count + 3 * width > len(notes):  # room for all that one line can give
                longer = np.empty((2 * len(notes), 3), np.int32)
                longer[:count] = notes[:count]
                notes = longer
            here = labels[z, y]
            for x in range(1, width):
                if here[x] != here[x - 1] and here[x] > 0 and here[x - 1] > 0:
                    _note(notes[count], here[x], here[x - 1], 1)
                    count += 1
            for dz, dy in ((1, 0), (0, 1)):
                if z < dz or y < dy:
                    continue
                there = labels[z - dz, y - dy]
                last_here, last_there = 0, 0
                for x in range(width):
                    if here[x] == there[x] or here[x] == 0 or there[x] == 0:
                        continue
                    if here[x] != last_here or there[x] != last_there:
                        last_here, last_there = here[x], there[x]
                        _note(notes[count], last_here, last_there, 0)
                        count += 1
                    notes[count - 1, 2] += 1
    return notes[:count]


@numba.njit(cache=True)
def _note(row: Labels, one: int, other: int, contact: int) -> None:
    row[0], row[1], row[2] = min(one, other), max(one, other), contact


@numba.njit(cache=True)
def _sort(rows: Labels, begin: int, end: int) -> None:
    """By the first column, in place; a label has few neighbours, but one around all has many."""
    if end - begin > 32:
        rows[begin:end] = rows[begin:end][np.argsort(rows[begin:end, 0])]
        return
    for place in range(begin + 1, end):
        value, number, before = rows[place, 0], rows[place, 1], place - 1
        while before >= begin and rows[before, 0] > value:
            rows[before + 1] = rows[before]
            before -= 1
        rows[before + 1, 0], rows[before + 1, 1] = value, number
