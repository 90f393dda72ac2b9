"""Recordings: one, or a folder of them at any depth, whose text lies in files of the same name
(.txt, .lab or .TextGrid), or those that a manifest lists.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...base.account import note
from ...base.errors import InputError, fail
from ...base.extras import install_line
from ...base.files import similar_file, walk_folder
from ..formats.audio import AUDIO_SUFFIXES
from ..formats.audio_streams import STREAM_SUFFIXES, has_pyav
from .manifests import Utterance, is_manifest, read_manifest, with_groups
from .timed_text import words_of_times
from .transcripts import read_textgrid

TEXT_SUFFIXES = (".textgrid", ".txt", ".lab")  # the first that is there is taken
MANIFESTS = ("manifest.jsonl", "manifest.csv")  # of a folder
TEXT_CAP = 1 << 20  # most bytes of a transcript
MOST_FILES = 1_000_000
SOME_SUFFIXES = f"{', '.join(AUDIO_SUFFIXES[:4])}, ..."
NEEDS_PYAV = f"recordings that only PyAV reads ({install_line('video')})"


def list_speech(
    path: str | os.PathLike[str], columns: Sequence[str] = (), *, texts: bool = True
) -> list[Utterance]:
    """The utterances of a recording, a folder (at any depth) or a manifest, in a fixed order,
    without reading the recordings.

    columns: of a manifest, as of the option --columns. texts: whether to read the files of text
    beside recordings; where one cannot be read, its utterance says why.

    Raises `InputError` for what is missing, empty, or no manifest.
    """
    source = Path(path)
    try:
        is_folder, is_file = source.is_dir(), source.is_file()
    except OSError:  # such as a name that is too long
        is_folder = is_file = False
    if is_folder:
        utterances = _folder(source, columns, texts)
    elif not is_file:
        if os.path.lexists(source):
            kind = "a link to nothing" if source.is_symlink() else "not a plain file"
            raise fail(path, f"is {kind}")
        raise fail(path, f"there is no such file or folder{similar_file(source)}")
    elif source.suffix.lower() in AUDIO_SUFFIXES:
        utterances = [_with_text(source, source.name, _texts_beside(source) if texts else {})]
    elif is_manifest(source):
        utterances = read_manifest(source, columns)
    else:
        kinds = f"no recording ({SOME_SUFFIXES}) and no manifest (.jsonl, .csv, .xlsx, .parquet)"
        raise fail(path, f"is {kinds}")
    note("read", "recordings", count=len(utterances))
    if count := sum(utterance.text is not None for utterance in utterances):
        note("read", "texts of recordings", count=count)
    return with_groups(utterances, divided=texts)


def _folder(home: Path, columns: Sequence[str], texts: bool) -> list[Utterance]:
    names = walk_folder(home, (*AUDIO_SUFFIXES, *TEXT_SUFFIXES, *MANIFESTS))
    if len(names) > MOST_FILES:
        raise fail(home, f"holds more than {MOST_FILES:,} recordings; give parts of it")
    manifests = [name for name in MANIFESTS if (home / name).is_file()]
    recordings = [name for name in names if name.lower().endswith(AUDIO_SUFFIXES)]
    if manifests:
        return _listed(home, manifests[0], recordings, columns)
    recordings = usable_recordings(home, recordings)
    by_stem: dict[str, dict[str, Path]] = {}
    for name in names:
        if name.lower().endswith(TEXT_SUFFIXES):
            stem, suffix = os.path.splitext(name)
            by_stem.setdefault(stem, {}).setdefault(suffix.lower(), home / name)
    if not texts:
        return [Utterance(name, str(home / name)) for name in recordings]
    stems = {name: os.path.splitext(name)[0] for name in recordings}
    uses = Counter(stem for stem in stems.values() if stem in by_stem)
    if shared := [name for name, stem in stems.items() if uses[stem] > 1]:
        note("items", "recordings that share a text, as their names differ by the ending", shared)
    if unused := sorted(set(by_stem) - set(stems.values())):
        files = [str(file.relative_to(home)) for stem in unused for file in by_stem[stem].values()]
        note("left out", "files of text without a recording of the same name", files)
    return [_with_text(home / name, name, by_stem.get(stems[name], {})) for name in recordings]


def usable_recordings(home: Path, recordings: Sequence[str]) -> list[str]:
    """The recordings of a folder that can be decoded here; others go into the account. Raises
    `InputError` where there are none.
    """
    usable = list(recordings)
    if not has_pyav():
        streams = [name for name in usable if name.lower().endswith(STREAM_SUFFIXES)]
        if streams:
            note("left out", NEEDS_PYAV, streams)
        usable = [name for name in usable if name not in set(streams)]
        if streams and not usable:
            raise fail(home, f"holds {NEEDS_PYAV} and no others: {', '.join(streams[:3])}")
    if not usable:
        raise fail(home, f"holds no recording ({SOME_SUFFIXES})")
    return usable


def _listed(
    home: Path, manifest: str, recordings: Sequence[str], columns: Sequence[str]
) -> list[Utterance]:
    """The utterances of a folder's own manifest, which nobody named: its recordings lie there."""
    utterances = read_manifest(home / manifest, columns, home=home)
    note("assumed", f"{manifest} in the folder says which recordings are read, with what text")
    listed = {os.path.realpath(utterance.file) for utterance in utterances}
    others = [name for name in recordings if os.path.realpath(home / name) not in listed]
    if others:
        note("left out", f"recordings that {manifest} does not name", others)
    return utterances


def _texts_beside(file: Path) -> dict[str, Path]:
    """Files of text with the name of a recording, by their ending."""
    beside: dict[str, Path] = {}
    for suffix in (".TextGrid", *TEXT_SUFFIXES):
        text = file.with_suffix(suffix)
        try:
            if text.is_file():
                beside.setdefault(suffix.lower(), text)
        except OSError:  # the name is too long with this ending
            continue
    return beside


def _with_text(file: Path, name: str, beside: Mapping[str, Path]) -> Utterance:
    """A recording with the text in a file of the same name."""
    chosen = [beside[suffix] for suffix in TEXT_SUFFIXES if suffix in beside]
    if not chosen:
        return Utterance(name, str(file))
    if chosen[1:]:
        note("left out", "files of text, as there is another for the recording", chosen[1:])
    try:
        if chosen[0].suffix.lower() == ".textgrid":
            words = tuple(read_textgrid(chosen[0]))
            text = " ".join(word.text for word in words)
            return Utterance(name, str(file), text=text, words=words)
        return Utterance(name, str(file), text=_read_text(chosen[0]))
    except InputError as error:
        return Utterance(name, str(file), problem=str(error))


def _read_text(file: Path) -> str:
    """The text of a file with single spaces, without the times of subtitles and lists of labels."""
    text = _decoded(file)
    words = words_of_times(text)
    if words is None:
        return " ".join(text.split())
    note("assumed", "files of text with times, of which the words alone are read", [file])
    return " ".join(words.split())


def _decoded(file: Path) -> str:
    """The text of a file: UTF-8, UTF-16 with a mark, or else cp1252."""
    try:
        if file.stat().st_size > TEXT_CAP:
            raise fail(file, "is larger than 1 MiB, no transcript of a recording")
        content = file.read_bytes()
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return content.decode("utf-16")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
            note("assumed", "files of text that are not UTF-8, read as cp1252", [file])
            return text
    except UnicodeDecodeError:
        raise fail(file, "is not UTF-8 text") from None
    except OSError as error:
        raise fail(file, f"cannot be read ({error.strerror})") from None
