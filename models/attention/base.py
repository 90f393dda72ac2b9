"""What all mechanisms share: one signature, checks of shapes and masks, heads.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads, d width of a head.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.forms import Form, explain
from ..recomputation import is_recomputation
from .cache import Cache


class Attention(nn.Module):
    """Base of all mechanisms: `forward(x, context=None, *, mask=None) -> Tensor`.

    x: (B, N, D); context: (B, M, D), by default x; mask: bool, True = may attend: "keys" (B, M)
    over the tokens that are attended to, "pairs" (B, N, M), "heads" (B, H, N, M). A class declares
    what it takes:

    masks: the kinds of mask; crosses: whether it takes a context; extras: further keyword arguments
    of forward ("size", the (height, width) of the grid whose cells the tokens are, row by row;
    "static", the tokens before any layer; "cache", a `Cache` of earlier tokens); variants: sets of
    options that the contract test runs in addition to the defaults.

    An instance declares what may depend on its options. equivariant: whether permuting the tokens
    permutes the output; causal: whether token i is blind to all j > i; discrete: whether it makes
    choices that a small change can flip; straight_through: whether its gradients are by design not
    those of the function.

    An empty batch and a sequence without tokens give an empty result in any mechanism.

    A mechanism with its own loss leaves it in training by `leave_loss` (see `auxiliary_loss`).
    """

    masks: ClassVar[tuple[str, ...]] = ("keys",)
    crosses: ClassVar[bool] = True
    extras: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[tuple[dict, ...]] = ()

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise ValueError(f"{type(self).__name__}: {heads} heads do not divide width {width}")
        self.width = width
        self.heads = heads
        self.equivariant = True
        self.causal = False
        self.discrete = False
        self.straight_through = False
        self.auxiliary: Tensor | None = None
        self.loss_without_gradients = False

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "forward" in cls.__dict__:
            cls.forward = _guarded(cls.forward)

    def nothing(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        **_: object,
    ) -> Tensor:
        """What `forward` gives for x without any element: nothing, with gradients of 0.

        Raises ValueError if mask, cache or widths do not fit.
        """
        self.check(x, context, mask, cache)
        self.auxiliary = None
        # All weights take part, because a process whose part of a batch is empty needs gradients.
        weights = sum((weight.sum() for weight in self.parameters()), x.new_zeros(()))
        return x * weights.to(x.dtype)

    def new_cache(self, batch: int) -> Cache:
        """An empty memory of earlier tokens for `forward(x, cache=cache)`, for that many sequences.

        Raises ValueError for a mechanism that is not causal or whose tokens depend on later ones.
        """
        name = type(self).__name__
        self.refuse_cache()
        if not self.causal:
            raise ValueError(f"{name}: takes a cache only with causal=True")
        if batch < 0:
            raise ValueError(f"{name}: a cache needs the number of sequences, got {batch}")
        return Cache(self, batch)

    def refuse_cache(self) -> None:
        """Raises ValueError for a mechanism that takes no cache, whatever its options."""
        if "cache" not in self.extras:
            name = type(self).__name__
            raise ValueError(f"{name}: takes no cache, since it has no causal form")

    def check(
        self, x: Tensor, context: Tensor | None, mask: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        """The tokens that are attended to: the context, or x (with a cache, the new ones).

        Raises ValueError if shapes, types or the kind of mask do not fit, or the cache belongs to
        another layer or batch.
        """
        name = type(self).__name__
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise ValueError(f"{name}: needs (batch, tokens, {self.width}), got {tuple(x.shape)}")
        if context is not None and not self.crosses:
            raise ValueError(f"{name}: mixes tokens of one sequence only, takes no context")
        source = x if context is None else context
        if source.ndim != 3 or source.shape[-1] != self.width or source.shape[0] != x.shape[0]:
            raise ValueError(
                f"{name}: context must be ({x.shape[0]}, tokens, {self.width}), "
                f"got {tuple(source.shape)}"
            )
        if cache is not None:
            self._check_cache(x, context, cache)
        if mask is not None:
            self._check_mask(x, source, mask, 0 if cache is None else cache.tokens)
        return source

    def _check_cache(self, x: Tensor, context: Tensor | None, cache: Cache) -> None:
        name = type(self).__name__
        if cache.owner is not self:
            raise ValueError(f"{name}: this cache belongs to another layer; each needs its own")
        if context is not None:
            raise ValueError(f"{name}: a cache holds earlier tokens of x, so it takes no context")
        if cache.batch != x.shape[0]:
            raise ValueError(
                f"{name}: the cache is for {cache.batch} sequences, got {x.shape[0]} (see "
                "Cache.select)"
            )

    def _check_mask(self, x: Tensor, source: Tensor, mask: Tensor, past: int) -> None:
        name, (batch, tokens), keys = type(self).__name__, x.shape[:2], source.shape[1] + past
        shapes = {
            "keys": (batch, source.shape[1]),
            "pairs": (batch, tokens, keys),
            "heads": (batch, self.heads, tokens, keys),
        }
        fits = {kind: shapes[kind] for kind in self.masks}
        if mask.dtype != torch.bool:
            raise ValueError(f"{name}: mask must be bool, True = may attend, got {mask.dtype}")
        if tuple(mask.shape) not in fits.values():
            known = " or ".join(str(shape) for shape in fits.values())
            raise ValueError(f"{name}: mask must be {known}, got {tuple(mask.shape)}")

    def forms(self, x: Tensor) -> list[Form]:
        """Forms of the main operator for such an input, in the order they are tried."""
        return [Form("plain PyTorch")]

    def explain(self, x: Tensor) -> str:
        """Which form computes this mechanism for such an input, and why the others do not."""
        return explain(type(self).__name__, self.forms(x))

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights (B, H, N, M), for pictures and tests; takes N M memory.

        Raises ValueError for a mechanism that has none.
        """
        raise ValueError(f"{type(self).__name__} has no attention weights")

    def __getstate__(self) -> dict:
        # The loss belongs to a graph, which can be neither copied nor stored.
        return self.__dict__ | {"auxiliary": None}

    def extra_repr(self) -> str:
        return f"width={self.width}, heads={self.heads}"


