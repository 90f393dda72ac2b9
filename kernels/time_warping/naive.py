"""The recursions of dynamic time warping and of the median filter, for one matrix and one row."""

import math
from itertools import product


def path(cost: list[list[float]]) -> list[tuple[int, int]]:
    """Cells (row, column) of the cheapest path; where sums are equal, in Whisper's order."""
    rows, columns = len(cost), len(cost[0])
    total = dict.fromkeys(product(range(-1, rows), range(-1, columns)), math.inf)
    total[-1, -1] = 0.0
    before = {}
    for i, j in product(range(rows), range(columns)):
        diagonal, up, left = (i - 1, j - 1), (i - 1, j), (i, j - 1)
        best = left
        if total[diagonal] < min(total[up], total[left]):
            best = diagonal
        elif total[up] < min(total[diagonal], total[left]):
            best = up
        total[i, j], before[i, j] = cost[i][j] + total[best], best
    cells = [(rows - 1, columns - 1)]
    while cells[-1] != (0, 0):
        cells.append(before[cells[-1]])
    return cells[::-1]


def median_filter(row: list[float], width: int) -> list[float]:
    """Medians of the windows of a row, mirrored at its ends; the row itself if it is too short."""
    half = width // 2
    if half == 0 or len(row) <= half:
        return row
    mirrored = row[half:0:-1] + row + row[-2 : -half - 2 : -1]
    return [sorted(mirrored[j : j + width])[half] for j in range(len(row))]
