"""Options of a forecast that trains in a second."""

from collections.abc import Mapping

SMALL: Mapping[str, object] = {
    "horizon": 6,
    "lookback": 12,
    "width": 8,
    "core": 4,
    "feedforward": 8,
    "layers": 1,
    "epochs": 1,
    "accelerator": "cpu",
}
