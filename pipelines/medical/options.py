"""Options of chest X-rays."""

from dataclasses import dataclass
from typing import Literal

from ..engine.options import PredictOptions, TrainOptions

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
class MedicalOptions(TrainOptions):
    """Train a classifier of chest X-rays with MEDUSA-style attention, and look for what it could
    read but the lung.
    """

    data: str | None = None
    """Folder of classes, table (image, label, perhaps patient, view, source, part), .npz of
    MedMNIST, or lists of COVIDx; pictures of 8 and 16 bits, and DICOM."""
    classes: tuple[str, ...] = ()
    """Classes to keep, in this order (default: all, sorted)."""
    positive: str | None = None
    """Class whose sensitivity and predictive value are reported (default: the last)."""
    lungs: str | None = None
    """Folder of lung masks of the same names (for some of the pictures), for the overlap of
    attention with the lung.
    """
    boxes: str | None = None
    """Table of boxes of findings (image, x, y, w, h, in pixels; also NIH's), for the pointing
    game.
    """
    box_frame: tuple[int, int] | None = None
    """Width and height of the pictures that the boxes were drawn in (default: those of the
    file).
    """
    size: tuple[int, int] = (128, 128)
    """Height and width of the picture that the classifier sees, pixels (published: 480 480)."""
    body_size: tuple[int, int] = (64, 64)
    """Height and width of the picture that the body sees, pixels (published: 256 256)."""
    backbone: str = "small"
    """Classifier: a model of timm that is a sequence of stages (resnet, resnext, densenet,
    convnext), or small.
    """
    weights: str = "random"
    """Weights of the backbone: pretrained, random, or a file (safetensors, or a plain state
    dict).
    """
    attention: Literal["medusa", "none", "squeeze", "cbam", "coordinate"] = "medusa"
    """One body with a head at each scale, none, or gates isolated in each stage, as large as body
    and heads.
    """
    sees: Literal["both", "global", "local"] = "both"
    """What a head sees: the body and the map of its scale, the body alone, or the map alone
    (without a body).
    """
    form: Literal["residual", "pure"] = "residual"
    """What a head does to its map: V (1 + M), or V M."""
    body_width: int = 8
    """Channels of the body's first level; four more double them (our reading of the published one:
    24).
    """
    head_width: int = 32
    """Channels of the heads."""
    body: str | None = None
    """Weights of the body, from `headwise medical body`."""
    body_share: float = 0.1
    """Learning rate of a body that --body gave, as a share of --lr."""
    dropout: float = 0.0
    """Dropout before the classifier."""
    balanced: bool = True
    """Draw batches in which all classes are as frequent."""
    class_weights: bool = False
    """Weight classes in the loss by the inverse of their frequency."""
    turn: float = 10.0
    """Largest random rotation in training, degrees."""
    shift: float = 0.1
    """Largest random shift in training, as a share of a side."""
    zoom: float = 0.15
    """Training sees pictures larger or smaller by up to this share."""
    aspect: float = 0.1
    """Largest random change of the ratio of sides, in 3 of 10 training pictures."""
    brightness: float = 0.1
    """Largest random change of brightness in training, as a share."""
    flip: bool = True
    """Mirror half of the pictures in training."""
    sensitivity: float | None = None
    """Operating point: the fewest false alarms with this sensitivity on the validation part
    (default: the highest balanced accuracy)."""
    validation_share: float = 0.15
    """Share of the training patients that choose epoch, temperature and operating point."""
    test_share: float = 0.2
    """Share of the patients that are kept for the test, where the data has no parts."""
    epochs: int = 30
    """Passes over the training part at most."""
    patience: int = 8
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 16
    """Pictures per optimiser step, over all devices together."""
    lr: float = 1e-3
    """Learning rate at the top of its schedule."""
    warmup: int = 1
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""
    weight_decay: float = 1e-4
    """Decoupled weight decay (AdamW); 0 is plain Adam."""


@dataclass(frozen=True, kw_only=True)
class MedicalPredictOptions(PredictOptions):
    """Classify pictures or DICOM files: calibrated probabilities, and where the model looked, in
    OUTPUT.pictures/.
    """

    input: str
    """Picture, DICOM file, folder of them at any depth, or quoted pattern."""
    explain: bool = True
    """Write a PNG of each picture with the attention of each scale and Grad-CAM."""
    keep_identifiers: bool = False
    """Also write the PatientID of DICOM files."""
    shard_size: int = 128
    """Items per shard: the unit of memory, of restarting and of sharing work."""
    batch_size: int = 32
    """Items per forward pass."""


@dataclass(frozen=True, kw_only=True)
class BodyOptions:
    """Train the body on lung masks; Dice of every mask by a body that has not seen it. For `train
    --body`.
    """

    data: str
    """Folder of X-rays, or a table or list as in training; those without a mask are left out."""
    lungs: str
    """Folder of lung masks of the same names."""
    output: str
    """Folder to write: body.safetensors, body.json, lungs.png."""
    body_size: tuple[int, int] = (64, 64)
    """Height and width of the picture that the body sees, pixels, as in training."""
    body_width: int = 8
    """Channels of the body's first level, as in training."""
    folds: int = 5
    """Parts of the patients; each is scored by a body trained on the others."""
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
    """Train MEDUSA-style attention and its ablations over several seeds: a table; resumable."""

    models: tuple[str, ...] = ("medusa", "global", "local", "none", "squeeze", "cbam", "coordinate")
    """Variants to train: medusa (as the options say), unpretrained (without --body), pure, global,
    local, none, squeeze, cbam, coordinate."""
    seeds: int = 3
    """Seeds of each, from --seed on."""
    output: str
    """Folder to write: the table, a picture, and a JSON file a training, which is not trained
    again.
    """
