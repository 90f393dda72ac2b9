"""Mechanisms of the core in the places of a speech model, and what each place asks of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, TypeGuard

from ..attention import ATTENTION, build_attention, has_feature
from ..attention.base import Attention
from ..attention.softmax import SoftmaxAttention

MixerOptions: TypeAlias = Mapping[str, Mapping[str, object]]
"""Options of mechanisms by their names."""


def mixer_of(
    name: str, width: int, heads: int, options: MixerOptions | None = None, **further: object
) -> Attention:
    """A mechanism with the options that are there for its name."""
    return build_attention(name, width, heads, **{**(options or {}).get(name, {}), **further})


def causal_attention(
    name: str, width: int, heads: int, options: MixerOptions | None = None
) -> Attention:
    """A mechanism in which no token depends on later ones. Raises ValueError if it has no such
    form.
    """
    if not has_feature(name, "causal"):
        raise ValueError(
            f"decoder attention {name!r} has no causal form; take one of "
            f"{', '.join(causal_names())}"
        )
    # Built twice as in the first version: it draws random numbers, and the initial weights that
    # follow from a seed are to stay the same.
    mixer_of(name, width, heads, options)
    return mixer_of(name, width, heads, options, causal=True)


def crossing_attention(
    name: str, width: int, heads: int, options: MixerOptions | None = None
) -> Attention:
    """A mechanism that takes a context. Raises ValueError if it takes none."""
    attention = mixer_of(name, width, heads, options)
    if not attention.crosses:
        raise ValueError(
            f"cross-attention {name!r} takes no context; softmax, differential, taylor, ... do"
        )
    return attention


def causal_names() -> list[str]:
    """Mechanisms with a causal form."""
    return [name for name in ATTENTION if has_feature(name, "causal")]


def is_plain(attention: Attention) -> TypeGuard[SoftmaxAttention]:
    """Whether it is softmax attention of all heads without positions, which can be computed from
    its queries, keys and values alone. Mixtures of heads, which are softmax attention, too, cannot.
    """
    return type(attention) is SoftmaxAttention and not attention.rotary
