"""Option values that no data can make right."""

from pathlib import Path
from typing import Any

from ...base.errors import InputError
from ..engine.command_line.checks import check_attention, check_least
from .options import VARIANTS, CompareOptions, ReidOptions, SearchOptions


def check(options: Any) -> None:
    """Raise `InputError` for the first of them."""
    if isinstance(options, SearchOptions):
        check_least(options, {"k": 1, "shown": 0, "batch_size": 1})
        if Path(options.output).is_dir():
            raise InputError(
                f"{options.output}: is a directory; --output names the parquet file to write"
            )
    if not isinstance(options, ReidOptions):
        return
    check_least(
        options,
        {
            "patch": 1,
            "width": 1,
            "layers": 1,
            "heads": 1,
            "glca": 0,
            "per_identity": 2,
            "vector": 1,
            "pad": 0,
            "rerank": 0,
        },
    )
    if len(options.size) != 2 or not all(8 <= side <= 4096 for side in options.size):
        raise InputError(
            f"--size {' '.join(map(str, options.size))}: needs height and width, 8 to 4096 pixels"
        )
    if not 1 <= options.enlarge <= 4:
        raise InputError(f"--enlarge {options.enlarge}: must be in [1, 4]")
    if not 0 < options.local <= 1:
        raise InputError(f"--local {options.local}: must be in (0, 1]")
    for name in ("drop_path", "smoothing", "validation_share", "test_share"):
        if not 0 <= getattr(options, name) < 1:
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: must be in [0, 1)"
            )
    if not 0 <= options.erase <= 1:
        raise InputError(f"--erase {options.erase}: must be in [0, 1]")
    if options.margin is not None and not 0 <= options.margin < float("inf"):
        raise InputError(f"--margin {options.margin}: must be 0 or more")
    triplets = options.model == "cca" or (options.triplet != "no" and options.goal != "classes")
    if triplets and options.batch_size % options.per_identity:
        raise InputError(
            f"--batch-size {options.batch_size}: must be a multiple of --per-identity "
            f"{options.per_identity}"
        )
    check_attention(
        options.attention,
        fits=("any tokens", "sequence"),
        why="a class token stands before the patches",
    )
    if options.attention != "softmax" and options.model == "dcal":
        off = [
            word for word, on in (("--glca 0", options.glca > 0), ("--no-pwca", options.pwca)) if on
        ]
        if off and not isinstance(options, CompareOptions):
            raise InputError(
                f"--attention {options.attention}: GLCA and PWCA read softmax attention; add "
                f"{' and '.join(off)}"
            )
    if options.backbone == "scratch" and options.weights not in ("pretrained", "random"):
        raise InputError(
            f"--weights {options.weights}: are of a backbone of timm; name it by --backbone"
        )
    if options.model == "cca" and options.goal == "classes":
        raise InputError("--model cca: learns vectors to search by, not --goal classes")
    if isinstance(options, CompareOptions):
        for name in options.models:
            if name not in VARIANTS:
                raise InputError(f"--models {name}: unknown; there are {', '.join(VARIANTS)}")
        if (
            not options.models
            or len(set(options.models)) < len(options.models)
            or options.seeds < 1
        ):
            raise InputError("compare: give at least one model and seed, and no model twice")
        if options.model != "dcal":
            raise InputError("compare: trains the variants of dcal")
