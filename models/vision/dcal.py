"""DCAL: dual cross-attention learning (Zhu et al., CVPR 2022, arXiv 2205.02151), for
re-identification and fine-grained recognition, on any vision transformer.

Shapes: B pictures, N tokens (class token, possibly more prefix tokens, P patches), D width, R local
patches, K classes, E experts.

Self-attention (SA): the transformer. Global-local cross-attention (GLCA): the queries are the class
token and the R patches with the highest weights in the class token's row of attention rollout, keys
and values all tokens of the last layer; it has separate weights. Pair-wise cross-attention (PWCA),
in training only: the transformer with the same weights again, in which each softmax also runs over
the tokens of another picture of the batch.

Where the paper leaves the choice: maps are the mean over heads (Abnar and Zuidema, arXiv
2005.00928); R is the share of the patches rounded down, which gives the paper's 78, 38 and 76; the
class token is among the queries, because its final value is used; the other picture of a pair goes
through the PWCA blocks as the picture itself does, so that layer l attends to its layer l; each
branch has a separate classifier. GLCA blocks have a feed-forward network, as all blocks of the
transformer do.

With another mechanism of the core in the trunk, all three branches have it: rollout reads its
attention weights, GLCA attends by it, and the context of PWCA is the tokens of both pictures. So
GLCA needs a mechanism that has weights and takes a context, PWCA one that takes a context.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.base import Attention, join_heads, split_heads
from ..layers.blocks import FeedForward
from ..layers.vit_trunk import Trunk, random_partners, rollout_of
from ..moe.diverse import DiverseClassifier

Heads = Literal["both", "sa"]
Output = Literal["vectors", "probabilities"]
HEADS: tuple[Heads, ...] = ("both", "sa")


class CrossLayer(nn.Module):
    """Pre-norm layer in which a few tokens attend to many: x = x + attention(norm x, norm context);
    x = x + network(norm x).

    Queries are gathered before they are projected; the softmax is PyTorch's fused one, which stores
    no (R, N) matrix. width: D; heads: H, must divide D; hidden: of the network, by default 4 D;
    mixer: a mechanism of the core that takes a context, in place of this attention.
    """

    def __init__(
        self, width: int, heads: int, hidden: int | None = None, *, mixer: Attention | None = None
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"CrossLayer: {heads} heads do not divide width {width}")
        self.heads = heads
        self.mixer = mixer
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        attention = []
        if mixer is None:
            self.query = nn.Linear(width, width)
            self.key_value = nn.Linear(width, 2 * width)
            self.out = nn.Linear(width, width)
            attention = [self.query, self.key_value, self.out]
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.network = FeedForward(width, hidden)
        for layer in (*attention, self.network.up, self.network.down):
            nn.init.trunc_normal_(layer.weight, std=0.02)  # as timm's ViT starts
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: (B, R, D), context: (B, N, D) -> (B, R, D)."""
        if self.mixer is not None:
            x = x + self.mixer(self.norm1(x), self.norm1(context))
            return x + self.network(self.norm2(x))
        query = split_heads(self.query(self.norm1(x)), self.heads)
        key, value = (
            split_heads(part, self.heads)
            for part in self.key_value(self.norm1(context)).chunk(2, -1)
        )
        x = x + self.out(join_heads(F.scaled_dot_product_attention(query, key, value)))
        return x + self.network(self.norm2(x))


