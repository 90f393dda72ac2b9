"""Vision transformers of timm with access to all blocks: queries and keys to read, attention to
swap, pairs of pictures to attend to.

Shapes: B batch, N tokens (prefix tokens, the class token first, then patches row by row), D width,
H heads, d = D / H.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import one_line
from ...kernels.pair_attention import pair_attention
from ..attention import build_attention
from ..attention.base import join_heads, split_heads
from ..weights.adopted import Normalisation, for_normalisation
from .blocks import NetworkKind, build_feedforward
from .encoders import not_made, read_weights, require_timm
from .tuning import TunedBackbone

SCRATCH = "scratch"
BLOCK_PARTS = ("norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2")
ATTENTION_PARTS = ("qkv", "q_norm", "k_norm", "attn_drop", "norm", "proj", "proj_drop")
Size = tuple[int, int]


class Trunk(TunedBackbone):
    """The blocks of a vision transformer.

    model: a `timm.models.vision_transformer.VisionTransformer` with a class token and plain blocks.
    attention and ffn put another mechanism of the core (any that takes a sequence of tokens) or
    another feed-forward network into all blocks; with another mechanism there are no queries and
    keys to read.

    width: D; size: (rows, columns) of patches; prefix: tokens before the patches; readable: whether
    the blocks have queries and keys of softmax attention. Raises ValueError for a model that is
    built differently.
    """

    def __init__(
        self,
        model: Any,
        *,
        attention: str = "softmax",
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
        for block in model.blocks:
            if not all(hasattr(block, part) for part in BLOCK_PARTS):
                raise ValueError(
                    f"{type(model).__name__}: a {type(block).__name__} is no plain pre-norm block"
                )
            if attention != "softmax":
                block.attn = build_attention(attention, self.width, heads)
            if ffn != "mlp":
                hidden = int(block.mlp.fc1.out_features)
                block.mlp = build_feedforward(ffn, self.width, hidden, moe=moe)
        self.readable = attention == "softmax" and all(
            _is_plain(block.attn) for block in model.blocks
        )

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

    def forward(
        self, images: Tensor, *, read: bool = False
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Tokens after the last block, not yet normalised (B, N, D), and with `read` the (query,
        key) of all blocks, each (B, H, N, d) and without gradients.
        """
        x = self.embed(images)
        queries_and_keys: list[tuple[Tensor, Tensor]] = []
        for block in self.blocks:
            if self.readable:
                query, key, value = qkv(block.attn, block.norm1(x))
                dropout = block.attn.attn_drop.p if self.training else 0.0
                mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
                x = _after_attention(block, x, mixed)
                if read:
                    queries_and_keys.append((query.detach(), key.detach()))
            else:
                x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
                x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        return x, queries_and_keys

    def pairs(self, images: Tensor, partner: Tensor) -> Tensor:
        """The same blocks with the keys and values of two pictures in each softmax (PWCA of DCAL,
        arXiv 2205.02151, equation 5) -> (B, N, D), not yet normalised.

        partner: int64 (B,), a permutation: the other picture of each.
        """
        x = self.embed(images)
        for block in self.blocks:
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
    ffn: NetworkKind = "mlp",
    normalised_by: Normalisation | None = None,
) -> Trunk:
    """A trunk for pictures of image = (height, width) pixels.

    name: "scratch", a ViT without pretrained weights with this patch, width, depth and heads, or a
    ViT or DeiT of timm, which has its own sizes. weights (of timm's): "pretrained" (timm downloads
    them once), "random", or a file, safetensors or a state dict that torch reads without unpickling
    code; position embeddings are resized to the picture's grid. normalised_by: mean and deviation
    of the colours by which the caller normalises pictures; weights of a file that says another one
    are changed for it.

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
    return Trunk(model, attention=attention, ffn=ffn, moe=moe)


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
