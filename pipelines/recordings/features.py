"""Recordings as numbers: tokens for the model and statistics for simple ones, and how both are
standardised by speaker.

Shapes: N tokens of a recording, D width of a token, S statistics, T fixed tokens (1 for frames).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError, fail
from ...data.catalogue import DATASETS, get_dataset
from ...data.formats.audio import RATE
from ...data.items import digest
from ...data.speech.log_mel import FRAME_SECONDS, log_mel
from ...data.speech.manifests import Utterance
from ...data.speech.mfcc import COEFFICIENTS, clip_statistics, mfcc_with_changes
from ...models.speech.encoder import SpeechEncoder
from ...models.weights.whisper import read_whisper
from ..engine.feature_cache import FeatureCache

BANDS = 80  # of log-mel
LEAST_SECONDS = 0.05  # of a recording
ROUNDING = 0.1  # seconds by which a stretch may end behind its recording without a remark
SILENT = 1e-4  # loudest sample of a recording without sound: -80 dB
FULL_SCALE, CLIPPED = 0.999, 1e-3  # of a sample that is clipped, and the share of such samples
PRIOR_CLIPS = 2.0  # recordings that the moments of all speakers count as
LEAST_DEVIATION = 1e-6  # a feature that varies less is only centred


class Clip(NamedTuple):
    """A recording that was read. tokens: float32 (N, D); statistics: float32 (S,); remarks: what
    may be wrong with it; content: what tells its samples apart.
    """

    tokens: Tensor
    statistics: Tensor
    seconds: float
    remarks: tuple[str, ...]
    content: str


class Moments(NamedTuple):
    """Mean and deviation of tokens (T, D) and of statistics (S,), float32; clips: of how many
    recordings.
    """

    mean: Tensor
    deviation: Tensor
    statistics_mean: Tensor
    statistics_deviation: Tensor
    clips: float


class StoredMoments(TypedDict):
    """`Moments` as the spec holds them."""

    mean: list[list[float]]
    deviation: list[list[float]]
    statistics_mean: list[float]
    statistics_deviation: list[float]


class ClipReader:
    """Reads recordings as tokens and statistics.

    features: of the options; weights: of Whisper; seconds: the longest stretch that is used; cache:
    of layers; None: that of this user. Raises `InputError` for weights that cannot be read.
    """

    def __init__(
        self, features: str, weights: str, seconds: float, cache: FeatureCache | None = None
    ) -> None:
        self.features, self.seconds = features, seconds
        self.encoder: SpeechEncoder | None = None
        self.fingerprint, self.cache = "", cache
        self.is_fixed = features == "whisper-layers"
        if features.startswith("whisper"):
            self.encoder, self.fingerprint = open_encoder(weights)
            self.seconds = min(seconds, 2 * FRAME_SECONDS * len(self.encoder.positions))

    def __call__(self, utterance: Utterance) -> Clip:
        """Raises `InputError` for a recording that cannot be read, is silent or too short."""
        samples = utterance.samples()
        seconds = len(samples) / RATE
        if seconds < LEAST_SECONDS:
            raise fail(utterance.file, f"is {1000 * seconds:.0f} ms long, too short to classify")
        peak = float(np.abs(samples).max())
        if peak < SILENT:
            raise fail(utterance.file, "is silent")
        remarks = []
        if (np.abs(samples) >= FULL_SCALE).mean() > CLIPPED:
            remarks.append("clipped")
        if utterance.end is not None and utterance.end - utterance.start > seconds + ROUNDING:
            remarks.append("a stretch that ends behind its recording")
        content = digest(samples)
        longest = round(self.seconds * RATE)
        if len(samples) > longest:
            first = (len(samples) - longest) // 2
            samples = samples[first : first + longest]
            remarks.append(f"cut to its middle {self.seconds:g} s")
        tokens = self.tokens(samples)
        statistics = torch.from_numpy(clip_statistics(samples))
        return Clip(tokens, statistics, seconds, tuple(remarks), content)

    @torch.no_grad()
    def tokens(self, samples: np.ndarray) -> Tensor:
        """float32 (N, D)."""
        if self.features == "mfcc":
            return torch.from_numpy(np.ascontiguousarray(mfcc_with_changes(samples).T))
        if self.encoder is None:
            return log_mel(samples, BANDS).T.contiguous()
        if self.features == "whisper-frames":
            states, _ = self.encoder(self._heard(samples))
            return states[0]
        return self._layers(samples, self.encoder)

    def _heard(self, samples: np.ndarray) -> Tensor:
        assert self.encoder is not None
        return log_mel(samples, self.encoder.conv1.in_channels)[None]

    def _layers(self, samples: np.ndarray, encoder: SpeechEncoder) -> Tensor:
        """The mean over time of each layer; kept on disk by the content of the samples."""
        shape = len(encoder.layers) + 1, encoder.conv1.out_channels
        key = hashlib.sha256(f"{self.fingerprint} layers {digest(samples)}".encode()).digest()[:16]
        known = None if self.cache is None else self.cache.get(key, shape[0] * shape[1])
        if known is not None:
            return torch.from_numpy(known).view(shape)
        layers = encoder.layer_states(self._heard(samples))[:, 0].mean(1)
        if self.cache is not None:
            self.cache.put([key], layers.reshape(1, -1).numpy())
        return layers

    @property
    def width(self) -> int:
        """D."""
        if self.encoder is not None:
            return self.encoder.conv1.out_channels
        return 3 * COEFFICIENTS if self.features == "mfcc" else BANDS


@lru_cache(maxsize=1)
def open_encoder(weights: str) -> tuple[SpeechEncoder, str]:
    """Whisper's encoder, and what tells its weights from others.

    Raises `InputError` for weights that cannot be read.
    """
    if not Path(weights).exists():
        names = [dataset.name for dataset in DATASETS if dataset.name.startswith("whisper")]
        if weights not in names:
            known = ", ".join(names)
            raise InputError(f"--weights {weights}: there is no such file or folder, nor {known}")
    path = Path(weights) if Path(weights).exists() else get_dataset(weights)
    try:
        pretrained = read_whisper(path)
    except ValueError as error:
        raise InputError(str(error)) from None
    sizes = pretrained.options
    encoder = SpeechEncoder(
        sizes["features"],
        sizes["width"],
        heads=sizes["heads"],
        depth=sizes["encoder_layers"],
        positions=sizes["audio_positions"],
    )
    state = {
        name.removeprefix("encoder."): value
        for name, value in pretrained.state.items()
        if name.startswith("encoder.")
    }
    encoder.load_state_dict(state)
    mark = digest(*(state[name].numpy() for name in sorted(state)))
    return encoder.eval().requires_grad_(False), mark


def moments_of(clips: Iterable[Clip], *, is_fixed: bool) -> Moments:
    """Over recordings, and over their frames unless the number of tokens is fixed."""
    sums: list[Tensor] = []
    count = clip_count = 0
    for clip in clips:
        x, s = clip.tokens.double(), clip.statistics.double()
        parts = [x, x.square()] if is_fixed else [x.sum(0)[None], x.square().sum(0)[None]]
        parts += [s, s.square()]
        sums = parts if not sums else [a + b for a, b in zip(sums, parts, strict=True)]
        count += 1 if is_fixed else len(x)
        clip_count += 1
    mean, statistics_mean = sums[0] / count, sums[2] / clip_count
    deviation = (sums[1] / count - mean.square()).clamp_min(0).sqrt()
    spread = (sums[3] / clip_count - statistics_mean.square()).clamp_min(0).sqrt()
    return Moments(mean, deviation, statistics_mean, spread, clip_count)


def drawn_towards(moments: Moments, prior: Moments) -> Moments:
    """The moments of a speaker, to which `PRIOR_CLIPS` recordings with those of all are added."""
    weight = moments.clips / (moments.clips + PRIOR_CLIPS)

    def joined(m: Tensor, d: Tensor, m0: Tensor, d0: Tensor) -> tuple[Tensor, Tensor]:
        mean = weight * m + (1 - weight) * m0
        square = weight * (d.square() + m.square()) + (1 - weight) * (d0.square() + m0.square())
        return mean, (square - mean.square()).clamp_min(0).sqrt()

    tokens = joined(moments.mean, moments.deviation, prior.mean, prior.deviation)
    statistics = joined(moments[2], moments[3], prior[2], prior[3])
    return Moments(*tokens, *statistics, moments.clips)


def standardised(clip: Clip, moments: Moments) -> Clip:
    """A recording whose tokens and statistics have these moments taken off."""
    tokens = (clip.tokens - moments.mean) / usable(moments.deviation, moments.mean)
    spread = usable(moments.statistics_deviation, moments.statistics_mean)
    statistics = (clip.statistics - moments.statistics_mean) / spread
    return clip._replace(tokens=tokens.float(), statistics=statistics.float())


def usable(deviation: Tensor, mean: Tensor) -> Tensor:
    """Deviations to divide by: 1 of a feature that hardly varies, which is only centred."""
    return torch.where(deviation < LEAST_DEVIATION * (1 + mean.abs()), 1.0, deviation)


def stored(moments: Moments) -> StoredMoments:
    """As the spec holds them."""
    mean, deviation, statistics_mean, statistics_deviation = (
        value.float().tolist() for value in moments[:4]
    )
    return StoredMoments(
        mean=mean,
        deviation=deviation,
        statistics_mean=statistics_mean,
        statistics_deviation=statistics_deviation,
    )


def opened(values: StoredMoments) -> Moments:
    """The moments that a spec holds."""
    names = ("mean", "deviation", "statistics_mean", "statistics_deviation")
    return Moments(*(torch.tensor(values[name]) for name in names), clips=0.0)
