"""Option values that no data can make right."""

from typing import Any

from ...base.errors import InputError
from ..engine.command_line.checks import check_attention, check_least
from .options import ABLATIONS, MODELS, CompareOptions, RankingOptions, TopOptions


def check(options: Any) -> None:
    """Raise `InputError` for the first of them."""
    if isinstance(options, TopOptions):
        check_least(options, {"k": 1, "batch_size": 1})
    if not isinstance(options, RankingOptions):
        return
    check_least(
        options,
        dict.fromkeys(("width", "layers", "heads", "proxies", "shared_tasks", "experts"), 1),
    )
    if not 0 <= options.dropout < 1:
        raise InputError(f"--dropout {options.dropout}: must be in [0, 1)")
    if not 0 <= options.embedding_l2 < float("inf"):
        raise InputError(f"--embedding-l2 {options.embedding_l2}: must be 0 or more")
    if options.embedding_lr is not None and not 0 < options.embedding_lr <= 1e30:
        raise InputError(f"--embedding-lr {options.embedding_lr}: must be a positive number")
    if not options.hidden or min((*options.hidden, *options.towers)) < 1:
        raise InputError("--hidden and --towers: sizes must be at least 1, and --hidden needs one")
    if any(not 0 <= weight < float("inf") for weight in options.task_weights):
        raise InputError("--task-weights: must be 0 or more")
    if options.sparse == "yes" and (
        options.clip is not None or options.devices * options.nodes > 1
    ):
        raise InputError("--sparse yes: goes with one device and without --clip")
    check_attention(
        options.attention, fits=("any tokens", "sequence"), why="tokens of a row are no grid"
    )
    if isinstance(options, CompareOptions):
        known = (*MODELS, *(f"infnet:{part}" for part in ABLATIONS))
        for name in options.models:
            if name not in known:
                raise InputError(f"--models {name}: unknown; there are {', '.join(known)}")
        if (
            not options.models
            or len(set(options.models)) < len(options.models)
            or options.seeds < 1
        ):
            raise InputError("compare: give at least one model and seed, and no model twice")
