"""The model of a run."""

from __future__ import annotations

from typing import Any

from ...base.errors import InputError
from ...models.speech.speech_to_text import SpeechToText
from ...models.weights.whisper import read_whisper


def build(options: Any, spec: dict[str, Any]) -> SpeechToText:
    """An untrained model; sizes of weights that were adopted stand in the spec."""
    o = options
    sizes: dict[str, Any] = {
        "features": o.features,
        "width": o.width,
        "heads": o.heads,
        "encoder_layers": o.encoder_layers,
        "decoder_layers": o.decoder_layers,
        "audio_positions": o.audio_positions,
        "text_positions": o.text_positions,
        "hidden": o.hidden,
        "encoder": o.encoder,
        "kernel": o.kernel,
        "encoder_attention": o.encoder_attention,
        "decoder_attention": o.decoder_attention,
        "cross_attention": o.cross_attention,
        "ffn": o.ffn,
        "dropout": o.dropout,
        "ctc": o.ctc > 0,
    }
    if o.ffn == "moe":
        sizes["moe"] = {"experts": o.experts, "active": o.active, "balance": o.balance}
    if "sizes" in spec:
        kept = ("dropout", "ctc")
        sizes = (
            {name: sizes[name] for name in kept} | {"encoder": "transformer"} | dict(spec["sizes"])
        )
        sizes.pop("vocabulary", None)
    return SpeechToText(int(spec["vocabulary"]), **sizes)


def warm_start(model: Any, options: Any) -> None:
    """Whisper's weights into a new training. Raises InputError where they do not fit."""
    if options.weights is None:
        return
    from .verbs.adopt import find_weights

    try:
        found = read_whisper(find_weights(options.weights))
        missing, extra = model.load_state_dict(found.state, strict=False)
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise (
            error
            if isinstance(error, InputError)
            else InputError(f"--weights {options.weights}: {said}")
        ) from None
    lacking = [name for name in missing if not name.startswith("ctc.")]
    if lacking or extra:
        raise InputError(f"--weights {options.weights}: do not fit; {[*lacking, *extra][0]}")
