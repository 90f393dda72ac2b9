"""Options of whole-slide images, and the check of values that no data can make right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.errors import InputError
from ..engine.command_line.checks import check_attention, check_least
from ..engine.options import PredictOptions, TrainOptions

ModelName = Literal["acmil", "acmil-mha", "abmil", "mean", "max"]
TILE_OPTIONS = (
    "encoder", "weights", "tile", "tile_mpp", "overlap", "least_tissue", "encode_batch", "threads",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WsiOptions(TrainOptions):
    """Train ACMIL on slides, on stored features or on a table of bags: scores by patient, compared
    with a simple model, and heatmaps.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("slides", "features", "mpp", "standardise"),
        "tiles and features": TILE_OPTIONS,
        "model": (
            "model", "inner", "branches", "masked", "mask_share", "dropout", "attention", "layers",
            "heads", "ffn",
        ),
        "loss": ("diversity", "branch_loss", "class_weights"),
    }  # fmt: skip

    data: str | None = None
    """List of slides (table with the columns slide, label and optionally patient, split, mpp), a
    folder with such a list in labels.csv, or a table of bags (one row per instance).
    """
    slides: str | None = None
    """Folder of the slides; without it, the folder of the list."""
    features: str | None = None
    """Folder of feature files (HDF5 from Headwise, CLAM or TRIDENT). Features that it lacks are
    extracted into it.
    """
    encoder: str = "auto"
    """timm model that turns a tile into features. auto is resnet50.a1_in1k, or random-filters for
    the generated sample.
    """
    weights: str = "pretrained"
    """Weights of the encoder: pretrained, random, or a file (safetensors, or a plain state
    dict).
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
    """Micrometres per pixel at level 0, for slides whose file does not say."""
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
class WsiPredictOptions(PredictOptions):
    """Classify slides, feature files or bags; the heatmaps and top tiles of each slide are written
    to OUTPUT.slides/.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("features", "slides", "mpp"),
        "explanation": ("explain", "top"),
    }

    input: str
    """Slide, feature file (.h5), table of bags, list of slides, folder of slides or feature files,
    or quoted pattern.
    """
    features: str | None = None
    """Folder of feature files; features that it lacks are extracted into it. Without it, they are
    stored in OUTPUT.slides/.
    """
    slides: str | None = None
    """Folder of the slides that feature files belong to, to draw heatmaps on them."""
    mpp: float | None = None
    """Micrometres per pixel at level 0, for slides whose file does not say; without it, the value
    of the training.
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
        "folds": ("models", "folds", "repeats", "seeds"),
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
    output: str
    """Folder to write: NAME.h5 for each slide, and status.csv."""
    encoder: str = "resnet50.a1_in1k"
    """timm model that turns a tile into features, or random-filters, which needs no weights and
    knows nothing about tissue.
    """
    weights: str = "pretrained"
    """Weights of the encoder: pretrained, random, or a file (safetensors, or a plain state
    dict).
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
    """Micrometres per pixel at level 0, for slides whose file does not say."""
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
    if isinstance(options, WsiOptions):
        check_attention(
            options.attention, fits=("any tokens",), why="tiles of a slide are a set", optional=True
        )
    if isinstance(options, WsiOptions | FeaturesOptions):
        _check_ranges(options)
    mpp: float | None = getattr(options, "mpp", None)
    if mpp is not None and not 0 < mpp < 1000:
        raise InputError(f"--mpp {mpp}: must be positive, in micrometres per pixel")
    if isinstance(options, WsiPredictOptions) and options.top < 1:
        raise InputError(f"--top {options.top}: must be at least 1")


def _check_ranges(options: WsiOptions | FeaturesOptions) -> None:
    """Options that the verb does not have are left alone."""
    ones = ("inner", "branches", "encode_batch", "threads", "layers", "heads")
    check_least(options, {"tile": 8, "masked": 0, **dict.fromkeys(ones, 1)})
    for name in ("mask_share", "least_tissue"):
        if not 0 <= getattr(options, name, 0) <= 1:
            raise _out_of_range(options, name, "in [0, 1]")
    for name in ("overlap", "dropout"):
        if not 0 <= getattr(options, name, 0) < 1:
            raise _out_of_range(options, name, "in [0, 1)")
    for name in ("diversity", "branch_loss"):
        if not 0 <= getattr(options, name, 0) < float("inf"):
            raise _out_of_range(options, name, "0 or more")
    if not 0 < options.tile_mpp < 1000:
        raise _out_of_range(options, "tile_mpp", "positive, in micrometres per pixel")


def _out_of_range(options: object, name: str, range_: str) -> InputError:
    return InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be {range_}")
