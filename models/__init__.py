"""Domain models in families, on the shared core (`attention`, `moe`, `layers`).

The models of all families can be imported from here; each is loaded at first use.
"""

from typing import TYPE_CHECKING

from ..base.lazy import lazy_names

if TYPE_CHECKING:
    from .bags.acmil import ACMIL, MaxPool, MeanPool
    from .clicks.click import DIN, PLE, DCNv2, MMoE, SharedBottom
    from .clicks.infnet import INFNet
    from .clicks.tokens import TokenMixer
    from .layers.vit import TokenModel, VisionTransformer
    from .series.softs import SOFTS
    from .speech.encoder import SpeechEncoder
    from .speech.speech_to_text import SpeechToText, TextDecoder
    from .vision.cca import ConditionalEmbedder
    from .vision.dcal import DCAL
    from .vision.gldmnet import GLDMNet
    from .vision.medusa import Medusa
else:
    EXPORTS = {
        "bags.acmil": ("ACMIL", "MaxPool", "MeanPool"),
        "clicks.click": ("DIN", "PLE", "DCNv2", "MMoE", "SharedBottom"),
        "clicks.infnet": ("INFNet",),
        "clicks.tokens": ("TokenMixer",),
        "layers.vit": ("TokenModel", "VisionTransformer"),
        "series.softs": ("SOFTS",),
        "speech.encoder": ("SpeechEncoder",),
        "speech.speech_to_text": ("SpeechToText", "TextDecoder"),
        "vision.cca": ("ConditionalEmbedder",),
        "vision.dcal": ("DCAL",),
        "vision.gldmnet": ("GLDMNet",),
        "vision.medusa": ("Medusa",),
    }
    __getattr__, __dir__ = lazy_names(__name__, EXPORTS)

__all__ = [
    "ACMIL",
    "ConditionalEmbedder",
    "DCAL",
    "DCNv2",
    "DIN",
    "GLDMNet",
    "INFNet",
    "MMoE",
    "MaxPool",
    "MeanPool",
    "Medusa",
    "PLE",
    "SOFTS",
    "SharedBottom",
    "SpeechEncoder",
    "SpeechToText",
    "TextDecoder",
    "TokenMixer",
    "TokenModel",
    "VisionTransformer",
]
