"""Option values that no data can make right."""

from typing import Any

from ...data.errors import InputError
from .options import RankingOptions


def check(options: Any) -> None:
    """Raise `InputError` for the first of them."""
    if not isinstance(options, RankingOptions):
        return
    for name in ("width", "layers", "heads", "proxies", "shared_tasks", "experts"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1")
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
    if options.sparse == "yes" and (options.clip is not None or options.devices * options.nodes > 1):
        raise InputError("--sparse yes: goes with one device and without --clip")
    check_attention(options.attention)


def check_attention(name: str) -> None:
    """A mechanism that mixes tokens of a row, which are no grid."""
    from ...models.attention import ALIASES, ATTENTION

    fitting = [one for one, row in ATTENTION.items() if row.fits != "grid"]
    if ALIASES.get(name, name) not in fitting:
        why = "tokens of a row are no grid" if name in ATTENTION else "unknown"
        raise InputError(f"--attention {name}: {why}; there are {', '.join((*fitting, *ALIASES))}")
