"""Vision transformers of timm with access to all blocks: queries and keys to read, attention to
swap, pairs of pictures to attend to.

Shapes: B batch, N tokens (prefix tokens, the class token first, then patches row by row), D width,
H heads, d = D / H.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import one_line
from ...kernels.attention_stats import rollout_row
from ...kernels.pair_attention import pair_attention
from ..attention import build_attention, has_feature
from ..attention.base import Attention, join_heads, split_heads
from ..weights.adopted import Normalisation, for_normalisation
from .blocks import NetworkKind, build_feedforward
from .encoders import not_made, read_weights, require_timm
from .tuning import TunedBackbone

SCRATCH = "scratch"
BLOCK_PARTS = ("norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2")
ATTENTION_PARTS = ("qkv", "q_norm", "k_norm", "attn_drop", "norm", "proj", "proj_drop")
Size = tuple[int, int]
Read = tuple[Tensor, Tensor] | Tensor


class Trunk(TunedBackbone):
    """The blocks of a vision transformer.

    model: a `timm.models.vision_transformer.VisionTransformer` with a class token and plain blocks.
    attention and ffn put another mechanism of the core (any that takes a sequence of tokens, with
    `attention_options`) or another feed-forward network into all blocks.

    width: D; size: (rows, columns) of patches; prefix: tokens before the patches; is_own: whether
    the blocks have the attention that they were made with; plain: whether
    the blocks have queries and keys of softmax attention; readable: whether there are attention
    weights to read, theirs or those of the mechanism; pairable: whether tokens can attend to
    another picture, too. Raises ValueError for a model that is built differently.
    """

    def __init__(
        self,
        model: Any,
        *,
        attention: str = "softmax",
        attention_options: Mapping[str, object] | None = None,
        ffn: NetworkKind = "mlp",
        moe: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name in ("blocks", "patch_embed", "cls_token", "norm"):
            if getattr(model, name, None) is None:
                raise ValueError(
                    f"{type(model).__name__} has no {name}; it needs a ViT or DeiT with class token"
                )
        self.model: Any = model
        self.width = int(model.embed_dim)
        self.prefix = int(model.num_prefix_tokens)
        self.size: Size = tuple(model.patch_embed.grid_size)
        heads = int(model.blocks[0].attn.num_heads)
        self.heads = heads
        self.mixer = attention
        self.mixer_options = dict(attention_options or {})
        self.is_own = attention == "softmax" and not self.mixer_options
        for block in model.blocks:
            if not all(hasattr(block, part) for part in BLOCK_PARTS):
                raise ValueError(
                    f"{type(model).__name__}: a {type(block).__name__} is no plain pre-norm block"
                )
            if not self.is_own:
                block.attn = build_attention(attention, self.width, heads, **self.mixer_options)
            if ffn != "mlp":
                hidden = int(block.mlp.fc1.out_features)
                block.mlp = build_feedforward(ffn, self.width, hidden, moe=moe)
        self.plain = self.is_own and all(_is_plain(block.attn) for block in model.blocks)
        self.readable = self.plain if self.is_own else has_feature(attention, "weights")
        self.pairable = self.plain if self.is_own else has_feature(attention, "context")

    def another_mixer(self) -> Attention | None:
        """One more mechanism such as the blocks have, for a layer behind them; None for timm's own
        attention.
        """
        if self.is_own:
            return None
        return build_attention(self.mixer, self.width, self.heads, **self.mixer_options)

    @property
    def blocks(self) -> Any:  # ModuleList of timm's blocks, whose parts it does not type
        """The transformer's blocks, first to last."""
        return self.model.blocks

    def last_stage(self) -> list[nn.Module]:
        """The last sixth of the blocks, and the norm after them."""
        return [*self.blocks[-max(1, len(self.blocks) // 6) :], self.model.norm]

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, Y, X) -> tokens with their positions (B, N, D)."""
        return self.model.norm_pre(self.model._pos_embed(self.model.patch_embed(images)))

    def norm(self, x: Tensor) -> Tensor:
        """The norm after the last block."""
        return self.model.norm(x)

    def forward(self, images: Tensor, *, read: bool = False) -> tuple[Tensor, list[Read]]:
        """Tokens after the last block, not yet normalised (B, N, D), and with `read` what
        `rollout_of` needs of all blocks, without gradients: (query, key), each (B, H, N, d), or the
        weights (B, N, N) of a mechanism, means over its heads.
        """
        x = self.embed(images)
        static = x
        reads: list[Read] = []
        for block in self.blocks:
            if self.plain:
                query, key, value = qkv(block.attn, block.norm1(x))
                dropout = block.attn.attn_drop.p if self.training else 0.0
                mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
                x = _after_attention(block, x, mixed)
                if read:
                    reads.append((query.detach(), key.detach()))
                continue
            tokens, extras = block.norm1(x), self._extras(block, static)
            if read and self.readable:
                with torch.no_grad():
                    reads.append(block.attn.weights(tokens, **extras).mean(1))
            x = _after_mixer(block, x, block.attn(tokens, **extras))
        return x, reads

    def _extras(self, block: Any, static: Tensor) -> dict[str, Tensor]:
        """What a mechanism takes besides the tokens: those before the first block, if it names
        them.
        """
        return {"static": static} if "static" in getattr(block.attn, "extras", ()) else {}

    def pairs(self, images: Tensor, partner: Tensor) -> Tensor:
        """The same blocks with the keys and values of two pictures in each softmax (PWCA of DCAL,
        arXiv 2205.02151, equation 5) -> (B, N, D), not yet normalised.

        partner: int64 (B,), a permutation: the other picture of each.
        """
        x = self.embed(images)
        for block in self.blocks:
            if not self.plain:
                tokens = block.norm1(x)
                both = torch.cat([tokens, tokens[partner]], 1)
                x = _after_mixer(block, x, block.attn(tokens, both))
                continue
            query, key, value = qkv(block.attn, block.norm1(x))
            x = _after_attention(block, x, pair_attention(query, key, value, partner))
        return x


def qkv(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, H, N, d) of timm's attention for normalised tokens (B, N, D)."""
    query, key, value = (split_heads(part, attn.num_heads) for part in attn.qkv(x).chunk(3, -1))
    return attn.q_norm(query), attn.k_norm(key), value


def _after_attention(block: Any, x: Tensor, mixed: Tensor) -> Tensor:
    """The block after its attention: projection, residual, feed-forward network."""
    attn = block.attn
    out = attn.proj_drop(attn.proj(attn.norm(join_heads(mixed))))
    x = x + block.drop_path1(block.ls1(out))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def _after_mixer(block: Any, x: Tensor, mixed: Tensor) -> Tensor:
    """The block after a mechanism of the core: residual, feed-forward network."""
    x = x + block.drop_path1(block.ls1(mixed))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def rollout_of(reads: Sequence[Read]) -> Tensor:
    """The class token's row of attention rollout (B, N), of what `Trunk` read of its blocks, first
    to last; see `rollout_row`.

    Weights of a mechanism that are negative count as 0, and rows are made to sum to 1, which
    changes nothing of those that are shares.
    """
    pairs = [read for read in reads if isinstance(read, tuple)]
    if pairs:
        return rollout_row(pairs)
    matrices = [read.clamp_min(0) for read in reads if isinstance(read, Tensor)]
    shares = [weights / weights.sum(-1, keepdim=True).clamp_min(1e-12) for weights in matrices]
    row = torch.zeros_like(shares[0][:, 0])
    row[:, 0] = 1.0
    for weights in reversed(shares):
        row = 0.5 * (row[:, None] @ weights)[:, 0] + 0.5 * row
    return row


def _is_plain(attn: Any) -> bool:
    has_parts = all(hasattr(attn, part) for part in ATTENTION_PARTS)
    return has_parts and getattr(attn, "gate", None) is None


def build_trunk(
    name: str,
    *,
    image: Size,
    weights: str = "pretrained",
    patch: int = 16,
    width: int = 192,
    depth: int = 6,
    heads: int = 3,
    drop_path: float = 0.0,
    attention: str = "softmax",
    attention_options: Mapping[str, object] | None = None,
    ffn: NetworkKind = "mlp",
    normalised_by: Normalisation | None = None,
) -> Trunk:
    """A trunk for pictures of image = (height, width) pixels.

    name: "scratch", a ViT without pretrained weights with this patch, width, depth and heads, or a
    ViT or DeiT of timm, which has its own sizes. weights (of timm's): "pretrained" (timm downloads
    them once), "random", or a file, safetensors or a state dict that torch reads without unpickling
    code; position embeddings are resized to the picture's grid. normalised_by: mean and deviation
    of the colours by which the caller normalises pictures; weights of a file that says another one
    are changed for it. attention, attention_options, ffn: of `Trunk`.

    Raises ValueError for an unknown name, weights that are missing or do not fit, and pictures that
    are no multiple of the patch.
    """
    if name == SCRATCH:
        model = _scratch_model(image, patch, width, depth, heads, drop_path)
    else:
        model = _timm_model(name, image, weights, drop_path)
        if weights not in ("pretrained", "random"):
            _load(model, name, weights, normalised_by)
    moe = {"experts": 8, "active": 2} if ffn == "moe" else None
    return Trunk(model, attention=attention, attention_options=attention_options, ffn=ffn, moe=moe)


def _check_grid(image: Size, patch: Size) -> None:
    if image[0] % patch[0] or image[1] % patch[1]:
        near = [max(1, round(side / step)) * step for side, step in zip(image, patch, strict=True)]
        raise ValueError(
            f"patches of {patch[0]} pixels do not fill a picture of {image[0]} x {image[1]}; "
            f"{near[0]} x {near[1]} would do"
        )


def _scratch_model(
    image: Size, patch: int, width: int, depth: int, heads: int, drop_path: float
) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    _check_grid(image, (patch, patch))
    if width % heads:
        raise ValueError(f"{heads} heads do not divide width {width}")
    return VisionTransformer(
        img_size=image,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        drop_path_rate=drop_path,
        global_pool="token",
    )


def _timm_model(name: str, image: Size, weights: str, drop_path: float) -> nn.Module:
    import timm

    require_timm(name, f"backbone {name!r}")
    try:
        model = timm.create_model(
            name,
            pretrained=weights == "pretrained",
            num_classes=0,
            img_size=image,
            drop_path_rate=drop_path,
        )
    except TypeError:
        raise ValueError(
            f"backbone {name!r} takes no size of picture; give a ViT or DeiT"
        ) from None
    except Exception as error:  # of the network, the hub, or timm
        raise not_made(f"backbone {name!r}", error) from None
    _check_grid(image, getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1)))
    return model


