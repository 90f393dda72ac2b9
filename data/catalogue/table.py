"""All entries of the catalogue."""

from .clicks import CLICKS
from .dataset import Dataset
from .language_weights import LANGUAGE_WEIGHTS
from .pictures import PICTURES
from .series import SERIES
from .speech import SPEECH
from .text_weights import TEXT_WEIGHTS

DATASETS: tuple[Dataset, ...] = (
    *SERIES,
    *CLICKS,
    *SPEECH,
    *PICTURES,
    *TEXT_WEIGHTS,
    *LANGUAGE_WEIGHTS,
)
