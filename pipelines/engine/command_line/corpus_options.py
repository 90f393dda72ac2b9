"""Options of `headwise data get` for corpora of texts. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from ....data.catalogue import Corpus, Dataset
from .parsing import parse_plain


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """Put a corpus together in the cache, and print the path of its table."""

    languages: tuple[str, ...] = ("en",)
    """Languages of the descriptions (debian-tags), such as en,it,pt_BR."""
    from_files: tuple[str, ...] = ()
    """Files to read instead of fetching them (also --from): Packages, Translation-en and InRelease
    of a Debian archive, plain or as .gz, .xz or .lz4, or the source package of vaderSentiment.
    """

    @property
    def language_names(self) -> list[str]:
        """One name each, however they were separated."""
        return [name for words in self.languages for name in words.split(",") if name]


def parse_corpus_options(entry: Dataset, words: Sequence[str]) -> CorpusOptions:
    """The options after `data get NAME`. Raises InputError for others, and for languages that the
    data set cannot have.
    """
    long = ["--from-files" + word[6:] if word.split("=")[0] == "--from" else word for word in words]
    options = parse_plain(CorpusOptions, f"data get {entry.name}", long)
    if isinstance(entry, Corpus):
        from ....data.catalogue.corpora.building import check_languages

        check_languages(entry, options.language_names)
    return options
