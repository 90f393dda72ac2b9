"""From trained dense networks to experts and back.

Shapes: E experts, K active experts, C copies, D width, F inner width of a dense network.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.blocks import FeedForward
from .experts import Experts
from .layer import MoE

# gate, its bias, up, its bias, down, its bias
Parts = tuple[Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor, Tensor | None]


def upcycle(network: FeedForward, *, experts: int = 8, active: int = 2, **options: Any) -> MoE:
    """A layer whose experts are copies of a trained network, with a new router (Komatsuzaki et al.,
    arXiv 2212.05055).

    With weights that sum to 1 (`normalise`, the default for active > 1) it is the same function
    whatever the router does, so that training continues from there. Otherwise outputs are scaled by
    the sum of the chosen probabilities. options: as in `MoE`.

    Raises ValueError if the options do not fit.
    """
    return assemble([network] * experts, active=active, **options)


@torch.no_grad()
def assemble(networks: Sequence[FeedForward], *, active: int = 2, **options: Any) -> MoE:
    """A layer whose experts are the given trained networks of one shape, with a new router.

    CLIP-MoE does this with the stages of its contrastive training (arXiv 2409.19291),
    Branch-Train-Mix with its branches (arXiv 2403.07816). options: as in `MoE`.

    Raises ValueError without networks or if their shapes or kinds differ.
    """
    shapes = {(tuple(n.up.weight.shape), n.gate is None, n.up.bias is None) for n in networks}
    if len(shapes) != 1:
        raise ValueError(
            f"assemble: needs networks of one shape, got {sorted(map(str, shapes)) or 'none'}"
        )
    first = networks[0]
    layer = MoE(
        first.up.in_features,
        first.up.out_features,
        experts=len(networks),
        active=active,
        kind="mlp" if first.gate is None else "glu",
        bias=first.up.bias is not None,
        **options,
    ).to(first.up.weight)
    for e, network in enumerate(networks):
        _write(layer.experts, e, *_parts(network))
    return layer


@torch.no_grad()
def copies(parts: Parts, *, experts: int = 8, active: int = 2, **options: Any) -> MoE:
    """`upcycle` for the tensors of a network.

    parts: as of `cut`; options: as in `MoE`, with the network's activation.

    Raises ValueError if the options do not fit.
    """
    gate, up, up_bias = parts[0], parts[2], parts[3]
    layer = MoE(
        up.shape[1],
        up.shape[0],
        experts=experts,
        active=active,
        kind="mlp" if gate is None else "glu",
        bias=up_bias is not None,
        **options,
    ).to(up)
    for e in range(experts):
        _write(layer.experts, e, *parts)
    return layer


@torch.no_grad()
def decompose(network: FeedForward, *, copies: int = 4, slices: int = 2, **options: Any) -> MoE:
    """Granularity decomposition of Dynamic-DINO (arXiv 2507.17436): `copies` of a trained network,
    each cut along its inner width into `slices` experts, of which `slices` are active.

    The layer is the same function at first: the router's rows are drawn per copy and repeated for
    its slices, so that the slices of one copy are chosen together, with weights of 1: normalised
    weights times `slices`. (Weights that sum to 1, the usual ones, would scale the output by 1 /
    slices; constant weights of 1 would give the router no gradient.) Each slice has 1 / slices of
    the last bias. options: as in `MoE`.

    Raises ValueError if slices do not divide the inner width.
    """
    return cut(_parts(network), copies, slices, **options)


@torch.no_grad()
def cut(parts: Parts, copies: int, slices: int, **options: Any) -> MoE:
    """`decompose` for the tensors of a network.

    parts: gate, its bias, up, its bias, down, its bias, in the layout of `nn.Linear`; None for what
    the network does not have. options: as in `MoE`, with the network's activation.

    Raises ValueError if slices do not divide the inner width.
    """
    gate, gate_bias, up, up_bias, down, down_bias = parts
    hidden = up.shape[0]
    if slices < 2 or copies < 1 or hidden % slices:
        raise ValueError(
            f"decompose: 2 slices or more must divide the inner width {hidden}, got {slices}"
        )
    layer = MoE(
        up.shape[1],
        hidden // slices,
        experts=copies * slices,
        active=slices,
        normalise=True,
        scale=float(slices),
        kind="mlp" if gate is None else "glu",
        bias=up_bias is not None,
        **options,
    ).to(up)

    def piece(part: Tensor | None, i: int, dim: int = 0) -> Tensor | None:
        return None if part is None else part.chunk(slices, dim)[i]

    for e in range(copies * slices):
        i = e % slices
        last = None if down_bias is None else down_bias / slices
        across = piece(down, i, 1)
        assert across is not None
        _write(
            layer.experts,
            e,
            piece(gate, i),
            piece(gate_bias, i),
            piece(up, i),
            piece(up_bias, i),
            across,
            last,
        )
    rows = layer.router.gate.weight[:copies].clone()
    layer.router.gate.weight.copy_(rows.repeat_interleave(slices, 0))
    return layer


@torch.no_grad()
def joined(layer: MoE) -> Parts:
    """The reverse of `cut`: the tensors of one dense network, slices joined, copies averaged.

    Exact as long as the copies are equal; after training an approximation, as `merge` is.
    """
    experts, slices = layer.experts, layer.router.active
    halves = 2 if experts.gated else 1
    width, inner = experts.width, experts.hidden
    up = experts.up.view(-1, slices, halves, inner, width).mean(0).transpose(0, 1)
    up = up.reshape(halves, -1, width)
    down = experts.down.view(-1, slices, experts.down.shape[1], inner).mean(0)
    down = down.transpose(0, 1).flatten(1)
    biases: list[Tensor | None] = [None, None]
    last = None
    if experts.up_bias is not None and experts.down_bias is not None:
        bias = experts.up_bias.view(-1, slices, halves, inner).mean(0).transpose(0, 1)
        biases = list(bias.reshape(halves, -1))
        last = experts.down_bias.view(-1, slices, experts.down.shape[1]).mean(0).sum(0)
    if halves == 1:
        return None, None, up[0], biases[0], down, last
    return up[0], biases[0], up[1], biases[1], down, last


@torch.no_grad()
def merge(layer: MoE, shares: Tensor | None = None) -> FeedForward:
    """A dense network with the mean of the experts' weights, or with their mixture by shares (E,)
    that sum to 1.

    Exact if the experts are equal, as after `upcycle`; otherwise the usual "soup" (arXiv
    2203.05482), an approximation.

    Raises ValueError if the shares do not fit, or for an activation that `FeedForward` does not
    have.
    """
    experts = layer.experts
    if experts.activation != "gelu":
        raise ValueError(f"merge: FeedForward has gelu, the experts have {experts.activation}")
    shares = torch.full((experts.experts,), 1 / experts.experts) if shares is None else shares
    if shares.shape != (experts.experts,):
        raise ValueError(f"merge: needs {experts.experts} shares, got {tuple(shares.shape)}")
    dense = FeedForward(experts.width, experts.hidden, kind=experts.kind).to(experts.up)
    shares = shares.to(experts.up)

    def mean(part: Tensor | None) -> Tensor | None:
        return None if part is None else torch.einsum("e,e...->...", shares, part)

    up, up_bias = mean(experts.up), mean(experts.up_bias)
    pairs: list[tuple[nn.Linear, Any, Any]] = [
        (dense.down, mean(experts.down), mean(experts.down_bias))
    ]
    if dense.gate is None:
        pairs.append((dense.up, up, up_bias))
    else:
        assert up is not None
        halves = (None, None) if up_bias is None else up_bias.chunk(2)
        pairs += [
            (linear, *part)
            for linear, part in zip((dense.gate, dense.up), zip(up.chunk(2), halves))
        ]
    for linear, weight, bias in pairs:
        linear.weight.copy_(weight)
        linear.bias = None if bias is None else nn.Parameter(bias.clone())  # type: ignore[assignment]
    return dense


def upcycle_model(model: nn.Module, **options: Any) -> nn.Module:
    """A copy of a model in which each `FeedForward` is upcycled. options: as in `upcycle`.

    Raises ValueError if the model has none.
    """
    model = copy.deepcopy(model)
    networks = [
        (name, part) for name, part in model.named_modules() if isinstance(part, FeedForward)
    ]
    if not networks:
        raise ValueError(
            f"upcycle_model: {type(model).__name__} has no feed-forward network to replace"
        )
    for name, part in networks:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, upcycle(part, **options))
    return model


def _parts(network: FeedForward) -> Parts:
    gate = network.gate
    return (
        None if gate is None else gate.weight,
        None if gate is None else gate.bias,
        network.up.weight,
        network.up.bias,
        network.down.weight,
        network.down.bias,
    )


def _write(
    experts: Experts,
    e: int,
    gate: Tensor | None,
    gate_bias: Tensor | None,
    up: Tensor | None,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
) -> None:
    assert up is not None
    experts.up[e] = up if gate is None else torch.cat([gate, up])
    experts.down[e] = down
    if experts.up_bias is not None and experts.down_bias is not None:
        assert up_bias is not None
        assert down_bias is not None
        experts.up_bias[e] = up_bias if gate_bias is None else torch.cat([gate_bias, up_bias])
        experts.down_bias[e] = down_bias
