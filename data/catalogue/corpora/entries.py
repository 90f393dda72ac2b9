"""The corpora by name."""

from dataclasses import dataclass
from typing import Literal

from ..dataset import Dataset


@dataclass(frozen=True)
class Corpus(Dataset):
    """A data set that is put together here.

    origin     what fetches its files: apt, whose files change with the archive, or pip, whose file
               has a checksum
    languages  whether descriptions in several languages can be asked for
    """

    origin: Literal["apt", "pip"] = "apt"
    languages: bool = False

    @property
    def checked_by(self) -> str:
        """What is checked, in words for `headwise data list`."""
        if self.origin == "apt":
            return "apt, by the signature of the archive"
        return super().checked_by


_DESCRIPTIONS = "each description: the free licence of its package"

CORPORA = (
    Corpus(
        name="debian-tags",
        task="text",
        what=(
            "descriptions of Debian's packages with their tags: about 30,000 texts, 570 labels in "
            "two levels, and a row of figures for each; in several languages"
        ),
        url="the index files of a Debian archive",
        file="debian-tags.parquet",
        sha256=None,
        git_blob=None,
        licence=f"{_DESCRIPTIONS}; tags: GPL-2, by the copyright file of `debtags`",
        citation="Zini, A cute introduction to debtags, debtags.debian.org, 2005",
        languages=True,
    ),
    Corpus(
        name="debian-adoption",
        task="text",
        what=(
            "descriptions of Debian's source packages with a row of figures for each, and how many "
            "other sources need, recommend or suggest them: about 34,000 texts"
        ),
        url="the index files of a Debian archive",
        file="debian-adoption.parquet",
        sha256=None,
        git_blob=None,
        licence=_DESCRIPTIONS,
        citation="the Debian archive, debian.org",
    ),
    Corpus(
        name="sentiment-sources",
        task="text",
        what=(
            "23,703 sentences of reviews of products and films, editorials and tweets, each rated "
            "by 15 to 99 people; out of the source package of vaderSentiment"
        ),
        url="vaderSentiment==0.5",
        file="sentiment-sources.parquet",
        sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
        git_blob=None,
        licence="MIT, as the package states",
        citation=(
            "Hutto and Gilbert, VADER: a parsimonious rule-based model for sentiment analysis of "
            "social media text, ICWSM 2014"
        ),
        origin="pip",
    ),
)
