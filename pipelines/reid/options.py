"""Options of re-identification and fine-grained recognition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.account import Doubt
from ..engine.options import EvaluateOptions, MixingOptions, PredictOptions
from ..engine.search_space import Choices, Range, Space

# What `compare` trains: the transformer alone, with one of DCAL's branches, with both.
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "baseline": {"glca": 0, "pwca": False},
    "glca": {"pwca": False},
    "pwca": {"glca": 0},
    "dcal": {},
}
Groups = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class ReidOptions(MixingOptions):
    """Train DCAL on pictures of identities (to search) or of classes (to recognise)."""

    GROUPS: ClassVar[Groups] = {
        "data": (
            "images", "columns", "layout", "goal", "attributes", "size", "enlarge",
            "validation_share", "test_share",
        ),
        "model": (
            "model", "backbone", "weights", "tune", "patch", "width", "layers", "heads",
            "attention", "attention_options", "ffn", "drop_path", "glca", "local", "pwca",
            "embedding", "neck", "vector",
        ),
        "loss": ("balance", "triplet", "margin", "smoothing", "imbalance", "per_identity"),
        "augmentation": ("flip", "pad", "erase"),
        "training": ("optimizer",),
        "scoring": ("false_match", "rerank"),
    }  # fmt: skip
    WHERE: ClassVar[Sequence[Mapping[str, object]]] = ({"glca": 0}, {"glca": 0, "pwca": False})
    # Of the data, but the rows that are scored stay the same: `compare` may vary them.
    SAME_ROWS: ClassVar[tuple[str, ...]] = ("enlarge",)
    SEARCH: ClassVar[Space] = {
        "width": Choices((96, 192, 288)),
        "layers": Range(3, 8),
        "drop_path": Range(0.0, 0.3),
        "smoothing": Range(0.0, 0.2),
    }

    data: str | None = None
    """Folder of a known layout, folder with one folder per identity or class, or table (image,
    identity, camera, split). Without it the built-in generated sample is used."""
    images: str | None = None
    """Folder of the pictures that a table names; by default the folder of the table."""
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, for names that are not usual: identity=who
    image=shot."""
    layout: str = "auto"
    """Layout of the data: market1501, dukemtmc, msmt17, veri776, cub200, cars, aircraft, folders or
    table; auto recognises it by its files."""
    goal: Literal["auto", "search", "classes"] = "auto"
    """search: find an identity among pictures of people never trained on; classes: name the class;
    auto: decided by the data."""
    model: Literal["dcal", "cca"] = "dcal"
    """dcal; or cca, which learns a space of vectors for each attribute of a table (in the spirit of
    CCA)."""
    attributes: tuple[str, ...] = ()
    """Columns of the table that cca learns; by default all but image, identity, camera and
    split."""
    size: tuple[int, int] = (128, 64)
    """Height and width of a picture in pixels (the papers take 256 128 for persons, 256 256 for
    vehicles, 448 448 for fine-grained classes: --preset persons, vehicles, fine-grained)."""
    enlarge: float = 1.0
    """Pictures are read larger by this factor, and cropped: at random in training, else to the
    centre."""
    backbone: str = "scratch"
    """ViT or DeiT of timm (vit_base_patch16_224.augreg_in21k, ...), or scratch: a small one without
    pretrained weights."""
    weights: str = "pretrained"
    """Weights of the backbone: a name of `headwise data list` (dinov2-small-focus), which is
    fetched on first use and says which model it is; pretrained (timm's, of --backbone); hf-hub:
    OWNER/NAME; a file (safetensors, or a plain state dict); none; or auto, the best at hand."""
    tune: Literal["all", "last", "none"] = "all"
    """What of a backbone with pretrained weights a training changes: all, the last two blocks of
    twelve, or none (a frozen backbone, of which everything around it learns to make use)."""
    patch: int = 16
    """Side of a patch in pixels (scratch)."""
    width: int = 192
    """Width of a token (scratch)."""
    layers: int = 6
    """Transformer blocks (scratch)."""
    heads: int = 3
    """Attention heads (scratch)."""
    attention: str = "softmax"
    """Mechanism of `headwise list attention` in all blocks and branches. GLCA needs one that has
    attention weights and takes a context, PWCA one that takes a context: without, add --glca 0 and
    --no-pwca."""
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward network of all blocks; moe: 8 experts, of which each token uses 2."""
    drop_path: float = 0.1
    """Highest probability, over the blocks, that training skips one (stochastic depth)."""
    glca: int = 1
    """Blocks of global-local cross-attention (GLCA); 0: none."""
    local: float = 0.3
    """Share of the patches that are queries of GLCA, those with the highest attention rollout
    (paper: 0.3 to search, 0.1 for classes)."""
    pwca: bool = True
    """Train with pair-wise cross-attention (PWCA)."""
    embedding: Literal["both", "sa"] = "both"
    """Heads used after training: both (self-attention and GLCA), or sa (self-attention alone, as
    cheap as the plain transformer)."""
    balance: bool = True
    """Learn the weights of the branches' losses; otherwise all have the same weight."""
    triplet: Literal["auto", "yes", "no"] = "auto"
    """Add a batch-hard triplet loss to the cross-entropy; auto: when searching."""
    margin: float | None = None
    """Margin of the triplet loss; without it the soft margin, log(1 + exp(d))."""
    smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    imbalance: Literal["none", "pos-weight", "focal", "logit-adjust", "diverse"] = "none"
    """How the loss of classes helps rare ones: they weigh more (pos-weight), what is easy weighs
    less (focal), logits are adjusted by how frequent the classes are (logit-adjust), or three
    experts prefer frequent, even and rare classes (diverse: MDCS without its second view). For
    --goal classes."""
    per_identity: int = 4
    """Pictures of each identity in a batch, with a triplet loss."""
    neck: Literal["auto", "yes", "no"] = "auto"
    """Batch normalisation before the classifiers (BNNeck); auto: when searching."""
    vector: int = 128
    """Length of the vectors of cca."""
    flip: bool = True
    """Mirror half of the pictures in training."""
    pad: int = 10
    """Pixels of padding before pictures are cropped at random in training."""
    erase: float = 0.5
    """Share of the pictures in which training erases a random rectangle."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """adam (AdamW with --weight-decay), or sgd with momentum 0.9."""
    validation_share: float = 0.15
    """Share of the training identities (to search) or pictures that choose the best epoch; 0: train
    on all of them and keep the last epoch."""
    test_share: float = 0.3
    """Share of the identities (to search) or pictures that become the test part, if the data names
    no parts."""
    false_match: float | None = None
    """Share of the searches for somebody who is not in the gallery that may end with a name: it
    sets the threshold, on the validation part. Without it, as many end so as searches for somebody
    who is there end without a name or with another."""
    rerank: int = 20_000
    """Also score with k-reciprocal re-ranking if at most this many pictures are ranked; 0:
    never."""
    epochs: int = 60
    """Passes over the training part at most."""
    patience: int = 20
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 64
    """Pictures per optimiser step, over all devices together; with triplets, a multiple of
    --per-identity."""
    lr: float = 5e-4
    """Highest learning rate of the schedule."""
    warmup: int = 5
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""
    weight_decay: float = 0.05
    """Weight decay: decoupled for adam, plain for sgd; not for norms, biases, positions and
    tokens."""


@dataclass(frozen=True, kw_only=True)
class ReidEvaluateOptions(EvaluateOptions):
    """Score a trained run, on its own test part or on other data."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"data": ("images", "columns")}

    images: str | None = None
    """Folder of the pictures that a table or list names; without it, as in the training."""
    columns: tuple[str, ...] = ()
    """Columns of a table by what they hold; without it, as in the training."""


