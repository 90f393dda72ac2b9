"""Frozen vectors of texts beside their counted terms: what a text means, in any language that the
encoder knows.

Shapes: n texts, D width of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np

from ..engine.command_line.terminal import Progressbar
from ..engine.feature_cache import FeatureCache
from .encoders import OpenedEncoder, mean_vectors, open_encoder
from .linear import TABLE_SCALE

BATCH = 32
MOST_TOKENS = 128  # of a text that are encoded
LENGTH = 1 / TABLE_SCALE  # so that vectors count as much as counted terms, of length 1


class VectorFacts(TypedDict):
    """The encoder of the vectors, the mean of those of the training part, and their mean distance
    from it, by which they are scaled to a length of about 1.
    """

    weights: str
    centre: list[float]
    distance: float


def learn_vectors(name: str, texts: Sequence[str]) -> VectorFacts:
    """Mean and scale of the vectors of a training part."""
    values = text_vectors(name, texts)
    centre = values.mean(0)
    distance = float(np.linalg.norm(values - centre, axis=1).mean())
    return VectorFacts(weights=name, centre=centre.tolist(), distance=max(distance, 1e-6))


def vector_rows(facts: VectorFacts, texts: Sequence[str]) -> np.ndarray:
    """Vectors of texts about the mean of the training part, float32 (n, D)."""
    values = text_vectors(facts["weights"], texts)
    centred = (values - np.array(facts["centre"], np.float32)) / facts["distance"]
    return (LENGTH * centred).astype(np.float32)


def text_vectors(name: str, texts: Sequence[str]) -> np.ndarray:
    """The mean state of the tokens of each text, of length 1, float32 (n, D); of its first tokens.
    They are looked up where they were computed before.
    """
    opened = _opened(name)
    values = np.zeros((len(texts), opened.width), np.float32)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    bar = Progressbar(total=len(texts), unit="text", desc="vectors")
    with bar, FeatureCache() as stored:
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            keys = [_key(name, texts[row]) for row in rows]
            waiting: list[tuple[int, bytes]] = []
            for row, key in zip(rows, keys, strict=True):
                known = stored.get(key, opened.width)
                if known is None:
                    waiting.append((row, key))
                else:
                    values[row] = known
            if waiting:
                fresh = mean_vectors(opened, [texts[row] for row, _ in waiting], MOST_TOKENS)
                values[[row for row, _ in waiting]] = fresh
                stored.put([key for _, key in waiting], fresh)
            bar.update(len(rows))
    return values


@lru_cache(maxsize=1)
def _opened(name: str) -> OpenedEncoder:
    return open_encoder(name, option="--vectors")


def _key(name: str, text: str) -> bytes:
    content = f"{name} {MOST_TOKENS} {text}".encode(errors="surrogatepass")
    return hashlib.sha256(content).digest()[:16]
