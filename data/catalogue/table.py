"""All entries of the catalogue."""

from .clicks import CLICKS
from .dataset import Dataset
from .pictures import PICTURES
from .series import SERIES
from .speech import SPEECH

DATASETS: tuple[Dataset, ...] = (*SERIES, *CLICKS, *SPEECH, *PICTURES)
