"""The places of the model that a mechanism of the core takes, and the options that name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...base.errors import InputError
from ...models.attention import names_with
from ...models.attention.table import Feature
from ..engine.command_line.checks import check_mechanism, check_unread, fitting_mechanisms, flag
from ..engine.mechanisms import check_mixing

if TYPE_CHECKING:
    from .options import SpeechOptions

# The tokens of the places, and what each place asks of its mechanism.
SEQUENCE, WHY = ("any tokens", "sequence"), "does not fit tokens in a row"
PLACES: Mapping[str, tuple[Feature, str] | None] = {
    "encoder_attention": None,
    "decoder_attention": ("causal", "has no causal form, which the decoder needs"),
    "cross_attention": ("context", "takes no context, which the way from tokens to states needs"),
}


def mechanism_of(options: SpeechOptions, place: str) -> str:
    """The mechanism of a place, by the name of its option."""
    return getattr(options, place) or options.attention


def check_mechanisms(options: SpeechOptions) -> None:
    """Raise `InputError` for a mechanism that does not fit its place, and for options of none."""
    check_mixing(options, fits=SEQUENCE, why=WHY)
    for place, asked in PLACES.items():
        name = mechanism_of(options, place)
        fitting, why = fitting_mechanisms(SEQUENCE), WHY
        if asked is not None:
            fitting, why = names_with(asked[0]), asked[1]
        if getattr(options, place) is None:
            cure = f"give {flag(place)} another one"
            check_mechanism("--attention", name, fitting, why=f"{why}; {cure}")
        else:
            check_mechanism(flag(place), name, fitting, why=why)
    if all(getattr(options, place) is not None for place in PLACES):
        reader = "the places of the model without an option of their own, of which there is none"
        check_unread(options, ("attention", "attention_options"), reader)
    chosen = {mechanism_of(options, place) for place in PLACES}
    if options.weights is not None and (chosen != {"softmax"} or options.attention_options):
        raise InputError(
            "--weights: are of softmax attention; leave out --attention, --attention-options, "
            "--encoder-attention, --decoder-attention and --cross-attention"
        )
