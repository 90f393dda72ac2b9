"""Options of whole-slide images."""

from dataclasses import dataclass
from typing import Literal

from ..engine.options import PredictOptions, TrainOptions

ModelName = Literal["acmil", "acmil-mha", "abmil", "mean", "max"]


@dataclass(frozen=True, kw_only=True)
class WsiOptions(TrainOptions):
    """Train ACMIL on slides, on stored features or on a table of bags: scores by patient, baseline,
    heatmaps.
    """

    data: str | None = None
    """List of slides (csv: slide, label, perhaps patient, split, mpp), its folder, or a table of
    bags.
    """
    slides: str | None = None
    """Folder of the slides (default: the folder of the list)."""
    features: str | None = None
    """Folder of feature files (HDF5 of Headwise, CLAM or TRIDENT); what it lacks is extracted into
    it.
    """
    encoder: str = "auto"
    """timm model that encodes tiles; auto: resnet50.a1_in1k, and random-filters for the generated
    sample.
    """
    weights: str = "pretrained"
    """Weights of the encoder: pretrained, random, or a file (safetensors, or a plain state
    dict).
    """
    tile: int = 256
    """Pixels of a side of a tile."""
    tile_mpp: float = 0.5
    """Micrometres a pixel of a tile (0.5 is about 20x)."""
    overlap: float = 0.0
    """Share of a side that neighbouring tiles share."""
    least_tissue: float = 0.25
    """Share of a tile that must be tissue."""
    mpp: float | None = None
    """Micrometres a pixel at level 0 of slides whose file does not say."""
    encode_batch: int = 64
    """Tiles that are encoded at once."""
    threads: int = 2
    """Threads that read tiles ahead of the encoder."""
    model: ModelName = "acmil"
    """acmil (gated) and acmil-mha (multi-head) with several branches; abmil, one; mean and max
    pooling.
    """
    inner: int = 256
    """Width of an embedded tile."""
    branches: int = 5
    """Branches of attention of acmil."""
    masked: int = 10
    """Tiles of highest attention among which some are masked in training; 0: no masking."""
    mask_share: float = 0.6
    """Share of them that is masked."""
    diversity: float = 1.0
    """Weight of the loss that keeps the branches apart."""
    branch_loss: float = 1.0
    """Weight of the losses of the single branches."""
    dropout: float = 0.0
    """Dropout of features and embedded tiles."""
    attention: str = "none"
    """Let tiles of a slide see each other before pooling: a mechanism of `headwise list attention`
    that fits any tokens."""
    layers: int = 1
    """Layers of --attention."""
    heads: int = 4
    """Heads of --attention."""
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward part of a layer of --attention; moe: 8 experts, of which a tile uses 2."""
    standardise: bool = True
    """Standardise features by mean and deviation of the training part; the paper does not."""
    class_weights: bool = False
    """Weight classes by the inverse of their frequency."""
    epochs: int = 50
    """Passes over the training part at most."""
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
    """Classify slides, feature files or bags; heatmaps and top tiles of each slide beside OUTPUT,
    in OUTPUT.slides/.
    """

    input: str
    """Slide, feature file (.h5), table of bags, folder of them, or quoted pattern."""
    features: str | None = None
    """Folder of feature files; what it lacks is extracted into it (default:
    OUTPUT.slides/features).
    """
    slides: str | None = None
    """Folder of the slides that feature files belong to, to draw heatmaps on them."""
    mpp: float | None = None
    """Micrometres a pixel at level 0 of slides whose file does not say (default: as in
    training).
    """
    explain: bool = True
    """Write heatmap.png, heatmap.geojson (for QuPath) and tiles.png of every slide."""
    top: int = 8
    """Tiles of highest attention to list and to show."""
    shard_size: int = 4
    """Items per shard: the unit of memory, of restarting and of sharing work."""


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(WsiOptions):
    """Repeated k-fold cross-validation by patient: mean and deviation beside scikit-learn's floors;
    resumable.
    """

    output: str
    """Folder to write; started again it does what is left, and more models, repeats or seeds are
    added to it.
    """
    models: tuple[ModelName, ...] = ("acmil", "abmil", "mean")
    """Models to compare."""
    folds: int = 10
    """Folds, by patient and stratified."""
    repeats: int = 5
    """Times that the folds are drawn anew."""
    seeds: int = 1
    """Trainings of each fold, averaged into one prediction."""
    processes: int = 1
    """Processes that share the folds."""


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    """Extract features of all slides of a folder, in the layout of CLAM and TRIDENT; started again
    it does the rest.
    """

    slides: str
    """Folder of slides, searched at any depth."""
    output: str
    """Folder to write: NAME.h5 of each slide, and status.csv."""
    encoder: str = "resnet50.a1_in1k"
    """timm model that encodes tiles, or random-filters, which needs no weights and knows no
    tissue.
    """
    weights: str = "pretrained"
    """Weights of the encoder: pretrained, random, or a file (safetensors, or a plain state
    dict).
    """
    tile: int = 256
    """Pixels of a side of a tile."""
    tile_mpp: float = 0.5
    """Micrometres a pixel of a tile (0.5 is about 20x)."""
    overlap: float = 0.0
    """Share of a side that neighbouring tiles share."""
    least_tissue: float = 0.25
    """Share of a tile that must be tissue."""
    mpp: float | None = None
    """Micrometres a pixel at level 0 of slides whose file does not say."""
    encode_batch: int = 64
    """Tiles that are encoded at once."""
    threads: int = 2
    """Threads that read tiles ahead of the encoder."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""
