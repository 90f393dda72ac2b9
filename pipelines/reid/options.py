"""Options of re-identification and fine-grained recognition."""

from dataclasses import dataclass
from typing import Literal

from ..engine.options import PredictOptions, TrainOptions

# What `compare` trains: the transformer alone, with one of DCAL's branches, with both.
VARIANTS: dict[str, dict[str, object]] = {
    "baseline": {"glca": 0, "pwca": False},
    "glca": {"pwca": False},
    "pwca": {"glca": 0},
    "dcal": {},
}


@dataclass(frozen=True, kw_only=True)
class ReidOptions(TrainOptions):
    """Train DCAL on pictures of identities (to search) or of classes (to recognise)."""

    data: str | None = None
    """Folder of a known layout, of one folder an identity or class, or a table (image, identity,
    camera, split).
    """
    images: str | None = None
    """Folder that the pictures of a table lie in (default: the folder of the table)."""
    layout: str = "auto"
    """market1501, dukemtmc, msmt17, veri776, cub200, cars, aircraft, folders, table; auto: by what
    the folder holds.
    """
    goal: Literal["auto", "search", "classes"] = "auto"
    """search: find an identity among pictures of people never trained on; classes: name the class;
    auto: by data.
    """
    model: Literal["dcal", "cca"] = "dcal"
    """dcal; or cca, one space of vectors for each attribute of a table (in the spirit of CCA)."""
    attributes: tuple[str, ...] = ()
    """Columns of the table that cca learns (default: all that are not image, identity, camera and
    split).
    """
    size: tuple[int, int] = (128, 64)
    """Height and width of a picture, pixels (the papers take 256 128 of persons, 256 256 of
    vehicles, 448 448 of fine-grained classes: --preset persons, vehicles, fine-grained)."""
    enlarge: float = 1.0
    """Pictures are read larger by this factor, cut at random in training and in the middle after
    it.
    """
    backbone: str = "scratch"
    """ViT or DeiT of timm (vit_base_patch16_224.augreg_in21k, …), or scratch: a small one without
    weights.
    """
    weights: str = "pretrained"
    """Weights of timm's backbone: pretrained, random, or a file (safetensors, or a plain state
    dict).
    """
    patch: int = 16
    """Pixels of a side of a patch (scratch)."""
    width: int = 192
    """Width of a token (scratch)."""
    layers: int = 6
    """Transformer blocks (scratch)."""
    heads: int = 3
    """Attention heads (scratch)."""
    attention: str = "softmax"
    """Mechanism of `headwise list attention` in every block; another than softmax needs --glca 0
    and --no-pwca.
    """
    ffn: Literal["mlp", "glu", "moe"] = "mlp"
    """Feed-forward part of every block; moe: 8 experts, of which a token uses 2."""
    drop_path: float = 0.1
    """Share of blocks' results that training leaves out (stochastic depth)."""
    glca: int = 1
    """Blocks of global-local cross-attention; 0: none."""
    local: float = 0.3
    """Share of the patches that ask in it, those of the highest attention rollout (paper: .3 to
    search, .1 classes).
    """
    pwca: bool = True
    """Pair-wise cross-attention in training."""
    embedding: Literal["both", "sa"] = "both"
    """Heads that count after training: self-attention and GLCA, or self-attention alone, which
    costs no more than the plain transformer."""
    balance: bool = True
    """Learn the weights of the branches' losses; else they count alike."""
    triplet: Literal["auto", "yes", "no"] = "auto"
    """Batch-hard triplet loss beside the cross-entropy; auto: to search."""
    margin: float | None = None
    """Margin of the triplet loss; without it the soft one, log(1 + exp(d))."""
    smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    per_identity: int = 4
    """Pictures of each identity in a batch, where there is a triplet loss."""
    neck: Literal["auto", "yes", "no"] = "auto"
    """Batch normalisation in front of the classifiers (BNNeck); auto: to search."""
    vector: int = 128
    """Width of a vector of cca."""
    flip: bool = True
    """Mirror half of the pictures in training."""
    pad: int = 10
    """Pixels by which pictures are padded before they are cut at random in training."""
    erase: float = 0.5
    """Share of the pictures in which training blots out a rectangle."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """adam (AdamW with --weight-decay), or sgd with momentum .9."""
    validation_share: float = 0.15
    """Share of the training identities (to search) or pictures that choose the epoch; 0: train on
    all, keep the last."""
    test_share: float = 0.3
    """Share of the identities (to search) or pictures that are kept for the test, where the data
    has no parts.
    """
    rerank: int = 20_000
    """Also score with k-reciprocal re-ranking where no more pictures than this are ranked; 0:
    never.
    """
    epochs: int = 60
    """Passes over the training part at most."""
    patience: int = 20
    """Stop after this many epochs without a better validation score."""
    batch_size: int = 64
    """Pictures per optimiser step, over all devices together; with triplets whole identities, so
    --per-identity must divide it."""
    lr: float = 5e-4
    """Learning rate at the top of its schedule."""
    warmup: int = 5
    """Epochs at the start over which the learning rate rises to its schedule in equal steps."""
    weight_decay: float = 0.05
    """Decoupled weight decay of adam, plain weight decay of sgd; not of norms, biases, positions
    and tokens.
    """


@dataclass(frozen=True, kw_only=True)
class ReidPredictOptions(PredictOptions):
    """Vectors of pictures (and their classes): a gallery to search in, parquet, resumable."""

    input: str
    """Picture, folder of pictures at any depth, quoted pattern, or table with a column image."""
    images: str | None = None
    """Folder that the pictures of a table lie in (default: the folder of the table)."""
    embedding: Literal["trained", "both", "sa"] = "trained"
    """Heads that count: both, self-attention alone, or as the run was trained."""
    maps: bool = False
    """Draw the attention rollout over every picture, in OUTPUT.maps/."""
    shard_size: int = 256
    """Items per shard: the unit of memory, of restarting and of sharing work."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Rank a gallery for query pictures: scores as parquet, and a picture of the ranked lists
    beside it.
    """

    run: str
    """Run directory of the trained model."""
    query: str
    """Picture, folder of pictures, quoted pattern, or table with a column image."""
    gallery: str
    """Parquet that `embed` wrote, or pictures as for --query, which are embedded first."""
    output: str
    """Parquet file to write: query, rank, item, file, score; OUTPUT.png shows the lists."""
    k: int = 10
    """Items to list for each query."""
    attribute: str | None = None
    """Attribute to compare by, of a run of cca."""
    rerank: bool = False
    """Re-rank by k-reciprocal neighbours: better lists for several queries, at the cost of
    comparing all with all.
    """
    faiss: str | None = None
    """Search by FAISS (extra `search`) with such an index (Flat, HNSW32, IVF256,Flat); else the
    search is exact.
    """
    shown: int = 12
    """Queries in the picture at most."""
    batch_size: int = 64
    """Pictures per forward pass."""
    overwrite: bool = False
    """Replace an existing output."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ReidOptions):
    """Train the plain transformer, with each branch of DCAL, and with both, over several seeds: a
    table.
    """

    models: tuple[str, ...] = tuple(VARIANTS)
    """Variants to train: baseline, glca, pwca, dcal."""
    seeds: int = 3
    """Seeds of each, from --seed on."""
    output: str
    """Folder to write: the table, a picture, and a JSON file a training, which is not trained
    again.
    """
