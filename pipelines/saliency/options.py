"""Options of RGB-D saliency."""

from dataclasses import dataclass
from typing import Literal

from ..engine.options import PredictOptions, TrainOptions


@dataclass(frozen=True, kw_only=True)
class SaliencyOptions(TrainOptions):
    """Train GL-DMNet on scenes of colour, depth and a mask of what is salient."""

    data: str | None = None
    """Folder of scenes (RGB, depth and GT, or the names of a public set), of several sets, or a
    table (image, depth, mask, set, part, group)."""
    depth: str | None = None
    """Folder of the depth maps, where its name does not tell; --data is then the folder of the
    pictures.
    """
    masks: str | None = None
    """Folder of the masks, where its name does not tell."""
    groups: str | None = None
    """Table (image, group) of scenes that show the same things: they never stand in two parts."""
    near: Literal["bright", "dark"] = "bright"
    """Whether near things are bright in the depth maps, or dark; it is checked against the
    masks.
    """
    unmatched: Literal["error", "skip"] = "error"
    """Pictures without depth or mask: an error, or left out and counted."""
    size: tuple[int, int] = (128, 128)
    """Height and width that the model sees, pixels (the paper takes 256 256: --preset paper)."""
    backbone: str = "small"
    """Encoder of colour and of depth: a model of timm with maps of strides 4 to 32, or small (1.2
    million weights).
    """
    weights: str = "random"
    """Weights of timm's backbone: pretrained, random, or a file (safetensors, or a plain state
    dict).
    """
    transformer: str = "small"
    """Stages of the decoder: pvt_v2_b0 to pvt_v2_b5, small, or none."""
    transformer_weights: str = "random"
    """Weights of the transformer: pretrained, random, or a file."""
    attention: str = "spatial-reduction"
    """Attention of the transformer's blocks: PVTv2's own, or a mechanism of `headwise list
    attention`.
    """
    ffn: Literal["convolved", "mlp", "glu", "convglu", "moe"] = "convolved"
    """Feed-forward part of the transformer's blocks: PVTv2's own, or a network of the core."""
    fusion: Literal["both", "position", "channel", "concat"] = "both"
    """Mutual fusion of colour and depth: by position and channel, by one of them, or neither."""
    position: str = "signed-root"
    """Attention of position fusion: the paper's signed-root, or another of the core (agent-grid,
    coordinate, …).
    """
    recall: str = "squeeze"
    """Channel attention of the decoder: the paper's squeeze, or another of the core (coordinate,
    agent-grid, …).
    """
    drop_path: float = 0.1
    """Share of the transformer's blocks that training leaves out (stochastic depth)."""
    frozen_encoder: int = 0
    """Epochs at the start in which the encoders are held (paper: 30)."""
    frozen_transformer: int = 0
    """Epochs after these in which the transformer is held (paper: 30)."""
    encoder_share: float = 1.0
    """Learning rate of the encoders, as a share of --lr."""
    flip: bool = True
    """Mirror half of the scenes in training."""
    zoom: float = 0.3
    """Training looks at a random part of the scene, of at least 1 minus this share of each side."""
    turn: float = 10.0
    """Largest random rotation in training, degrees."""
    colour: float = 0.3
    """Largest random change of brightness, contrast and saturation in training, as a share."""
    blank: float = 0.1
    """Share of the training scenes whose depth is blanked, so that the model can do without."""
    validation_share: float = 0.15
    """Share of the training groups that choose the epoch; 0: train on all, keep the last."""
    test_share: float = 0.25
    """Share of the groups that are kept for the test, where the data has no parts."""
    epochs: int = 60
    """Passes over the training part at most."""
    patience: int = 20
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 8
    """Scenes per optimiser step, over all devices together."""
    lr: float = 1e-3
    """Learning rate at the top of its schedule."""
    warmup: int = 2
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""


@dataclass(frozen=True, kw_only=True)
class SaliencyPredictOptions(PredictOptions):
    """Saliency maps of 8 bits at the size of the pictures in OUTPUT.maps/, and a parquet that lists
    them.
    """

    input: str
    """Picture, folder of pictures at any depth, quoted pattern, or table (image, depth). No masks
    are needed.
    """
    depth: str | None = None
    """Depth map of the picture, or folder of depth maps (default: the folder of depth beside that
    of the pictures).
    """
    near: Literal["trained", "bright", "dark"] = "trained"
    """Whether near things are bright in the depth maps, or dark, or as in training."""
    missing: Literal["blank", "error"] = "blank"
    """A picture without depth: by colour alone, or an error."""
    threshold: float = 0.5
    """Saliency from which a pixel counts as salient, for the columns salient and box."""
    shard_size: int = 128
    """Items per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 16
    """Items per forward pass."""


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(SaliencyOptions):
    """Leave one group of scenes out in turn, beside depth alone and the middle of the picture;
    resumable.
    """

    output: str
    """Folder to write; started again it does what is left."""
    validation_share: float = 0.0
    """Share of the training groups that choose the epoch; 0: train on all, keep the last."""
