"""GL-DMNet: salient objects of a colour picture with depth, by mutual fusion and a cascade of
transformer stages.

Shapes: B batch, Y x X pixels, stage i = 1..4 of strides 4, 8, 16, 32 with C_i channels.

Source: arXiv 2501.01648, whose code is not published. Equations 24 to 30 are the decoder,
`mutual_fusion` the fusion. What the paper leaves open is read as follows:

    width C_i after the reduction (1, 2)    that of the transformer's stage: 64, 128, 320, 512 of
                                            PVTv2-B2
    Trans_i keeps the resolution (24)       the blocks of the PVTv2 stage without patch embedding
    f_att_4, which has no higher stage      f_res_4 = f_t_4
    f_out_{i+1} of half the size in (29)    bilinear to the size of stage i
    batch normalisation after the last      none: the last convolution of a head is plain
    convolution of a head (30)

With PVTv2-B2 the first stage's attention looks at 8 x 8 cells at a time (its spatial reduction), as
it does at home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import build_attention
from ..attention.base import Attention, to_image, to_tokens
from ..layers.blocks import NetworkKind, build_feedforward
from ..layers.mutual_fusion import FusionKind, MutualFusion, conv, conv13, on_grid
from ..layers.pyramid import SMALL, build_pyramid, load_timm, make_timm
from ..weights.adopted import Normalisation

SPATIAL_REDUCTION = "spatial-reduction"
PARTS = ("encoder", "transformer")


class TransformerStage(nn.Module):
    """The blocks of one PVTv2 stage on a map of their own width, equation 24: (B, C, Y, X) -> (B,
    C, Y, X).

    attention: "spatial-reduction" (PVTv2's own), or a mechanism of the core that fits a grid or a
    sequence, with `attention_options`; ffn: "convolved" (PVTv2's own) or a network of the core, in
    every block."""

    def __init__(
        self,
        stage: Any,
        *,
        attention: str = SPATIAL_REDUCTION,
        attention_options: Mapping[str, object] | None = None,
        ffn: str = "convolved",
        moe: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.blocks, self.norm = stage.blocks, stage.norm
        for block in stage.blocks:
            width = int(block.attn.proj.in_features)
            if attention != SPATIAL_REDUCTION:
                heads = int(block.attn.num_heads)
                mixer = build_attention(attention, width, heads, **(attention_options or {}))
                block.attn = _OnGrid(mixer)
            if ffn != "convolved":
                hidden = int(block.mlp.fc1.out_features)
                kind: NetworkKind = ffn  # pyright: ignore[reportAssignmentType]
                block.mlp = _OnGrid(build_feedforward(kind, width, hidden, moe=moe))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        size = (x.shape[2], x.shape[3])
        tokens = to_tokens(x)
        static = tokens
        for block in self.blocks:
            mixer = block.attn.inner if isinstance(block.attn, _OnGrid) else None
            if isinstance(mixer, Attention) and "static" in mixer.extras:
                tokens = _static_block(block, tokens, size, static)
            else:
                tokens = block(tokens, size)
        return to_image(self.norm(tokens), size)


def _static_block(block: Any, x: Tensor, size: tuple[int, int], static: Tensor) -> Tensor:
    """A block of timm's whose mechanism also reads the tokens before the first block."""
    x = x + block.drop_path1(block.attn.inner(block.norm1(x), static=static))
    return x + block.drop_path2(block.mlp(block.norm2(x), size))


class _OnGrid(nn.Module):
    """A part of the core called as timm's blocks call theirs, with the size of the grid."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, feat_size: Sequence[int]) -> Tensor:
        return on_grid(self.inner, x, (feat_size[0], feat_size[1]))


class Recall(nn.Module):
    """Equation 26: what the higher stages found, brought to a stage's size and weighed by channel
    attention.

    attention: a gate of the core by name; "squeeze" is the paper's squeeze-and-excitation.
    """

    def __init__(self, higher: Sequence[int], channels: int, *, attention: str = "squeeze") -> None:
        super().__init__()
        self.gate = _OnGrid(build_attention(attention, sum(higher)))
        self.after = conv13(sum(higher), channels)

    def forward(self, higher: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps of the higher stages (B, C_j, ., .) -> (B, C, *size)."""
        joined = torch.cat([resized(x, size) for x in higher], 1)
        return self.after(to_image(self.gate(to_tokens(joined), size), size))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear."""
    return (
        x
        if tuple(x.shape[2:]) == size
        else F.interpolate(x, size, mode="bilinear", align_corners=False)
    )


class GLDMNet(nn.Module):
    """The whole network. `forward` gives the saliency map that is used, `scales` the four that are
    supervised.

    rgb, depth: encoders that give the maps of strides 4, 8, 16 and 32, with their `widths`; stages:
    four of `TransformerStage` or None, of `channels` (C_1..C_4); fusion, position, eps: see
    `MutualFusion`."""

    def __init__(
        self,
        rgb: nn.Module,
        depth: nn.Module,
        widths: Sequence[int],
        stages: Sequence[nn.Module] | None,
        channels: Sequence[int],
        *,
        fusion: FusionKind = "both",
        position: str = "signed-root",
        recall: str = "squeeze",
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        self.rgb, self.depth = rgb, depth
        self.reduce_rgb = nn.ModuleList(conv13(a, c) for a, c in zip(widths, channels, strict=True))
        self.reduce_depth = nn.ModuleList(
            conv13(a, c) for a, c in zip(widths, channels, strict=True)
        )
        # Without position fusion its options say nothing.
        options = {"attention": position, "eps": eps} if fusion in ("both", "position") else {}
        self.fusions = nn.ModuleList(MutualFusion(c, kind=fusion, **options) for c in channels)
        self.stages = nn.ModuleList(stages) if stages is not None else None
        joined = 2 if stages is not None else 1
        self.after_stage = nn.ModuleList(conv13(joined * c, c) for c in channels)
        self.recalls = nn.ModuleList(
            Recall(channels[i + 1 :], channels[i], attention=recall)
            for i in range(len(channels) - 1)
        )
        self.out = nn.ModuleList(
            conv13(c + (channels[i + 1] if i < len(channels) - 1 else 0), c)
            for i, c in enumerate(channels)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(conv(c, c, 3), nn.Conv2d(c, 1, 1)) for c in channels
        )
        self.frozen: frozenset[str] = frozenset()

    def freeze(self, *parts: str) -> None:
        """Hold "encoder" and "transformer", or none, as they are: no gradients, and norms by what
        they had stored.

        A stage of training (section IV-B of the paper); the parameters still get (zero) gradients
        where several devices wait for them, see `frozen_sum`."""
        if unknown := set(parts) - set(PARTS):
            raise ValueError(
                f"GLDMNet.freeze: no part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}"
            )
        self.frozen = frozenset(parts)
        self.train(self.training)

    def parts(self, name: str) -> list[nn.Module]:
        """The modules of "encoder" or "transformer"."""
        return (
            [self.rgb, self.depth]
            if name == "encoder"
            else ([] if self.stages is None else [self.stages])
        )

    def frozen_sum(self) -> Tensor | None:
        """0, as a function of all frozen parameters; None where nothing is frozen."""
        weights = [
            w
            for name in sorted(self.frozen)
            for module in self.parts(name)
            for w in module.parameters()
        ]
        return 0 * torch.stack([w.sum() for w in weights]).sum() if weights else None

    def train(self, mode: bool = True) -> GLDMNet:
        """As torch's, but for frozen parts, which stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            for module in self.parts(name):
                module.eval()
        return self

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        """The saliency in [0, 1], (B, 1, Y, X), of normalised pictures (B, 3, Y, X) and depths (B,
        1 or 3, Y, X).
        """
        return self.scales(image, depth)[0].sigmoid()

    def scales(self, image: Tensor, depth: Tensor) -> list[Tensor]:
        """Logits of S_1 to S_4, each (B, 1, Y, X)."""
        if (
            image.ndim != 4
            or depth.ndim != 4
            or image.shape[2:] != depth.shape[2:]
            or depth.shape[1] not in (1, 3)
        ):
            raise ValueError(
                f"GLDMNet: needs (B, 3, Y, X) and (B, 1 or 3, Y, X), got {tuple(image.shape)}, "
                f"{tuple(depth.shape)}"
            )
        full = (image.shape[2], image.shape[3])
        with torch.set_grad_enabled(torch.is_grad_enabled() and "encoder" not in self.frozen):
            pairs = list(zip(self.rgb(image), self.depth(depth.expand(-1, 3, -1, -1))))
        fused = [
            fuse(to_colour(a), to_depth(b))
            for (a, b), to_colour, to_depth, fuse in zip(
                pairs, self.reduce_rgb, self.reduce_depth, self.fusions
            )
        ]
        stages = [self._stage(i, x) for i, x in enumerate(fused)]
        logits: list[Tensor] = []
        below: Tensor | None = None
        for i in reversed(range(len(stages))):
            size = (stages[i].shape[2], stages[i].shape[3])
            x = stages[i]
            if i < len(self.recalls):
                x = self.recalls[i](stages[i + 1 :], size) * x + x
            below = self.out[i](x if below is None else torch.cat([x, resized(below, size)], 1))
            logits.insert(0, resized(self.heads[i](below), full))
        return logits

    def _stage(self, i: int, fused: Tensor) -> Tensor:
        """Equations 24 and 25. A frozen transformer has no gradients of its own but passes them
        on.
        """
        if self.stages is None:
            return self.after_stage[i](fused)
        return self.after_stage[i](torch.cat([self.stages[i](fused), fused], 1))


def build_gldmnet(
    backbone: str = "resnet50",
    transformer: str = "pvt_v2_b2",
    *,
    weights: str = "random",
    transformer_weights: str = "random",
    attention: str = SPATIAL_REDUCTION,
    attention_options: Mapping[str, object] | None = None,
    ffn: str = "convolved",
    fusion: FusionKind = "both",
    position: str = "signed-root",
    recall: str = "squeeze",
    eps: float = 1e-4,
    drop_path: float = 0.0,
    normalised_by: Normalisation | None = None,
) -> GLDMNet:
    """GL-DMNet on backbones of timm; its defaults are the paper's.

    backbone: a model of timm with maps of strides 4 to 32, or "small", a residual network of 1.2
    million parameters; transformer: pvt_v2_b0 to b5, "small", or "none" (the paper's ablation
    without it); attention, attention_options, ffn: of `TransformerStage`. weights,
    transformer_weights: "pretrained" (timm fetches them once), "random", or a
    file, safetensors or a state dict that torch reads without unpickling code. normalised_by: of
    `build_pyramid`, for both encoders.

    Raises ValueError for unknown names, backbones without such maps, and weights that are missing
    or do not fit."""
    from timm.models.pvt_v2 import PyramidVisionTransformerV2

    encoders = [build_pyramid(backbone, weights, normalised_by) for _ in range(2)]
    if transformer == "none":
        channels, stages = (64, 128, 320, 512) if backbone != SMALL else (32, 64, 96, 128), None
    else:
        if transformer == SMALL:
            pyramid: Any = PyramidVisionTransformerV2(
                depths=(1, 1, 1, 1),
                embed_dims=(32, 64, 96, 128),
                num_heads=(1, 2, 3, 4),
                mlp_ratios=(4, 4, 4, 4),
                num_classes=0,
                drop_path_rate=drop_path,
            )
            if transformer_weights == "pretrained":
                raise ValueError(
                    "transformer 'small' has no pretrained weights; give 'random' or a file"
                )
        else:
            fetched = transformer_weights == "pretrained"
            pyramid = make_timm(transformer, fetched, num_classes=0, drop_path_rate=drop_path)
        if not isinstance(pyramid, PyramidVisionTransformerV2):
            raise ValueError(
                f"transformer {transformer!r} is no PVTv2; there are pvt_v2_b0 to pvt_v2_b5, "
                "small, none"
            )
        load_timm(pyramid, transformer_weights, transformer)
        moe = {"experts": 8, "active": 2} if ffn == "moe" else None
        stages = [
            TransformerStage(
                stage, attention=attention, attention_options=attention_options, ffn=ffn, moe=moe
            )
            for stage in pyramid.stages
        ]
        channels = tuple(int(stage.norm.normalized_shape[0]) for stage in stages)  # pyright: ignore
    widths = encoders[0].widths
    rgb, depth = encoders
    return GLDMNet(
        rgb,
        depth,
        widths,
        stages,
        channels,
        fusion=fusion,
        position=position,
        recall=recall,
        eps=eps,
    )
