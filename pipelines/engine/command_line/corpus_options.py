"""Options of `headwise data get` for corpora of texts. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass

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


def parse_corpus_options(name: str, words: Sequence[str]) -> CorpusOptions:
    """The options after `data get NAME`. Raises InputError for others."""
    long = ["--from-files" + word[6:] if word.split("=")[0] == "--from" else word for word in words]
    return parse_plain(CorpusOptions, f"data get {name}", long)
