"""Checks of option values that no data can make right. Nothing here imports torch."""

from dataclasses import replace
from math import isfinite
from pathlib import Path

from ...base.errors import InputError
from ...data.catalogue import DATASETS
from ...models.attention import ALIASES, names_with
from ..engine.command_line.checks import check_least, check_shares, check_unread
from ..engine.mechanisms import check_mixing
from .options import VARIANTS, CompareOptions, CropOptions, ReidOptions, SearchOptions

OF_CLASSES = "--goal classes, not by a search"


def check(options: object) -> None:
    """Raise `InputError` for the first option value that no data can make right."""
    if isinstance(options, SearchOptions):
        _check_search(options)
    if isinstance(options, CropOptions):
        _check_crop(options)
    if isinstance(options, ReidOptions):
        _check_numbers(options)
        _check_model(options)
    if isinstance(options, CompareOptions):
        _check_compare(options)
    if isinstance(options, ReidOptions):
        _check_unread(options)


def _check_search(options: SearchOptions) -> None:
    check_least(options, {"k": 1, "shown": 0, "batch_size": 1})
    _check_false_match(options.false_match)
    if options.faiss is not None and options.rerank:
        raise InputError("--faiss: --rerank compares all pictures and asks no index; leave out one")
    if Path(options.output).is_dir():
        raise InputError(f"{options.output}: is a directory; --output names the file to write")


def _check_false_match(share: float | None) -> None:
    if share is not None and not 0 < share < 1:
        raise InputError(f"--false-match {share}: must be above 0 and below 1")


def _check_crop(options: CropOptions) -> None:
    check_least(options, {"least": 1, "every": 1})
    detector = options.config is not None or options.checkpoint is not None
    if options.boxes is None and (options.config is None or options.checkpoint is None):
        raise InputError("reid crop: needs --boxes, or --config and --checkpoint of a detector")
    if options.boxes is not None and detector:
        raise InputError("reid crop: --boxes and a detector exclude each other; leave out one")
    if detector:
        names = ("columns", "first_frame", "centre", "least_visibility")
        check_unread(options, names, "--boxes, not by a detector")
    if options.first_frame not in (None, 0, 1):
        raise InputError(f"--first-frame {options.first_frame}: must be 0 or 1")
    if not 0 <= options.least_visibility <= 1:
        raise InputError(f"--least-visibility {options.least_visibility}: must be in [0, 1]")
    if not 0 <= options.margin <= 10:
        raise InputError(f"--margin {options.margin}: must be in [0, 10]")
    if not isfinite(options.least_score):
        raise InputError(f"--least-score {options.least_score}: must be a finite number")
    if not options.classes:
        raise InputError("--classes: give at least one")
    if options.camera is not None and not options.camera.strip():
        raise InputError("--camera: is empty; give a name or leave it out")


def _check_numbers(options: ReidOptions) -> None:
    at_least_1 = dict.fromkeys(("patch", "width", "layers", "heads", "vector"), 1)
    check_least(options, {**at_least_1, "per_identity": 2, "glca": 0, "pad": 0, "rerank": 0})
    if len(options.size) != 2 or not all(8 <= side <= 4096 for side in options.size):
        raise InputError(
            f"--size {' '.join(map(str, options.size))}: needs height and width, 8 to 4096 pixels"
        )
    if not 1 <= options.enlarge <= 4:
        raise InputError(f"--enlarge {options.enlarge}: must be in [1, 4]")
    if not 0 < options.local <= 1:
        raise InputError(f"--local {options.local}: must be in (0, 1]")
    check_shares(options, ("drop_path", "smoothing", "validation_share", "test_share"))
    if not 0 <= options.erase <= 1:
        raise InputError(f"--erase {options.erase}: must be in [0, 1]")
    _check_false_match(options.false_match)
    if options.margin is not None and not 0 <= options.margin < float("inf"):
        raise InputError(f"--margin {options.margin}: must be 0 or more")


def _check_model(options: ReidOptions) -> None:
    if options.model == "cca" or (options.triplet != "no" and options.goal != "classes"):
        check_batch_size(options)
    check_mixing(
        options, fits=("any tokens", "sequence"), why="a class token stands before the patches"
    )
    if options.model == "dcal":
        variants = options.models if isinstance(options, CompareOptions) else ("dcal",)
        for variant in variants:
            _check_branches(replace(options, **VARIANTS.get(variant, {})))
    if options.model == "cca" and options.goal == "classes":
        raise InputError("--model cca: learns vectors to search by, not --goal classes")


def _check_branches(options: ReidOptions) -> None:
    """Raise `InputError` for a mechanism that a branch of dcal cannot have."""
    name = options.attention
    crosses = ALIASES.get(name, name) in names_with("context")
    has_weights = ALIASES.get(name, name) in names_with("weights")
    lacks = "takes no context" if not crosses else "has no attention weights"
    branches = {
        "GLCA": ("--glca 0", options.glca > 0 and not (crosses and has_weights)),
        "PWCA": ("--no-pwca", options.pwca and not crosses),
    }
    missing = {branch: cure for branch, (cure, refused) in branches.items() if refused}
    if missing:
        need = "needs" if len(missing) == 1 else "need"
        raise InputError(
            f"--attention {name}: {lacks}, which {' and '.join(missing)} {need}; add "
            f"{' and '.join(missing.values())}"
        )


def _check_unread(options: ReidOptions) -> None:
    """Raise `InputError` for options that the chosen model does not read."""
    if options.model == "cca":
        names = (
            "local",
            "pwca",
            "embedding",
            "neck",
            "balance",
            "triplet",
            "smoothing",
            "imbalance",
            "rerank",
            "false_match",
        )
        check_unread(options, names, "--model dcal, not by cca")
        if options.choose not in ("auto", "model"):
            check_unread(options, ("choose",), "--model dcal, not by cca")
    else:
        check_unread(options, ("attributes", "vector"), "--model cca, not by dcal")
    names_model = options.weights in {entry.name for entry in DATASETS}
    if options.backbone != "scratch" or names_model or options.weights.startswith("hf-hub:"):
        names = ("patch", "width", "layers", "heads")
        check_unread(options, names, "--backbone scratch; a backbone of timm has its own sizes")
    if options.glca == 0:
        check_unread(options, ("local",), "GLCA, which --glca 0 leaves out")
    if options.triplet == "no" or (options.triplet == "auto" and options.goal == "classes"):
        check_unread(options, ("margin",), "a triplet loss (--triplet yes)")
    if options.goal == "classes":
        check_unread(options, ("false_match", "rerank"), "--goal search, not by classes")
    if options.goal == "search":
        check_unread(options, ("imbalance",), OF_CLASSES)


def check_batch_size(options: ReidOptions) -> None:
    """Raise `InputError` unless a batch holds several pictures of entire identities."""
    if options.batch_size % options.per_identity:
        raise InputError(
            f"--batch-size {options.batch_size}: must be a multiple of --per-identity "
            f"{options.per_identity}"
        )


def _check_compare(options: CompareOptions) -> None:
    for name in options.models:
        if name not in VARIANTS:
            raise InputError(f"--models {name}: unknown; there are {', '.join(VARIANTS)}")
    repeated = len(set(options.models)) < len(options.models)
    if not options.models or repeated or options.seeds < 1:
        raise InputError("compare: give at least one model and seed, and no model twice")
    if options.model != "dcal":
        raise InputError("compare: trains the variants of dcal")
    names = ("choose", "false_match")
    check_unread(options, names, "train; compare scores the variants of dcal")