def auxiliary_loss(model: nn.Module) -> Tensor | None:
    """Sum of the losses that mechanisms and routers left in their last forward pass in training.

    Returns None if there are none.

    Raises ValueError where gradients are asked for and a loss was computed without them, as
    activation checkpointing in its reentrant form does: it would be added and change nothing.
    """
    losses = []
    for name, part in model.named_modules():
        loss = getattr(part, "auxiliary", None)
        if not isinstance(loss, Tensor):
            continue
        if torch.is_grad_enabled() and getattr(part, "loss_without_gradients", False):
            raise ValueError(
                f"auxiliary_loss: the loss of {name or type(part).__name__} was computed without "
                "gradients; checkpoint the layer with use_reentrant=False, or, if no gradient is "
                "wanted, call this under torch.no_grad()"
            )
        losses.append(loss)
    return torch.stack(losses).sum() if losses else None


def _guarded(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What all mechanisms do alike before their own forward pass."""

    @functools.wraps(forward)
    def checked(
        self: Attention, x: Tensor, context: Tensor | None = None, **extras: object
    ) -> Tensor:
        if "cache" not in self.extras and extras.pop("cache", None) is not None:
            self.refuse_cache()
        if x.ndim == 3 and x.numel() == 0:
            return self.nothing(x, context, **extras)  # type: ignore[arg-type]
        return forward(self, x, context, **extras)

    return checked


class LeavesLoss(Protocol):
    """A layer with a loss of its own."""

    auxiliary: Tensor | None
    loss_without_gradients: bool


def leave_loss(layer: LeavesLoss, loss: Tensor | None) -> None:
    """Leave the loss of a forward pass where `auxiliary_loss` looks for it.

    Warns where the pass repeats one that had no gradients: whoever used that loss got none.
    """
    lost = layer.loss_without_gradients and torch.is_grad_enabled()
    if lost and not torch.compiler.is_compiling() and is_recomputation():
        warnings.warn(
            f"{type(layer).__name__}: its loss has no gradient under reentrant checkpointing; "
            "checkpoint the layer with use_reentrant=False",
            stacklevel=2,
        )
    layer.auxiliary = loss
    layer.loss_without_gradients = loss is not None and not torch.is_grad_enabled()


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, H d) -> (B, H, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def split_pair(x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values side by side (B, M, 2 H d) -> (B, H, M, d) each."""
    key, value = x.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return key, value


def join_heads(x: Tensor) -> Tensor:
    """(B, H, N, d) -> (B, N, H d)."""
    return x.transpose(1, 2).flatten(2)


def spread_mask(mask: Tensor | None) -> Tensor | None:
    """A mask of any kind as (B, 1 or H, 1 or N, M), which broadcasts over attention weights."""
    if mask is None or mask.ndim == 4:
        return mask
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]


