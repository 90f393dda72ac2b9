"""Tiles of a slide: a grid over the tissue at a target resolution, read ahead by threads."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .slides import Slide
from .tissue import Tissue, find_tissue, is_blank

THUMBNAIL = 2048  # longest side of the picture in which tissue is looked for, pixels
TISSUE_MPP = 8.0  # its micrometres per pixel, where the slide is small enough


@dataclass(frozen=True)
class Grid:
    """Tiles of one slide."""

    coords: np.ndarray  # int64 (N, 2), x and y of the upper left corner at level 0
    tile: int  # side of a tile as the encoder sees it, pixels
    extent: int  # side of a tile at level 0, pixels
    mpp: float  # micrometres per pixel at level 0
    tile_mpp: float  # micrometres per pixel of a tile
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
    """The tiles with enough tissue, row by row. The last column and row reach beyond a slide whose
    size is no multiple of a tile; what lies beyond it is white, and no tissue.

    tile: side in pixels; tile_mpp: micrometres per pixel; overlap: share of a side that neighbours
    have in common; least_tissue: share of a tile that must be tissue. Tiles of which more than a
    tenth is pen marks are left out.

    Raises `InputError` for a slide of unknown resolution, too coarse, or damaged.
    """
    scale = slide.scale(tile_mpp)
    assert slide.mpp is not None
    extent = max(1, round(tile * scale))
    width, height = slide.size
    longest = min(THUMBNAIL, max(1, round(max(width, height) * slide.mpp / TISSUE_MPP)))
    picture, factor = slide.thumbnail(max(longest, min(512, max(width, height))))
    tissue = find_tissue(picture)
    step = max(1, round(extent * (1 - overlap)))
    xs, ys = _starts(width, extent, step), _starts(height, extent, step)
    x, y = (a.ravel() for a in np.meshgrid(xs, ys))
    share = _mean(tissue.mask, x, y, extent, factor)
    share *= _covered(x, width, extent) * _covered(y, height, extent)
    inside = share >= max(least_tissue, 1e-9)
    inside &= _mean(tissue.pen, x, y, extent, factor) <= 0.1
    coords = np.stack([x[inside], y[inside]], 1).astype(np.int64)
    return Grid(coords, tile, extent, slide.mpp, tile_mpp, tissue)


def _starts(size: int, extent: int, step: int) -> np.ndarray:
    """Where tiles begin along a side, so that the last of them reaches its end."""
    return np.arange(1 + max(0, -(-(size - extent) // step))) * step


def _covered(start: np.ndarray, size: int, extent: int) -> np.ndarray:
    """The share of each tile that lies on the slide, along one side; 1 for the first tile, which
    may be larger than the slide.
    """
    return np.where(start > 0, np.minimum(size - start, extent) / extent, 1.0)


def _mean(mask: np.ndarray, x: np.ndarray, y: np.ndarray, extent: int, factor: float) -> np.ndarray:
    """Mean of the mask (bool, h, w) over each tile, from its summed-area table."""
    height, width = mask.shape
    table = np.zeros((height + 1, width + 1))
    table[1:, 1:] = mask.cumsum(0).cumsum(1)
    x0 = np.minimum(x / factor, width - 1).astype(np.int64)
    y0 = np.minimum(y / factor, height - 1).astype(np.int64)
    x1 = np.maximum(np.minimum(np.ceil((x + extent) / factor), width).astype(np.int64), x0 + 1)
    y1 = np.maximum(np.minimum(np.ceil((y + extent) / factor), height).astype(np.int64), y0 + 1)
    total = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
    return total / ((x1 - x0) * (y1 - y0))


_Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class TileReader:
    """Batches of tiles in the order of the grid, read by threads a few batches ahead.

    OpenSlide, Pillow and libjpeg release Python's global lock while they work, so the threads share
    one open slide and its cache. `waited` counts the seconds that the consumer had to wait.
    """

    def __init__(
        self, slide: Slide, grid: Grid, *, batch: int = 64, threads: int = 2, ahead: int = 4
    ) -> None:
        self.slide, self.grid, self.batch = slide, grid, batch
        self.threads, self.ahead = max(1, threads), ahead
        self.waited = 0.0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (rows (n,), tiles uint8 (n, tile, tile, 3), blank bool (n,)).

        Raises `InputError` where the slide is damaged.
        """
        starts = deque(range(0, len(self.grid), self.batch))
        waiting: deque[tuple[_Batch, list[Future[None]]]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="tiles") as pool:
            try:
                while starts or waiting:
                    while starts and len(waiting) < self.ahead:
                        waiting.append(self._submit(pool, starts.popleft()))
                    batch, futures = waiting.popleft()
                    began = time.perf_counter()
                    for future in futures:
                        future.result()
                    self.waited += time.perf_counter() - began
                    yield batch
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, first: int) -> tuple[_Batch, list[Future[None]]]:
        """Start reading the batch that begins with tile `first`, in small pieces, so that no thread
        waits for another.
        """
        rows = np.arange(first, min(first + self.batch, len(self.grid)))
        tiles = np.empty((len(rows), self.grid.tile, self.grid.tile, 3), np.uint8)
        blank = np.empty(len(rows), bool)
        size = -(-len(rows) // (4 * self.threads))
        pieces = [slice(k, k + size) for k in range(0, len(rows), size)]
        futures = [pool.submit(self._read, rows[p], tiles[p], blank[p]) for p in pieces]
        return (rows, tiles, blank), futures

    def _read(self, rows: np.ndarray, tiles: np.ndarray, blank: np.ndarray) -> None:
        size, extent = (self.grid.tile, self.grid.tile), (self.grid.extent, self.grid.extent)
        for (x, y), tile in zip(self.grid.coords[rows].tolist(), tiles):
            self.slide.read(x, y, extent, size, out=tile)
        blank[:] = is_blank(tiles)