def _load(model: Any, name: str, file: str, normalised_by: Normalisation | None) -> None:
    """Load the weights of a file into a model of timm, without those of a classifier."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = for_normalisation(read_weights(Path(file)), file, normalised_by)
    classifier = ("head.", "head_dist.", "fc_norm.")
    state = {key: value for key, value in state.items() if not key.startswith(classifier)}
    try:
        model.load_state_dict(checkpoint_filter_fn(_with_resized_positions(state, model), model))
    except (RuntimeError, KeyError, AttributeError) as error:
        why = one_line(error)[:160]
        raise ValueError(f"{file}: weights of another model than {name!r} ({why})") from None


def _with_resized_positions(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """Positions of pictures that were not square, resized to the model's grid; timm resizes those
    of squares.

    A file does not contain its grid: it is taken for the one with the proportions closest to the
    model's.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed

    positions, grid = state.get("pos_embed"), model.patch_embed.grid_size
    if not isinstance(positions, Tensor) or positions.ndim != 3:
        return state
    if positions.shape == model.pos_embed.shape:
        return state
    prefix = model.num_prefix_tokens
    patches = positions.shape[1] - prefix
    if patches < 2 or math.isqrt(patches) ** 2 == patches:
        return state
    rows = min(
        (k for k in range(1, patches + 1) if patches % k == 0),
        key=lambda k: abs(math.log(k * k / patches) - math.log(grid[0] / grid[1])),
    )
    old_grid = [rows, patches // rows]
    resized = resample_abs_pos_embed(positions, list(grid), old_grid, num_prefix_tokens=prefix)
    return {**state, "pos_embed": resized}


def random_partners(batch: int, device: torch.device) -> Tensor:
    """A random permutation without fixed point (one cycle), int64 (B,); of one sample, itself."""
    order = torch.randperm(batch, device=device)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner
