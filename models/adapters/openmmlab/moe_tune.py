"""Mixtures of experts in the decoders of DINO-like detectors of mmdetection (Dynamic-DINO, arXiv
2507.17436).

Shapes: B batch, Q queries, D width, F inner width of a feed-forward network.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...attention.base import auxiliary_loss
from ...moe.layer import MoE
from ...moe.upcycle import cut, joined
from ...moe.watch import RoutingWatch
from .operators import use_torch_operators

use_torch_operators()

from mmcv.cnn.bricks.transformer import FFN  # noqa: E402  (the stand-in comes first)
from mmdet.registry import HOOKS, MODELS  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402

Trained = Literal["all", "experts"]
ACTIVATIONS = {nn.ReLU: "relu", nn.GELU: "gelu", nn.SiLU: "silu"}


class MoEFFN(nn.Module):
    """mmcv's `FFN` with experts: identity + dropout(scale(experts(x))). (B, Q, D) -> (B, Q, D).

    Made from a trained FFN whose function it is at first, see `moe_tune`. Dropout between its two
    linear layers, which mmdetection's configs leave at 0, becomes dropout at the end of the experts
    only."""

    def __init__(self, network: FFN, copies: int, slices: int, **options: Any) -> None:
        super().__init__()
        up, activation, down = _read(network)
        parts = None, None, up.weight, up.bias, down.weight, down.bias
        self.moe = cut(
            parts, copies, slices, activation=activation, dropout=network.layers[-1].p, **options
        )
        self.embed_dims, self.feedforward_channels = (
            network.embed_dims,
            network.feedforward_channels,
        )
        self.gamma2, self.dropout_layer = network.gamma2, network.dropout_layer
        self.add_identity = network.add_identity

    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """x, identity: (B, Q, D); identity: by default x."""
        out = self.dropout_layer(self.gamma2(self.moe(x)))
        if not self.add_identity:
            return out
        return (x if identity is None else identity) + out

    @torch.no_grad()
    def dense(self) -> FFN:
        """An `FFN` of the mean of the copies: exact before training, an approximation after."""
        names = {value: key for key, value in ACTIVATIONS.items()}
        kind = {"type": names[self.moe.experts.activation].__name__}
        network = FFN(
            self.embed_dims,
            self.feedforward_channels,
            act_cfg=kind,
            ffn_drop=self.moe.dropout.p,
            add_identity=self.add_identity,
        )
        network.gamma2, network.dropout_layer = self.gamma2, self.dropout_layer
        up, _, down = _read(network)
        _, _, *tensors = joined(self.moe)
        for place, tensor in zip((up.weight, up.bias, down.weight, down.bias), tensors):
            assert tensor is not None
            place.data = tensor.clone()
        return network.train(self.training)


def moe_tune(
    detector: nn.Module,
    *,
    copies: int = 8,
    slices: int = 2,
    balance: float = 0.01,
    train: Trained = "all",
    **options: Any,
) -> nn.Module:
    """Turn each feed-forward network of a detector's decoder into copies x slices experts, in
    place; -> the detector.

    For mmdetection's DETR family with decoder layers that have an `ffn`: DINO, Deformable DETR,
    Grounding DINO and others. Each network is copied `copies` times and cut along its inner width
    into `slices` experts, `slices` of which are active, so a query costs what it cost; at first the
    detector is the same function (see `decompose`). Load the dense weights before, `load_weights`
    reads mmengine's files. The loss of the experts' use, balance times the load balance (1 at even
    use), joins the detector's losses as `loss_moe`.

    train: "experts" freezes all but the experts with their routers, the detection head, and the
    layers that join image and text where the encoder has them, what the paper trains in its second
    stage. options: as in `MoE`.

    Raises ValueError if there is no decoder with such networks, or one that cannot be cut.
    """
    if train not in ("all", "experts"):
        raise ValueError(f"moe_tune: train must be 'all' or 'experts', got {train!r}")
    layers = [layer for layer in _layers(detector) if isinstance(getattr(layer, "ffn", None), FFN)]
    if not layers:
        raise ValueError(
            f"moe_tune: {type(detector).__name__} has no decoder whose layers have an FFN; needs a "
            "detector like DINO, "
            "Deformable DETR or Grounding DINO, not yet tuned"
        )
    networks = [MoEFFN(layer.ffn, copies, slices, balance=balance, **options) for layer in layers]
    for layer, network in zip(layers, networks):
        layer.ffn = network.train(layer.training)
    detector.__class__ = _tuned(type(detector))
    if train == "experts":
        detector.requires_grad_(False)
        for part in (*networks, *_also_trained(detector)):
            part.requires_grad_(True)
    return detector


def moe_merge(detector: nn.Module) -> nn.Module:
    """Undo `moe_tune` in place: feed-forward networks with the mean of the copies, the former
    class; -> the detector.

    Raises ValueError for a detector that is not tuned.
    """
    layers = [
        layer for layer in _layers(detector) if isinstance(getattr(layer, "ffn", None), MoEFFN)
    ]
    if not layers:
        raise ValueError(f"moe_merge: {type(detector).__name__} has no experts in its decoder")
    for layer in layers:
        layer.ffn = layer.ffn.dense()
    detector.__class__ = type(detector).__mro__[1]
    return detector


@MODELS.register_module()
def MoETuned(detector: dict[str, Any], checkpoint: str | None = None, **options: Any) -> nn.Module:
    """For configs: `model = dict(type="MoETuned", detector=dict(type="DINO", ...),
    checkpoint="dense.pth", copies=8)`.

    detector: the dense detector's config; checkpoint: its trained weights, as a file of mmengine;
    without it the experts start from its initial weights. options: of `moe_tune`."""
    model = MODELS.build(detector)
    if checkpoint is None:
        model.init_weights()
    else:
        from .checkpoints import load_weights

        model.load_state_dict(load_weights(checkpoint))
    return moe_tune(model, **options)


@HOOKS.register_module()
class RoutingHook(Hook):
    """Entropy of the routers and the load of the busiest expert of each layer, in mmengine's log of
    training.

    In a config: `custom_hooks = [dict(type="RoutingHook", interval=50)]`. interval: iterations that
    are counted together. Scalars `train/moe1_entropy` (nats) and `train/moe1_top_load` (1 / experts
    at even use), ..."""

    priority = "VERY_HIGH"  # before the logger reads them

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self.watch: RoutingWatch | None = None

    def before_train(self, runner: Any) -> None:
        """Start to count."""
        self.watch = RoutingWatch(runner.model).__enter__()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Hand the figures over."""
        if self.watch is None or (runner.iter + 1) % self.interval:
            return
        figures = self.watch.figures()
        for i in range(1, len(self.watch.layers) + 1):
            loads = [value for name, value in figures.items() if name.startswith(f"moe{i}_load")]
            if loads:
                runner.message_hub.update_scalar(
                    f"train/moe{i}_entropy", figures[f"moe{i}_entropy"]
                )
                runner.message_hub.update_scalar(f"train/moe{i}_top_load", max(loads))
        self.watch.__exit__()
        self.watch = RoutingWatch(runner.model).__enter__()

    def before_val(self, runner: Any) -> None:
        """Validation does not count."""
        if self.watch is not None:
            self.watch.__exit__()

    def after_val(self, runner: Any) -> None:
        """Go on."""
        if self.watch is not None:
            self.watch.__enter__()

    def after_train(self, runner: Any) -> None:
        """Stop."""
        if self.watch is not None:
            self.watch.__exit__()
        self.watch = None


def experts_of(detector: nn.Module) -> Iterator[MoE]:
    """The expert layers of a tuned detector, in the order of its decoder."""
    return (part for part in detector.modules() if isinstance(part, MoE))


def _layers(detector: nn.Module) -> Iterable[Any]:
    return getattr(getattr(detector, "decoder", None), "layers", ())


def _also_trained(detector: nn.Module) -> Iterator[nn.Module]:
    places = (
        getattr(detector, "bbox_head", None),
        getattr(getattr(detector, "encoder", None), "fusion_layers", None),
    )
    return (place for place in places if isinstance(place, nn.Module))


def _read(network: FFN) -> tuple[nn.Linear, str, nn.Linear]:
    """The two linear layers and the name of what is between them."""
    inner, down = list(network.layers[0].children()), network.layers[-2]
    up, kind = inner[0], type(inner[1])
    if (
        network.num_fcs == 2
        and kind in ACTIVATIONS
        and isinstance(up, nn.Linear)
        and isinstance(down, nn.Linear)
    ):
        return up, ACTIVATIONS[kind], down
    names = ", ".join(activation.__name__ for activation in ACTIVATIONS)
    raise ValueError(
        f"moe_tune: needs an FFN of two linear layers with one of {names} between, got {network}"
    )


@functools.cache
def _tuned(kind: type) -> type:
    """The detector's class with the loss of the experts among its losses."""

    class Tuned(kind):
        def loss(self, *arguments: Any, **named: Any) -> dict[str, Any]:
            losses = super().loss(*arguments, **named)
            extra = auxiliary_loss(self)
            return losses if extra is None else losses | {"loss_moe": extra}

        def init_weights(self) -> None:
            """Nothing: the experts come from a network that has its weights; a new draw would undo
            that.
            """

    Tuned.__name__ = Tuned.__qualname__ = f"MoETuned{kind.__name__}"
    return Tuned
