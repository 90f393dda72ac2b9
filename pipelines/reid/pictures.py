"""Data sets of pictures: read at one size, with labels, and in batches of identities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...base.account import recount
from ...base.errors import InputError
from ...data.formats.pictures import read_picture
from ...data.items import digest, readable_rows
from ...data.persons.persons import PictureSet
from ..engine.command_line.terminal import Progressbar
from ..engine.subsets import BoundedCache
from ..engine.training.order import mix
from .sampling import count_batches, identity_batches

JUNK, DISTRACTOR = -1, 0
Size = tuple[int, int]


class PictureSource:
    """A set of pictures, read at one size (height, width) in pixels and kept in memory.

    whole: a source that has these pictures, and its row of each of them; its memory is used.
    """

    def __init__(
        self,
        pictures: PictureSet,
        size: Size,
        whole: tuple[PictureSource, Sequence[int]] | None = None,
    ) -> None:
        self.pictures, self.size, self._whole = pictures, size, whole
        self.cache = BoundedCache(self.read) if whole is None else BoundedCache(self.read, 0)

    def read(self, row: int) -> Tensor:
        """Read a picture from its file, uint8 (3, Y, X)."""
        if self._whole is not None:
            source, rows = self._whole
            return source.cache[rows[row]]
        return torch.from_numpy(read_picture(self.pictures.paths[row], self.size))

    def readable(self) -> PictureSource:
        """The source of the pictures that can be read; all are read for it, and are then in memory
        as far as they fit. The others go into the account.

        Raises InputError where too many cannot be read.
        """
        pictures, problems = self.pictures, dict[int, str]()
        with Progressbar(total=len(pictures), unit="picture", desc="read") as bar:
            for row in range(len(pictures)):
                try:
                    _ = self.cache[row]
                except InputError as error:
                    problems[row] = str(error)
                bar.update()
        rows = readable_rows("pictures", pictures.names, problems)
        if len(rows) == len(pictures):
            return self
        recount("read", "pictures", len(rows))
        return PictureSource(pictures.of(rows), self.size, (self, rows))

    def digests(self) -> list[str]:
        """What tells the contents of the pictures apart, the same for exact copies."""
        return [digest(self.cache[row].numpy()) for row in range(len(self.pictures))]


class Pictures:
    """Some pictures of a source with their labels; with conditions, a picture may be in it several
    times, once for each condition that it is compared under.

    rows: places in the source; labels and conditions: int64, all (n,).
    """

    triplet = False

    def __init__(
        self,
        source: PictureSource,
        rows: np.ndarray,
        labels: np.ndarray,
        conditions: np.ndarray | None = None,
    ) -> None:
        self.source = source
        self.rows, self.labels = np.asarray(rows, np.int64), np.asarray(labels, np.int64)
        self.conditions = np.zeros(len(self.rows), np.int64) if conditions is None else conditions
        self.cameras = _camera_codes(source.pictures.cameras, self.rows)
        parts = np.array([source.pictures.parts[row] for row in self.rows], dtype=object)
        # Without queries and a gallery, each picture is compared with all others.
        self.query = np.flatnonzero(parts == "query")
        self.gallery = np.flatnonzero(parts == "gallery")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "image": self.image(index),
            "label": torch.tensor(self.labels[index]),
            "condition": torch.tensor(self.conditions[index]),
            "camera": torch.tensor(-1 if self.cameras is None else int(self.cameras[index])),
            "triplet": torch.tensor(self.triplet),
            "index": torch.tensor(index),
        }

    def image(self, index: int) -> Tensor:
        """The picture of a sample, uint8 (3, Y, X)."""
        return self.source.cache[int(self.rows[index])]

    @property
    def ranked(self) -> bool:
        """Whether the data says which pictures are queries and which are the gallery."""
        return len(self.query) > 0 and len(self.gallery) > 0

    def names(self) -> list[str]:
        """The names of the pictures."""
        return [self.source.pictures.names[row] for row in self.rows]


class IdentityPictures(Pictures):
    """A training part that makes its own batches: identities, several pictures of each, of one
    condition."""

    triplet = True

    def __init__(
        self,
        source: PictureSource,
        rows: np.ndarray,
        labels: np.ndarray,
        conditions: np.ndarray | None = None,
        *,
        per_identity: int,
    ) -> None:
        super().__init__(source, rows, labels, conditions)
        self.per_identity = per_identity
        self.groups = [
            np.flatnonzero(self.conditions == condition) for condition in np.unique(self.conditions)
        ]

    def steps(self, batch_size: int) -> int:
        """Batches per epoch."""
        identities = batch_size // self.per_identity
        return sum(
            count_batches(self.labels[group], identities, self.per_identity)
            for group in self.groups
        )

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, each int64 (identities, pictures of each)."""
        generator = np.random.default_rng(mix(seed, epoch, 1))
        identities = batch_size // self.per_identity
        batches = [
            group[batch]
            for group in self.groups
            for batch in identity_batches(
                self.labels[group], identities, self.per_identity, generator
            )
        ]
        if len(self.groups) == 1:
            return batches
        return [batches[place] for place in generator.permutation(len(batches))]


def _camera_codes(cameras: Sequence[str] | None, rows: np.ndarray) -> np.ndarray | None:
    """A number for the camera of each row, (n,); None if the data names no cameras."""
    if cameras is None:
        return None
    return np.unique([cameras[row] for row in rows], return_inverse=True)[1].reshape(-1)
