"""MEDUSA-style attention for pictures: one self-attention body that feeds a head at every scale of
a classifier.

Shapes: B batch, Y x X pixels of the classifier's picture, y x x of the body's, stage j = 1..4 of
strides 4, 8, 16, 32 with C_j channels, K classes, F features of the body.

Source: the abstract of MEDUSA (Aboutalebi et al., arXiv 2110.06063) and the inputs and outputs of
its released network; its architecture was never published, so this is a reading, not a
reproduction:

    known     one encoder-decoder body gives global context; heads feed it to the scales of the
              classifier, each with local context of its own; the body sees 256 x 256 grey,
              standardised by itself, the classifier 480 x 480
    read so   body: U-Net of five levels, F = 24, 48, ..., 384, whose map of attention g may be
              trained on lung masks
              head: M_j = sigmoid(Conv1(relu(BN(Conv3([Conv1(V_j), sigmoid(g), features])))))
              V_j <- V_j (1 + M_j), or V_j M_j ("pure"), before stage j + 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import build_attention
from ..attention.base import to_image, to_tokens
from ..layers.blocks import EncoderLayer, NetworkKind, build_feedforward
from ..layers.mutual_fusion import conv, on_grid
from ..layers.pyramid import Pyramid, build_pyramid
from ..moe.diverse import DiverseClassifier
from ..weights.adopted import Normalisation

GATES = ("squeeze", "cbam", "coordinate")
Sees = Literal["both", "global", "local"]
Form = Literal["residual", "pure"]
LEVELS = 5


@dataclass(frozen=True)
class Attended:
    """logits (B, K), of diverse experts in training (E, B, K); masks: of each stage (B, 1, Y /
    stride, X / stride) in (0, 1), none without heads; lungs: the logits of the body (B, 1, y, x),
    or None; features: the last map (B, C_4, Y / 32, X / 32), what Grad-CAM asks."""

    logits: Tensor
    masks: list[Tensor]
    lungs: Tensor | None
    features: Tensor


class Body(nn.Module):
    """A U-Net (Ronneberger et al., arXiv 1505.04597) with batch normalisation and bilinear steps
    upwards, before which channels are halved, as there.

    (B, 1, y, x), standardised -> the map of attention as logits (B, 1, y, x), and features (B,
    width, y, x)."""

    def __init__(self, width: int = 24, levels: int = LEVELS) -> None:
        super().__init__()
        if width < 1 or levels < 2:
            raise ValueError(
                f"Body: needs a width of at least 1 and two levels, got {width} and {levels}"
            )
        widths = [width << level for level in range(levels)]
        self.width = width
        self.down = nn.ModuleList(_twice(a, b) for a, b in zip([1, *widths[:-1]], widths))
        steps = list(pairwise(widths))[::-1]
        self.halve = nn.ModuleList(
            nn.Conv2d(b, a, 1, bias=False) for a, b in steps
        )  # before, where pixels are fewer
        self.up = nn.ModuleList(_twice(2 * a, a) for a, _ in steps)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        stages: list[Tensor] = []
        for level, part in enumerate(self.down):
            x = part(x if level == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            stages.append(x)
        for halve, part, beside in zip(self.halve, self.up, reversed(stages[:-1])):
            x = F.interpolate(halve(x), beside.shape[2:], mode="bilinear", align_corners=False)
            x = part(torch.cat([beside, x], 1))
        return self.out(x), x


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, 3), conv(outputs, outputs, 3))


class Head(nn.Module):
    """The head of one scale: a map V (B, C, Y, X) and what the body found -> the weighed map, and
    its mask (B, 1, Y, X) in (0, 1).

    sees: what the mask is made of: "both", the body alone ("global"), or the map alone ("local").
    """

    def __init__(
        self,
        channels: int,
        guide: int,
        *,
        width: int = 64,
        sees: Sees = "both",
        form: Form = "residual",
    ) -> None:
        super().__init__()
        if sees not in get_args(Sees) or form not in get_args(Form):
            raise ValueError(
                f"Head: sees is both, global or local, form residual or pure, got {sees!r} and "
                f"{form!r}"
            )
        self.sees, self.form = sees, form
        self.reduce = nn.Conv2d(channels, width, 1) if sees != "global" else None
        inputs = (width if sees != "global" else 0) + (guide if sees != "local" else 0)
        self.mix = conv(inputs, width, 3)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, v: Tensor, guide: Tensor | None) -> tuple[Tensor, Tensor]:
        """guide: (B, 1 + F, y, x), or None where only the map is seen."""
        parts = [] if self.reduce is None else [self.reduce(v)]
        if self.sees != "local":
            assert guide is not None
            parts.append(scaled(guide, (v.shape[2], v.shape[3])))
        mask = self.out(self.mix(torch.cat(parts, 1))).sigmoid()
        return v * (1 + mask) if self.form == "residual" else v * mask, mask


def scaled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """At another size: means over whole cells first, where it is much smaller, then bilinear."""
    step = max(1, x.shape[2] // size[0]), max(1, x.shape[3] // size[1])
    if max(step) > 1:
        x = F.avg_pool2d(x, step)
    return (
        x
        if tuple(x.shape[2:]) == size
        else F.interpolate(x, size, mode="bilinear", align_corners=False)
    )


class CBAM(nn.Module):
    """Channel gate, then spatial gate (Woo et al., ECCV 2018, arXiv 1807.06521): (B, C, Y, X) ->
    the same.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(
            nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        gate = (self.channel(x.mean((2, 3))) + self.channel(x.amax((2, 3)))).sigmoid()
        x = x * gate[:, :, None, None]
        return (
            x
            * self.spatial(
                torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
            ).sigmoid()
        )


class Gate(nn.Module):
    """A gate of the core on a map, (B, C, Y, X) -> the same."""

    def __init__(self, name: str, channels: int, inner: int) -> None:
        super().__init__()
        self.inner = build_attention(name, channels, inner=inner)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        size = (x.shape[2], x.shape[3])
        return to_image(on_grid(self.inner, to_tokens(x), size), size)


class Bottleneck(nn.Module):
    """A layer of a mechanism of the core and a feed-forward network on the cells of a map: (B, C,
    Y, X) -> the same; as in the last stage of bottleneck transformers (Srinivas et al., CVPR 2021,
    arXiv 2101.11605), behind the stage.

    attention: any mechanism for grids or for tokens in no order, with at most `heads` heads; ffn:
    of `build_feedforward`.
    """

    def __init__(
        self,
        channels: int,
        attention: str,
        *,
        attention_options: Mapping[str, object] | None = None,
        ffn: NetworkKind = "mlp",
        heads: int = 8,
    ) -> None:
        super().__init__()
        # Mechanisms with halves of heads need twice the number to divide the width.
        heads = max(h for h in range(1, heads + 1) if channels % (2 * h) == 0 or h == 1)
        moe = {"experts": 8, "active": 2} if ffn == "moe" else None
        self.layer = EncoderLayer(
            channels,
            build_attention(attention, channels, heads, **(attention_options or {})),
            build_feedforward(ffn, channels, moe=moe),
            norm="pre",
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        size, tokens = (x.shape[2], x.shape[3]), to_tokens(x)
        return to_image(self.layer(tokens, size=size, static=tokens), size)


class Medusa(nn.Module):
    """A classifier with attention at every scale.

    backbone: of `build_pyramid`; attention: "medusa", the body and its heads; "none"; or "squeeze",
    "cbam" and "coordinate", isolated in every stage, each as large (in parameters) as body and
    heads would be; or another mechanism of the core, which mixes the cells of the last map, with
    attention_options and ffn as `Bottleneck` takes them. sees, form: of the heads; a model that
    sees "local" has no body. diverse: three experts for frequent, even and rare classes
    (`DiverseClassifier`) as last layer.

    Raises ValueError for what does not fit together.
    """

    def __init__(
        self,
        backbone: Pyramid,
        classes: int,
        *,
        attention: str = "medusa",
        attention_options: Mapping[str, object] | None = None,
        ffn: NetworkKind = "mlp",
        sees: Sees = "both",
        form: Form = "residual",
        body_width: int = 24,
        head_width: int = 64,
        dropout: float = 0.0,
        diverse: bool = False,
    ) -> None:
        super().__init__()
        if attention != "medusa" and (sees, form) != ("both", "residual"):
            raise ValueError(
                f"Medusa: sees and form are of the heads, which attention {attention!r} has not"
            )
        self.backbone = backbone
        widths = backbone.widths
        body = Body(body_width)
        heads = nn.ModuleList(
            Head(c, 1 + body_width, width=head_width, sees=sees, form=form) for c in widths
        )
        is_medusa = attention == "medusa"
        self.body = body if is_medusa and sees != "local" else None
        self.heads = heads if is_medusa else None
        self.gates = None
        if attention in GATES:
            self.gates = nn.ModuleList(_isolated(attention, widths, size_of(body) + size_of(heads)))
        self.bottleneck = None
        if attention not in ("medusa", "none", *GATES):
            self.bottleneck = Bottleneck(
                widths[-1], attention, attention_options=attention_options, ffn=ffn
            )
        self.dropout = nn.Dropout(dropout)
        self.classifier = (DiverseClassifier if diverse else nn.Linear)(widths[-1], classes)

    def forward(self, picture: Tensor, small: Tensor) -> Tensor:
        """Logits (B, K) of pictures (B, 1 or 3, Y, X), normalised for the backbone, and the same
        (B, 1, y, x), standardised, for the body."""
        return self.attend(picture, small).logits

    def attend(self, picture: Tensor, small: Tensor) -> Attended:
        """Logits with all that explains them."""
        if (
            picture.ndim != 4
            or picture.shape[1] not in (1, 3)
            or small.ndim != 4
            or small.shape[1] != 1
        ):
            raise ValueError(
                f"Medusa: needs (B, 1 or 3, Y, X) and (B, 1, y, x), got {tuple(picture.shape)}, "
                f"{tuple(small.shape)}"
            )
        lungs = guide = None
        if self.body is not None:
            lungs, features = self.body(small)
            guide = torch.cat([lungs.sigmoid(), features], 1)
        masks: list[Tensor] = []

        def change(stage: int, v: Tensor) -> Tensor:
            if self.heads is not None:
                v, mask = self.heads[stage](v, guide)
                masks.append(mask)
            elif self.gates is not None:
                v = self.gates[stage](v)
            return v

        last = self.backbone.staged(picture.expand(-1, 3, -1, -1), change)
        if self.bottleneck is not None:
            last = self.bottleneck(last)
        return Attended(self.classifier(self.dropout(last.mean((2, 3)))), masks, lungs, last)

    def slopes(self, features: Tensor, classes: Tensor) -> Tensor:
        """How the logit of one class of each picture rises with the mean of each channel of the
        last map: features (B, C_4, y, x), classes int64 (B,) -> (B, C_4). In evaluation mode.
        """
        if isinstance(self.classifier, nn.Linear):
            return self.classifier.weight[classes]
        with torch.inference_mode(False), torch.enable_grad():
            means = features.detach().clone().mean((2, 3)).requires_grad_()
            logits = self.classifier(means).gather(1, classes.clone()[:, None])
            return torch.autograd.grad(logits.sum(), means)[0]


def size_of(module: nn.Module) -> int:
    """Parameters."""
    return sum(weight.numel() for weight in module.parameters())


def _isolated(name: str, widths: Sequence[int], size: int) -> list[nn.Module]:
    """A gate for each stage; the bottleneck of all, R, is such that together they have about `size`
    parameters.
    """

    def made(inner: int) -> list[nn.Module]:
        return [CBAM(c, inner) if name == "cbam" else Gate(name, c, inner) for c in widths]

    smallest, next_size = (sum(map(size_of, made(inner))) for inner in (1, 2))  # linear in R
    return made(max(1, 1 + round((size - smallest) / (next_size - smallest))))


def build_medusa(
    backbone: str = "resnet50",
    classes: int = 2,
    *,
    weights: str = "random",
    normalised_by: Normalisation | None = None,
    **options: Any,
) -> Medusa:
    """`Medusa` on a backbone of timm, or "small"; normalised_by: of `build_pyramid`; options: its
    own. Raises ValueError for what makes no model.
    """
    return Medusa(build_pyramid(backbone, weights, normalised_by), classes, **options)
