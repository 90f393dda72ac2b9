"""Random changes of features in training: blanked stretches and bands, another length of the vocal
tract.

Shapes: B recordings, F mel bands, T frames.
"""

import torch
from torch import Tensor

from ...data.formats.audio import RATE
from ...data.speech.log_mel import hertz_to_mel, mel_to_hertz
from .options import SpeechOptions

MOST_FRAMES, MOST_BANDS = 20, 12  # of a blanked stretch, of a blanked group of bands


def augment(features: Tensor, lengths: Tensor, options: SpeechOptions) -> Tensor:
    """Features (B, F, T) of recordings with lengths (B,) in frames, changed as the options say."""
    if options.warp_bands:
        features = warp(features, options.warp_bands)
    return blank(features, lengths, options.mask_time, options.mask_bands)


def blank(features: Tensor, lengths: Tensor, stretches: int, groups: int) -> Tensor:
    """Replace stretches of time and groups of bands by the mean of the recording (SpecAugment, Park
    et al., arXiv 1904.08779).
    """
    if not stretches and not groups:
        return features
    blanked = features.clone()
    bands = features.shape[1]
    for row, length in enumerate(lengths.tolist()):
        mean = features[row, :, :length].mean()
        for _ in range(stretches):
            first, size = _draw_span(MOST_FRAMES, length)
            blanked[row, :, first : first + size] = mean
        for _ in range(groups):
            first, size = _draw_span(MOST_BANDS, bands)
            blanked[row, first : first + size, :length] = mean
    return blanked


def _draw_span(most: int, length: int) -> tuple[int, int]:
    """Where a span of up to `most` of `length` places begins, and how many places it has."""
    size = int(torch.randint(0, most + 1, ()))
    return int(torch.randint(0, max(1, length - size), ())), size


def warp(features: Tensor, most: float) -> Tensor:
    """Multiply the frequencies of each recording by a random factor from 1 - most to 1 + most, as a
    longer or shorter vocal tract would (Jaitly and Hinton, 2013).
    """
    bands = features.shape[1]
    factor = 1 + most * (2 * torch.rand(len(features)) - 1)
    place = warped_bands(bands, factor).to(features)
    low = place.floor().clamp(max=max(0, bands - 2))
    share = (place - low)[..., None]
    index = low.long()[..., None].expand(-1, -1, features.shape[2])
    above = features.gather(1, (index + 1).clamp(max=bands - 1))
    return (1 - share) * features.gather(1, index) + share * above


def warped_bands(bands: int, factor: Tensor) -> Tensor:
    """Where, among the bands, the frequency lies that each band gets, (B, F), at most the last
    band; factor: (B,).
    """
    top = hertz_to_mel(torch.tensor(RATE / 2))
    spacing = top / (bands + 1)
    middle = mel_to_hertz(spacing * torch.arange(1, bands + 1))
    return (hertz_to_mel(middle / factor[:, None]) / spacing - 1).clamp(0, bands - 1)
