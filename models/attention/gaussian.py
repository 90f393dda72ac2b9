"""Gaussian adaptive attention: elements are weighted by their place in their own distribution,
without a query.

Shapes: B batch, N tokens, D width, H heads, K Gaussians of a head, L elements of a chunk (along
tokens or features).
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..checks import check_positive
from .base import Attention


class GaussianAdaptiveAttention(Attention):
    """out = x * w with w a softmax of Gaussian log-densities of standardised elements (GAAM, arXiv
    2401.11143).

        z = (x - mean) / sqrt(var + eps) along the axis
        log g_k = -((z - o_k / sqrt(var + eps)) / c_k)^2 / 2 - log c_k
        product: w = softmax(sum_k log g_k);   mixture: w = softmax(logsumexp_k log g_k)

    Cost: O(N D K). There are no weights between tokens: a token reaches the others only through
    mean, variance and the sum of the softmax.

    width: D; heads: H, which divide the features, each with its own Gaussians (offsets o start at
    0, deviations c at exp of a normal draw); gaussians: K; axis: "tokens" weights each feature
    along the sequence, "features" each token along the features of a head; mode: "product" is the
    published code, whose product of K Gaussians is exactly one Gaussian, whatever K; "mixture"
    (default) sums them, as the paper's text says. gain: out is multiplied by the number of elements
    of the chunk, so that uniform weights leave x as it is; the published layer divides x by that
    number and adds it to x (`gain=False` for that).

    scales: whether offsets and deviations are those of a "head" or of each "feature" of it;
    normalised: False leaves out the softmax, so that w = prod_k exp(-((z - o_k / sqrt(var + eps)) /
    c_k)^2 / 2), at most 1, and `gain` has no meaning. Together, with one Gaussian, they are the
    authors' Algorithm 1, out = x exp(-(x - mean - o)^2 / (2 c (var + eps))) with the offsets of 0
    and c of 2 that it begins with.

    Readings: the variance is the unbiased one, as published; in a chunk of a single element, where
    it would be 0/0, z is 0 and the weight 1. Masked tokens enter neither mean nor variance nor the
    sum. eps is inside the root.
    """

    crosses: ClassVar[bool] = False
    variants: ClassVar[tuple[dict, ...]] = (
        {"axis": "features"},
        {"mode": "product"},
        {"gaussians": 1},
        {"gain": False},
        {"heads": 16, "axis": "features"},
        {"scales": "feature", "normalised": False, "gaussians": 1, "mode": "product"},
        {"scales": "feature", "axis": "features"},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        gaussians: int = 4,
        axis: Literal["tokens", "features"] = "tokens",
        mode: Literal["mixture", "product"] = "mixture",
        gain: bool = True,
        scales: Literal["head", "feature"] = "head",
        normalised: bool = True,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(width, heads)
        if gaussians < 1:
            raise ValueError(
                f"GaussianAdaptiveAttention: needs at least one Gaussian, got {gaussians}"
            )
        if axis not in ("tokens", "features") or mode not in ("mixture", "product"):
            raise ValueError(
                "GaussianAdaptiveAttention: axis is 'tokens' or 'features', mode 'mixture' or "
                f"'product', got {axis!r} and {mode!r}"
            )
        if scales not in ("head", "feature") or not (normalised or mode == "product"):
            raise ValueError(
                "GaussianAdaptiveAttention: scales is 'head' or 'feature', and only mode 'product' "
                f"has a form that is not normalised, got {scales!r} and {mode!r}"
            )
        check_positive("GaussianAdaptiveAttention", "eps", eps)
        self.along_tokens = axis == "tokens"
        self.product = mode == "product"
        self.gain = gain and normalised
        self.normalised = normalised
        self.eps = eps
        if scales == "head":
            self.offset = nn.Parameter(torch.zeros(heads, gaussians))
            self.log_scale = nn.Parameter(torch.randn(heads, gaussians))
        else:
            shape = (heads, gaussians, width // heads)
            self.offset = nn.Parameter(torch.zeros(shape))
            self.log_scale = nn.Parameter(torch.full(shape, math.log(2) / 2))

    def importance(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """The importance factors: weights (B, N, D) that sum to 1 along the axis (those that are
        not normalised are at most 1 each), 0 for masked tokens.

        The paper's equation 9 averages them over the batch or the layers to tell which features a
        model uses.
        """
        self.check(x, None, mask)
        kind = torch.promote_types(x.dtype, torch.float32)
        parts = x.to(kind).unflatten(-1, (self.heads, -1))  # (B, N, H, D / H)
        axis = 1 if self.along_tokens else 3
        present = None if mask is None else mask[:, :, None, None]
        mean, deviation = self._moments(parts, axis, present)
        z = (parts - mean) / deviation
        logits = self._one_gaussian(z, deviation) if self.product else self._densities(z, deviation)
        if not self.normalised:
            weights = (logits + self._peak(deviation)).exp()
            weights = weights if present is None else weights * present
            return weights.flatten(2).to(x.dtype)
        if present is not None:
            logits = logits.masked_fill(~present, torch.finfo(kind).min)
        weights = logits.softmax(axis)
        if present is not None:
            weights = weights * present
        return weights.flatten(2).to(x.dtype)

    def _one_gaussian(self, z: Tensor, deviation: Tensor) -> Tensor:
        """Logarithm of the product of the K densities, up to a constant of the chunk: one
        parabola.
        """
        shape = (1, 1, self.heads, -1)
        precision = (-2 * self.log_scale.to(z.dtype)).exp()
        pull = (self.offset.to(z.dtype) * precision).sum(1).view(shape) / deviation
        return z * (pull - 0.5 * precision.sum(1).view(shape) * z)

    def _peak(self, deviation: Tensor) -> Tensor:
        """The constant that `_one_gaussian` leaves out, without that of the densities: with it, the
        product is of K Gaussians of height 1.
        """
        precision = (-2 * self.log_scale.to(deviation.dtype)).exp()
        squares = (self.offset.to(deviation.dtype).square() * precision).sum(1)
        return -0.5 * squares.view(1, 1, self.heads, -1) / deviation.square()

    def _densities(self, z: Tensor, deviation: Tensor) -> Tensor:
        """Logarithm of the sum of the K densities."""
        scale, offset = (self._last(p).to(z.dtype) for p in (self.log_scale, self.offset))
        away = (z[..., None] - (offset / deviation[..., None])) / scale.exp()
        return (-0.5 * away.square() - scale).logsumexp(-1)

    def _last(self, parameter: Tensor) -> Tensor:
        """A parameter (H, K) or (H, K, D / H) as (1, 1, H, 1 or D / H, K)."""
        of_features = parameter[..., None] if parameter.ndim == 2 else parameter
        return of_features.transpose(1, 2)[None, None]

    def _moments(self, parts: Tensor, axis: int, present: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation along the axis; the deviation of a single element is 1."""
        if present is None or axis == 3:
            count = parts.new_full((), parts.shape[axis])
            mean = parts.mean(axis, keepdim=True)
            squares = (parts - mean).square()
        else:
            count = present.sum(axis, keepdim=True).to(parts.dtype)
            mean = parts.masked_fill(~present, 0.0).sum(axis, keepdim=True) / count.clamp_min(1.0)
            squares = (parts - mean).square().masked_fill(~present, 0.0)
        variance = squares.sum(axis, keepdim=True) / (count - 1.0).clamp_min(1.0)
        return mean, torch.where(count > 1.0, variance + self.eps, torch.ones_like(variance)).sqrt()

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D), mask: bool (B, N), True = a token -> (B, N, D); masked tokens give 0.

        Raises ValueError if shapes do not fit or a context is given.
        """
        self.check(x, context, mask)
        weights = self.importance(x, mask=mask)
        if not self.gain:
            return x * weights
        if not self.along_tokens:
            return x * weights * (self.width // self.heads)
        count = (
            x.new_full((1, 1, 1), x.shape[1])
            if mask is None
            else mask.sum(1)[:, None, None].to(x.dtype)
        )
        return x * (weights * count)
