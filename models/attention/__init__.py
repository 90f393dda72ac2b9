"""Attention and token-mixing mechanisms, one per file, with one signature.

All are called as `forward(x, context=None, *, mask=None)`. x: (batch, tokens, width); context:
tokens to attend to, x itself by default; mask: bool, True = may attend. Causal ones take `cache`, a
memory of earlier tokens, which their `new_cache` makes. `build_attention` makes one by its name in
the table, `register_attention` adds one from outside the package.
"""

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

from ...base.errors import InputError, closest, one_line
from ...base.lazy import lazy_names
from .table import ALIASES, ATTENTION, FEATURES, Feature, Fits, Mechanism

if TYPE_CHECKING:
    from .agent import AgentAttention, GridAgentAttention, LearnedAgentAttention
    from .base import Attention
    from .cache import Cache
    from .combiner import Combiner
    from .deconstructed.fixed import FixedAttention
    from .deconstructed.no_mixing import NoMixing
    from .deconstructed.query_free import QueryFreeAttention
    from .deconstructed.static import StaticAttention
    from .deconstructed.taylor import TaylorAttention
    from .differential import GroupedDifferentialAttention
    from .gaussian import GaussianAdaptiveAttention
    from .grid.aggregated import AggregatedAttention
    from .grid.contmix import ContMix
    from .grid.coordinate import CoordinateAttention
    from .grid.tap import TAPAttention
    from .moh import MixtureOfHeads
    from .query_pool import InducedAttention
    from .signed_root import SignedRootAttention
    from .softmax import SoftmaxAttention
    from .squeeze import SqueezeExcitation
    from .star import STAR
    from .tensor import TensorAttention
else:
    EXPORTS = {
        module: [row.cls for row in ATTENTION.values() if row.module == module]
        for module in {row.module for row in ATTENTION.values()}
    }
    __getattr__, __dir__ = lazy_names(
        __name__, {**EXPORTS, "base": ["Attention"], "cache": ["Cache"]}
    )

REGISTERED: dict[str, type["Attention"]] = {}  # by `register_attention`, in this process


def attention_class(name: str) -> type["Attention"]:
    """The class of a mechanism, by its name or alias in the table.

    Raises InputError (a ValueError) for an unknown name; the message names the nearest.

    >>> attention_class("star").__name__
    'STAR'
    """
    known = ALIASES.get(name, name)
    if known not in ATTENTION:
        near = closest(name, [*ATTENTION, *ALIASES], cutoff=0.0)
        raise InputError(f"no mechanism {name!r}; nearest is {near!r} (of {', '.join(ATTENTION)})")
    if known in REGISTERED:
        return REGISTERED[known]
    row = ATTENTION[known]
    return getattr(import_module(f"{__name__}.{row.module}"), row.cls)


def accepts_option(name: str, option: str) -> bool:
    """Whether the mechanism takes such an option, for example "causal".

    Raises InputError for an unknown name.
    """
    return option in inspect.signature(attention_class(name)).parameters


def has_feature(name: str, feature: Feature) -> bool:
    """Whether a mechanism has a causal form ("causal"), takes a context ("context") or has
    attention weights ("weights").

    Raises InputError for an unknown name.
    """
    cls = attention_class(name)
    if feature == "causal":
        return accepts_option(name, "causal")
    if feature == "context":
        return cls.crosses
    from .base import Attention

    return cls.weights is not Attention.weights


def names_with(feature: Feature) -> list[str]:
    """The mechanisms with a feature, those registered from outside the package among them. Without
    torch, where none is registered.
    """
    return [*FEATURES[feature], *(name for name in REGISTERED if has_feature(name, feature))]