class Head(nn.Module):
    """Classifier of a class token; with a neck, batch normalisation without shift before it and no
    bias in it (BNNeck: Luo et al., arXiv 1903.07071); diverse: three experts for frequent, even and
    rare classes (`DiverseClassifier`) in its place.
    """

    def __init__(self, width: int, classes: int, *, neck: bool, diverse: bool = False) -> None:
        super().__init__()
        self.neck = nn.BatchNorm1d(width) if neck else None
        if self.neck is not None:
            self.neck.bias.requires_grad_(False)
        if diverse:
            self.classify = DiverseClassifier(width, classes)
            return
        self.classify = nn.Linear(width, classes, bias=not neck)
        nn.init.normal_(self.classify.weight, std=0.001 if neck else 0.01)
        if not neck:
            nn.init.zeros_(self.classify.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> logits (B, K), of diverse experts in training (E, B, K)."""
        return self.classify(x if self.neck is None else self.neck(x))


@dataclass
class Branches:
    """Class tokens (B, D) and logits (B, K), of diverse experts in training (E, B, K), by the name
    of the branch: "sa", "glca", "pwca".
    """

    tokens: dict[str, Tensor]
    logits: dict[str, Tensor]


class DCAL(nn.Module):
    """A transformer with its two cross-attentions.

    trunk: the transformer; classes: K; local: share of the patches that are queries of GLCA; glca:
    number of GLCA blocks, 0 for none; pwca: whether training has the pair-wise branch; neck: BNNeck
    before the classifiers; diverse: their experts, see `Head`. With glca 0 and pwca False it is the
    plain transformer. heads and output decide what `forward` gives (see there).

    Vectors of a trained model all point nearly the same way, so that their cosines say little.
    `set_centres` takes their mean off: the buffers `centre_both` (2 D,) and `centre_sa` (D,), which
    a model has from then on. Without them vectors are as they are.

    Raises ValueError if a branch needs queries and keys that the trunk does not have.
    """

    def __init__(
        self,
        trunk: Trunk,
        classes: int,
        *,
        local: float = 0.3,
        glca: int = 1,
        pwca: bool = True,
        neck: bool = True,
        diverse: bool = False,
        heads: Heads = "both",
        output: Output = "vectors",
    ) -> None:
        super().__init__()
        needs = {
            "GLCA": glca > 0 and not (trunk.readable and trunk.pairable),
            "PWCA": pwca and not trunk.pairable,
        }
        if missing := [branch for branch, lacks in needs.items() if lacks]:
            raise ValueError(
                f"{' and '.join(missing)} cannot read attention {trunk.mixer!r}; switch off what "
                "cannot, for a plainer model"
            )
        if not 0 < local <= 1 or glca < 0:
            raise ValueError(
                f"DCAL: local must be in (0, 1] and glca 0 or more, got {local} and {glca}"
            )
        self.trunk = trunk
        self.heads: Heads = heads
        self.output: Output = output
        self.pwca = pwca
        self.chosen = max(1, int(local * trunk.size[0] * trunk.size[1] + 1e-9))
        self.glca = nn.ModuleList(
            CrossLayer(trunk.width, trunk.heads, mixer=trunk.another_mixer()) for _ in range(glca)
        )
        self.glca_norm = nn.LayerNorm(trunk.width, eps=1e-6) if glca else None
        names = ["sa", *(["glca"] if glca else []), *(["pwca"] if pwca else [])]
        self.classifiers = nn.ModuleDict(
            {name: Head(trunk.width, classes, neck=neck, diverse=diverse) for name in names}
        )
        # Logarithms of the variances of the branches' losses (Kendall et al., arXiv 1705.07115, in
        # FairMOT's form).
        self.log_variance = nn.Parameter(torch.zeros(len(names)))
        for head in HEADS:
            self.register_buffer(f"centre_{head}", None)

    def set_centres(self, centres: Mapping[Heads, Tensor | None]) -> None:
        """The mean of the vectors of each choice of heads, by its name; None: as they are."""
        for heads, centre in centres.items():
            device = self.log_variance.device
            setattr(self, f"centre_{heads}", None if centre is None else centre.to(device))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, object],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Weights have centres or, those of a model in training or of an older run, none. Tensors
        of a blend, which are none of this model's, leave them as they are.
        """
        of_this = any(key.startswith(prefix) for key in state_dict)
        for name in (f"centre_{head}" for head in HEADS) if of_this else ():
            centre = state_dict.get(prefix + name)
            setattr(self, name, None if centre is None else torch.empty_like(centre))
        keys = missing_keys, unexpected_keys, error_msgs
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *keys)

    def branches(self, images: Tensor, *, partner: Tensor | None = None) -> Branches:
        """Class tokens and logits of all branches; of PWCA in training only.

        images: (B, 3, Y, X); partner: int64 (B,), a permutation, by default a random one without
        fixed point.
        """
        # Outside of training, the SA head alone needs only the plain transformer.
        with_glca = self.training or self.heads == "both"
        x, reads = self.trunk(images, read=with_glca and self.glca_norm is not None)
        tokens = {"sa": self.trunk.norm(x)[:, 0]}
        if self.glca_norm is not None and with_glca:
            local = self._attend_globally(x, rollout_of(reads))
            tokens["glca"] = self.glca_norm(local)[:, 0]
        if self.pwca and self.training:
            if partner is None:
                partner = random_partners(len(images), images.device)
            tokens["pwca"] = self.trunk.norm(self.trunk.pairs(images, partner))[:, 0]
        return Branches(
            tokens, {name: self.classifiers[name](token) for name, token in tokens.items()}
        )

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, Y, X), normalised.

        output "vectors": the final class tokens of SA and GLCA side by side, of length 1 (B, 2 D),
        or with heads "sa" that of SA alone (B, D); less their centre, see `vectors`. output
        "probabilities": the mean of the class probabilities of SA and GLCA (B, K) (the paper sums
        them, which gives the same ranking), or those of SA.
        """
        branches = self.branches(images)
        if self.output == "vectors":
            return self.vectors(branches)
        return probabilities(branches, self.heads)

    def vectors(self, branches: Branches) -> Tensor:
        """The vectors of the heads, of length 1, less their centre where there is one, and then of
        length 1 again.
        """
        centre = getattr(self, f"centre_{self.heads}")
        values = vectors(branches, self.heads)
        return values if centre is None else F.normalize(values - centre)

    @torch.no_grad()
    def rollout(self, images: Tensor) -> Tensor:
        """The class token's row of attention rollout over the patches (B, rows, columns), summing
        to at most 1.
        """
        if not self.trunk.readable:
            raise ValueError(f"there is no rollout of {self.trunk.mixer}: it has no weights")
        _, reads = self.trunk(images, read=True)
        row = rollout_of(reads)
        return row[:, self.trunk.prefix :].unflatten(1, self.trunk.size)

    def _attend_globally(self, x: Tensor, row: Tensor) -> Tensor:
        """GLCA (equation 3): the class token and the local patches attend to all tokens.

        row: rollout of the class token (B, N).
        """
        best = row[:, self.trunk.prefix :].topk(self.chosen, sorted=False).indices
        queries = torch.cat([torch.zeros_like(best[:, :1]), best + self.trunk.prefix], 1)
        local = x.gather(1, queries[..., None].expand(-1, -1, x.shape[-1]))
        for layer in self.glca:
            local = layer(local, x)
        return local


def vectors(branches: Branches, heads: Heads = "both") -> Tensor:
    """The vector that pictures are compared by: class tokens side by side, of length 1."""
    tokens = [branches.tokens[name].float() for name in _used(branches, heads)]
    return F.normalize(torch.cat(tokens, 1))


def probabilities(branches: Branches, heads: Heads = "both") -> Tensor:
    """Mean of the class probabilities of the heads (B, K)."""
    used = [branches.logits[name].float().softmax(1) for name in _used(branches, heads)]
    return torch.stack(used).mean(0)


def _used(branches: Branches, heads: Heads) -> list[str]:
    names = ("sa", "glca") if heads == "both" else ("sa",)
    return [name for name in names if name in branches.tokens]
