"""Tiles of a slide: a grid at a target magnification over the tissue, read by threads ahead of
whoever uses them.
"""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .slides import Slide
from .tissue import Tissue, find_tissue, is_blank

THUMBNAIL = 2048  # longest side of the picture in which tissue is looked for, pixels
TISSUE_MPP = 8.0  # its micrometres a pixel, where the slide is small enough


@dataclass(frozen=True)
class Grid:
    """Tiles of one slide."""

    coords: np.ndarray  # int64 (N, 2), x and y of the upper left corner at level 0
    tile: int  # pixels of a side, as the encoder sees it
    extent: int  # pixels of a side at level 0
    mpp: float  # micrometres a pixel at level 0
    tile_mpp: float  # micrometres a pixel of a tile
    tissue: Tissue

    def __len__(self) -> int:
        return len(self.coords)


def tile_grid(
    slide: Slide,
    *,
    tile: int = 256,
    tile_mpp: float = 0.5,
    overlap: float = 0.0,
    least_tissue: float = 0.25,
) -> Grid:
    """The tiles with enough tissue, row by row.

    tile: pixels of a side; tile_mpp: micrometres a pixel; overlap: share of a side that neighbours
    share; least_tissue: share of a tile that must be tissue. A tile with more than a tenth of pen
    marks is left out.

    Raises InputError for a slide without micrometres a pixel, too coarse, or damaged.
    """
    scale = slide.scale(tile_mpp)
    assert slide.mpp is not None
    extent = max(1, round(tile * scale))
    width, height = slide.size
    longest = min(THUMBNAIL, max(1, round(max(width, height) * slide.mpp / TISSUE_MPP)))
    picture, factor = slide.thumbnail(max(longest, min(512, max(width, height))))
    tissue = find_tissue(picture)
    step = max(1, round(extent * (1 - overlap)))
    xs = np.arange(0, max(width - extent, 0) + 1, step)
    ys = np.arange(0, max(height - extent, 0) + 1, step)
    x, y = (a.ravel() for a in np.meshgrid(xs, ys))
    inside = _mean(tissue.mask, x, y, extent, factor) >= max(least_tissue, 1e-9)
    inside &= _mean(tissue.pen, x, y, extent, factor) <= 0.1
    coords = np.stack([x[inside], y[inside]], 1).astype(np.int64)
    return Grid(coords, tile, extent, slide.mpp, tile_mpp, tissue)


def _mean(mask: np.ndarray, x: np.ndarray, y: np.ndarray, extent: int, factor: float) -> np.ndarray:
    """Mean of the mask over each tile, by its summed area table."""
    high, wide = mask.shape
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    table[1:, 1:] = mask.cumsum(0).cumsum(1)
    left = np.minimum(x / factor, wide - 1).astype(np.int64)
    top = np.minimum(y / factor, high - 1).astype(np.int64)
    right = np.maximum(np.minimum(np.ceil((x + extent) / factor), wide).astype(np.int64), left + 1)
    low = np.maximum(np.minimum(np.ceil((y + extent) / factor), high).astype(np.int64), top + 1)
    summed = table[low, right] - table[top, right] - table[low, left] + table[top, left]
    return summed / ((right - left) * (low - top))


class TileReader:
    """Batches of tiles in the order of the grid, read by threads a few batches ahead.

    OpenSlide, Pillow and libjpeg let go of Python's lock while they work, so threads share one open
    slide and its cache. `waited` counts the seconds that the consumer had to wait."""

    def __init__(
        self, slide: Slide, grid: Grid, *, batch: int = 64, threads: int = 2, ahead: int = 4
    ) -> None:
        self.slide, self.grid, self.batch, self.threads, self.ahead = (
            slide,
            grid,
            batch,
            max(1, threads),
            ahead,
        )
        self.waited = 0.0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields (rows (n,), tiles uint8 (n, tile, tile, 3), blank bool (n,)).

        Raises InputError where the slide is damaged.
        """
        starts = list(range(0, len(self.grid), self.batch))[::-1]
        waiting: deque[tuple[np.ndarray, np.ndarray, np.ndarray, list[Future[None]]]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="tiles") as pool:
            try:
                while starts or waiting:
                    while starts and len(waiting) < self.ahead:
                        first = starts.pop()
                        rows = np.arange(first, min(first + self.batch, len(self.grid)))
                        tiles = np.empty((len(rows), self.grid.tile, self.grid.tile, 3), np.uint8)
                        blank = np.empty(len(rows), bool)
                        piece = -(
                            -len(rows) // (4 * self.threads)
                        )  # small ones, so that no thread waits for another
                        pieces = [slice(k, k + piece) for k in range(0, len(rows), piece)]
                        futures = [
                            pool.submit(self._read, rows[p], tiles[p], blank[p]) for p in pieces
                        ]
                        waiting.append((rows, tiles, blank, futures))
                    rows, tiles, blank, futures = waiting.popleft()
                    began = time.perf_counter()
                    for future in futures:
                        future.result()
                    self.waited += time.perf_counter() - began
                    yield rows, tiles, blank
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, rows: np.ndarray, tiles: np.ndarray, blank: np.ndarray) -> None:
        size, extent = (self.grid.tile, self.grid.tile), (self.grid.extent, self.grid.extent)
        for (x, y), tile in zip(self.grid.coords[rows].tolist(), tiles):
            self.slide.read(x, y, extent, size, out=tile)
        blank[:] = is_blank(tiles)