def causal_mask(tokens: int, keys: int, device: torch.device) -> Tensor:
    """Bool (N, M): token i may attend to keys up to its own position; the last token is at the last
    key.
    """
    return torch.ones(tokens, keys, dtype=torch.bool, device=device).tril(keys - tokens)


def remembered_mask(cache: Cache | None, x: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask of any kind over all tokens so far, as (B, 1 or H, 1 or N, M), and counts the new
    tokens x (B, N, D); without a cache `spread_mask`.
    """
    if cache is None:
        return spread_mask(mask)
    of_keys = mask if mask is not None and mask.ndim == 2 else None
    past = spread_mask(cache.read(x.shape[1], of_keys, x.device))
    return past if of_keys is not None else joint_mask(past, spread_mask(mask))


def joint_mask(mask: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Where both masks allow; None allows everything."""
    if mask is None or second is None:
        return second if mask is None else mask
    return mask & second


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last dimension where mask is True; rows that may attend to nothing are 0,
    with 0 gradients.
    """
    if mask is None:
        return scores.softmax(-1)
    # The most negative finite number, not -inf: the softmax stays finite in value and gradient even
    # for a row of masked keys only, and the product with the mask makes that row 0.
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens of (B, N, D) where mask (B, N) is True; 0 without any."""
    if mask is None:
        return x.mean(1) if x.shape[1] else x.sum(1)
    counts = mask[..., None].to(x.dtype)
    return (x.masked_fill(~mask[..., None], 0.0)).sum(1) / counts.sum(1).clamp_min(1.0)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """PyTorch's fused attention for (B, H, N, d), keys and values (B, K, M, ·) with K dividing H.

    mask: bool, broadcasts to (B, H, N, M); bias: added to the scores, broadcasts in the same way. A
    row without any key is 0.
    """
    tokens, keys = query.shape[-2], key.shape[-2]
    grouped = bool(query.shape[1] != key.shape[1])
    if causal and tokens != keys and tokens == 1:
        causal = False  # the last token sees all keys
    if causal and (mask is not None or bias is not None or tokens != keys):
        mask, causal = joint_mask(mask, causal_mask(tokens, keys, query.device)), False
    if bias is not None:
        if mask is not None:
            bias = bias.masked_fill(~mask, -math.inf)
        mask = bias.to(query.dtype)
    size, wide = query.shape[-1], value.shape[-1]
    if query.is_cpu and size < wide:
        # The fused form of the CPU needs one width; zeros in queries and keys change no score.
        scale = size**-0.5 if scale is None else scale
        query, key = (F.pad(part, (0, wide - size)) for part in (query, key))
    elif query.is_cpu and size > wide:
        value = F.pad(value, (0, size - wide))
    out = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=grouped,
    )
    return out if out.shape[-1] == wide else out[..., :wide]


def grid_of(owner: str, tokens: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of a grid of that many tokens: size, or a square.

    owner: named by the error. Raises ValueError if the grid does not fit.
    """
    if size is None:
        side = math.isqrt(tokens)
        if side * side != tokens:
            raise ValueError(
                f"{owner}: {tokens} tokens do not form a square grid; give size=(height, width)"
            )
        return side, side
    if size[0] * size[1] != tokens:
        raise ValueError(f"{owner}: size {size[0]} x {size[1]} does not hold {tokens} tokens")
    return size


def to_image(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens (B, H W, C), row by row -> channels first (B, C, H, W)."""
    return x.transpose(1, 2).unflatten(2, size)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x.flatten(2).transpose(1, 2)