def build_attention(name: str, width: int, heads: int = 8, **options: object) -> "Attention":
    """A new mechanism for tokens of such a width, by its name or alias in the table.

    heads is ignored by mechanisms that have none; options are those of the class.

    Raises InputError (a ValueError) for an unknown name or option, naming the nearest, and
    ValueError for values that do not fit.

    >>> build_attention("softmax", width=64, heads=8, causal=True).causal
    True
    """
    build = cast("Callable[..., Attention]", attention_class(name))
    accepted = [option for option in inspect.signature(build).parameters if option != "width"]
    for option in options:
        if option not in accepted:
            near = closest(option, accepted, cutoff=0.0)
            hint = f"; nearest is {near!r}" if near else ""
            raise InputError(f"build_attention: {name!r} has no option {option!r}{hint}")
    if "heads" in accepted:
        options["heads"] = heads
    return build(width, **{**ATTENTION[ALIASES.get(name, name)].options, **options})


def register_attention(
    name: str,
    cls: type["Attention"],
    *,
    summary: str = "",
    fits: Fits | None = None,
    cost: str = "unknown",
    kernel: str = "none",
) -> None:
    """Add a mechanism from outside the package to the table, under a name of its own.

    From then on the name is accepted wherever one is: `build_attention`, the models, the option
    --attention of the pipelines, and `headwise list attention`. Every process needs the call: put
    it into the module that defines the class.

    cls: a subclass of `models.attention.base.Attention` whose first argument is the width; summary:
    its source or what it does, in one line, by default from its docstring; fits, cost, kernel: as
    in `Mechanism`; fits is by default "grid" for a class with the extra "size", else "any tokens".

    Raises ValueError for a name that another class has or that is no name, a class of another kind,
    fits that contradicts the class, and a forward without the arguments that all have.
    """
    from .base import Attention

    if not (isinstance(cls, type) and issubclass(cls, Attention)):
        raise ValueError(f"register_attention: {cls!r} is not a subclass of Attention")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == "none":
        raise ValueError(
            f"register_attention: {name!r} is not a name: use small letters, digits and hyphens"
        )
    row = Mechanism(
        cls.__module__,
        cls.__qualname__,
        fits or ("grid" if "size" in cls.extras else "any tokens"),
        cost,
        kernel,
        one_line(summary or (cls.__doc__ or "no summary").strip().splitlines()[0]),
    )
    if (row.fits == "grid") != ("size" in cls.extras):
        raise ValueError(f"register_attention: fits {row.fits!r}, but extras are {cls.extras}")
    taken = inspect.signature(cls.forward).parameters
    others = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    missing = [word for word in ("context", "mask") if word not in taken]
    if missing and not others:
        raise ValueError(
            f"register_attention: forward of {cls.__name__} takes no {', '.join(missing)}; every "
            "mechanism has forward(x, context=None, *, mask=None)"
        )
    again = name in REGISTERED and ATTENTION[name][:2] == row[:2]  # a notebook's cell, run again
    if name in ALIASES or (name in ATTENTION and not again):
        raise ValueError(f"register_attention: {name!r} is the name of another mechanism")
    ATTENTION[name] = row
    REGISTERED[name] = cls


__all__ = [
    "ALIASES",
    "ATTENTION",
    "REGISTERED",
    "STAR",
    "AgentAttention",
    "AggregatedAttention",
    "Attention",
    "Cache",
    "Combiner",
    "ContMix",
    "CoordinateAttention",
    "FixedAttention",
    "GaussianAdaptiveAttention",
    "GridAgentAttention",
    "GroupedDifferentialAttention",
    "InducedAttention",
    "LearnedAgentAttention",
    "Mechanism",
    "MixtureOfHeads",
    "NoMixing",
    "QueryFreeAttention",
    "SignedRootAttention",
    "SoftmaxAttention",
    "SqueezeExcitation",
    "StaticAttention",
    "TAPAttention",
    "TaylorAttention",
    "TensorAttention",
    "accepts_option",
    "attention_class",
    "build_attention",
    "has_feature",
    "names_with",
    "register_attention",
]
