"""Changes of features in training: blanked stretches and bands, another length of the vocal
tract.
"""

from typing import Any

import torch
from torch import Tensor

from ...data.formats.audio import RATE
from ...data.speech.log_mel import hertz_to_mel, mel_to_hertz


def augmented(features: Tensor, lengths: Tensor, options: Any) -> Tensor:
    """features: (B, F, T), lengths: (B,) frames -> the same shape, changed as the options say."""
    if options.warp_bands:
        features = warped(features, options.warp_bands)
    return masked(features, lengths, options.mask_time, options.mask_bands)


def masked(features: Tensor, lengths: Tensor, times: int, groups: int) -> Tensor:
    """Stretches of time and groups of bands blanked with the mean (SpecAugment, Park et al., arXiv
    1904.08779).
    """
    if not times and not groups:
        return features
    found = features.clone()
    batch, bands, _ = features.shape
    for row in range(batch):
        length = int(lengths[row])
        blank = features[row, :, :length].mean()
        for _ in range(times):
            size = int(torch.randint(0, 21, ()))
            at = int(torch.randint(0, max(1, length - size), ()))
            found[row, :, at : at + size] = blank
        for _ in range(groups):
            size = int(torch.randint(0, 13, ()))
            at = int(torch.randint(0, max(1, bands - size), ()))
            found[row, at : at + size, :length] = blank
    return found


def warped(features: Tensor, most: float) -> Tensor:
    """Each recording's frequencies multiplied by a factor drawn from 1 - most to 1 + most, as a
    longer or shorter vocal tract would (Jaitly and Hinton, 2013)."""
    bands = features.shape[1]
    factor = 1 + most * (2 * torch.rand(len(features)) - 1)
    place = warped_bands(bands, factor).to(features)
    low = place.floor().clamp(max=max(0, bands - 2))
    share = (place - low)[..., None]
    index = low.long()[..., None].expand(-1, -1, features.shape[2])
    above = features.gather(1, (index + 1).clamp(max=bands - 1))
    return (1 - share) * features.gather(1, index) + share * above


def warped_bands(bands: int, factor: Tensor) -> Tensor:
    """Where, among the bands, the frequency that each band gets now lies, (B, F), at most the last
    band.
    """
    top = hertz_to_mel(torch.tensor(RATE / 2))
    spacing = top / (bands + 1)
    middle = mel_to_hertz(spacing * torch.arange(1, bands + 1))
    return (hertz_to_mel(middle / factor[:, None]) / spacing - 1).clamp(0, bands - 1)