@dataclass(frozen=True, kw_only=True)
class ReidPredictOptions(PredictOptions):
    """Vectors of pictures (and their classes): a gallery to search in, parquet, resumable."""

    GROUPS: ClassVar[Groups] = {
        "data": ("images", "columns"),
        "model": ("embedding",),
        "output": ("maps",),
    }

    input: str
    """Picture, folder of pictures at any depth, quoted pattern, or table with a column image."""
    images: str | None = None
    """Folder of the pictures that a table names; by default the folder of the table."""
    columns: tuple[str, ...] = ()
    """Columns of the table by what they hold, for names that are not usual: image=shot."""
    embedding: Literal["trained", "both", "sa"] = "trained"
    """Heads of dcal used: both, sa (self-attention alone), or those that the run was trained
    with."""
    maps: bool = False
    """Draw the attention rollout of dcal over each picture, in OUTPUT.maps/."""
    shard_size: int = 256
    """Items per shard: the unit of memory, of restarting and of sharing work."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Rank a gallery for query pictures: scores as parquet, and a picture of the ranked lists."""

    GROUPS: ClassVar[Groups] = {
        "data": ("query", "gallery"),
        "search": ("k", "false_match", "attribute", "rerank", "faiss"),
        "output": ("shown",),
        "hardware": ("batch_size",),
    }

    run: str
    """Run directory of the trained model."""
    query: str
    """Picture, folder of pictures, quoted pattern, or table with a column image."""
    gallery: str
    """Parquet that `embed` wrote, or pictures as for --query, which are embedded first."""
    output: str
    """File to write, .parquet, .csv, .tsv, .jsonl or .xlsx: query, rank, item, file, score,
    identity, probability, answer; OUTPUT.png shows the lists."""
    k: int = 10
    """Items to list for each query."""
    false_match: float | None = None
    """Share of the searches for somebody who is not in the gallery that may end with a name, as
    counted on the validation part; without it, the threshold of the training."""
    attribute: str | None = None
    """Attribute to compare by, for a run of cca."""
    rerank: bool = False
    """Re-rank by k-reciprocal neighbours: better lists for several queries, at the cost of
    comparing all pictures with each other."""
    faiss: str | None = None
    """Search by FAISS (extra `search`) with this index (Flat, HNSW32, IVF256,Flat); otherwise the
    search is exact."""
    shown: int = 12
    """Queries in the picture at most."""
    batch_size: int = 64
    """Pictures per forward pass."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: links (links that lead out of their folder are
    followed)."""
    overwrite: bool = False
    """Replace an existing output."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """Cut people out of a video or a folder of frames: pictures and crops.csv, ready for train and
    embed; resumable."""

    GROUPS: ClassVar[Groups] = {
        "data": ("boxes", "columns", "first_frame", "centre", "classes", "every", "camera"),
        "detector": ("config", "checkpoint"),
        "crops": ("least_score", "least_visibility", "margin", "least"),
    }

    input: str
    """Video file, or folder of frames (pictures in the order of their names; a sequence of
    MOTChallenge)."""
    output: str
    """Folder to write: one picture per crop, their table crops.csv, and crops.png with the first of
    them."""
    boxes: str | None = None
    """Table of boxes: frame, x, y, width, height [score, identity, camera, class, visibility]; or
    gt.txt, det.txt of MOTChallenge. Without it a detector finds them."""
    columns: tuple[str, ...] = ()
    """Columns of the boxes by what they hold, for names that are not usual: frame=shot x=left."""
    first_frame: int | None = None
    """Number that the boxes give to the first frame, 0 or 1; by default 0 where they name a frame 0
    that the input has not, else 1."""
    centre: bool = False
    """x and y are the middle of a box, not its upper left corner."""
    config: str | None = None
    """Config of mmdetection for a detector. It is a program that is run: use one that you trust."""
    checkpoint: str | None = None
    """Weights of the detector (.pth of mmdetection)."""
    classes: tuple[str, ...] = ("person",)
    """Classes to crop, by name or number; person is also class 0 if classes have no names."""
    least_score: float = 0.5
    """Boxes with a lower score are left out; boxes without a score stay."""
    least_visibility: float = 0.0
    """Boxes of which a smaller share is visible are left out, and those of which nothing is; boxes
    without a visibility stay."""
    margin: float = 0.0
    """Share of its width and height by which a box is widened, half of it on each side."""
    least: int = 16
    """Crops with fewer pixels on their shorter side are left out."""
    every: int = 1
    """Take one of this many frames."""
    camera: str | None = None
    """Name of the camera; by default that of the boxes, else the name of the input. Of a table with
    cameras, only its boxes are used."""
    accept: tuple[Doubt, ...] = ()
    """Doubts about the data that are no errors: links (links that lead out of their folder are
    followed)."""
    overwrite: bool = False
    """Replace crops that are in OUTPUT, and begin again if another job was interrupted there."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device of the detector."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ReidOptions):
    """Train the plain transformer, with each branch of DCAL, and with both, over several seeds: a
    table.

    With --vary OPTION=a,b it compares settings of train instead (`compare --vary --help`).
    """

    GROUPS: ClassVar[Groups] = {**ReidOptions.GROUPS, "comparison": ("models", "seeds")}

    models: tuple[str, ...] = tuple(VARIANTS)
    """Variants to train: baseline, glca, pwca, dcal."""
    seeds: int = 3
    """Number of seeds of each variant, from --seed on."""
    output: str
    """Folder to write: the table, a picture, and one JSON file per training, which is not trained
    again."""
