"""Recordings with a label as data sets: read once, parts by speaker, batches of any length.

Shapes: B recordings of a batch, N tokens of the longest, D width of a token, S statistics.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...base.account import note, recount
from ...base.errors import InputError, fail, nearest, shown
from ...data.items import join_copies, readable_rows
from ...data.speech.labelled import list_labelled
from ...data.speech.manifests import Utterance, groups_with_files, note_stretches
from ..engine.command_line.terminal import Progressbar
from ..engine.feature_cache import FeatureCache
from ..engine.pipeline import Member, Splits
from ..engine.subsets import (
    BoundedCache,
    Subsets,
    Taken,
    own_or_shares,
    refuse_shared_groups,
    take_stratified,
)
from ..engine.training.order import Batch
from .features import (
    Clip,
    ClipReader,
    Moments,
    drawn_towards,
    moments_of,
    opened,
    standardised,
    stored,
)
from .options import RecordingsOptions
from .spec import InputFacts, RecordingsSpec

_ALONE = "only "  # before the number of a file that is a group


class RecordingSource:
    """Recordings that were read, with their labels, speakers and groups.

    where: the data, for messages. What does not fit into memory is read again each time.
    """

    def __init__(self, where: str, utterances: Sequence[Utterance], reader: ClipReader) -> None:
        self.where, self.reader = where, reader
        self._listed = list(utterances)
        self._clips = BoundedCache(self._read)
        self.contents = [""] * len(self._listed)
        self.use(range(len(self._listed)))

    def use(self, rows: Sequence[int]) -> None:
        """Have these rows alone, in this order."""
        self._places = list(rows)
        self.utterances = [self._listed[place] for place in rows]
        self.contents = [self.contents[place] for place in rows]
        self._moments: dict[str, Moments] = {}
        self.prior: Moments | None = None
        """Of the training part, where speakers are standardised."""
        self.speakers = [u.speaker for u in self.utterances]
        self.labels = [u.label for u in self.utterances]
        self.names = [u.name for u in self.utterances]
        self.groups = groups_with_files(
            self.utterances, [u.group or u.speaker for u in self.utterances], _ALONE
        )

    def __len__(self) -> int:
        return len(self.utterances)

    def _read(self, place: int) -> Clip:
        return self.reader(self._listed[place])

    def clip(self, row: int) -> Clip:
        """A recording as it is."""
        return self._clips[self._places[row]]

    def model_clip(self, row: int) -> Clip:
        """A recording as models see it."""
        clip = self.clip(row)
        return clip if self.prior is None else standardised(clip, self._of_speaker(row))

    def standardise_by(self, prior: Moments | None) -> None:
        """Standardise by speaker, drawn towards these moments of a training part; None: not."""
        self.prior = prior
        self._moments.clear()

    def _of_speaker(self, row: int) -> Moments:
        """The moments of all recordings of a speaker, whatever part they are in: they need no
        labels.
        """
        assert self.prior is not None
        speaker = self.speakers[row]
        if not speaker:
            return self.prior
        if speaker not in self._moments:
            rows = [k for k, name in enumerate(self.speakers) if name == speaker]
            moments = moments_of(map(self.clip, rows), is_fixed=self.reader.is_fixed)
            self._moments[speaker] = drawn_towards(moments, self.prior)
        return self._moments[speaker]


class RecordingSet:
    """Some recordings of a source, as a data set that makes its own batches.

    rows: of the source. Raises `InputError` for a label that is none of `classes`.
    """

    def __init__(
        self, source: RecordingSource, rows: Iterable[int], classes: Sequence[str]
    ) -> None:
        self.source, self.rows, self.classes = source, list(map(int, rows)), list(classes)
        number_of = {name: k for k, name in enumerate(classes)}
        labels = [source.labels[row] for row in self.rows]
        if unknown := sorted(set(labels) - set(classes)):
            hint = nearest(unknown[0], classes)
            raise fail(source.where, f"class {shown(unknown[0])} is none of the model's{hint}")
        self.labels = np.array([number_of[label] for label in labels], np.int64)
        self.names = [source.names[row] for row in self.rows]
        self.speakers = [source.speakers[row] for row in self.rows]
        self.groups = np.array([source.groups[row] for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def clip(self, index: int) -> Clip:
        """A recording as models see it."""
        return self.source.model_clip(self.rows[index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return {
            **padded([self.clip(index) for index in indices]),
            "labels": torch.from_numpy(self.labels[list(indices)]),
            "index": torch.tensor(list(indices)),
        }

    @staticmethod
    def collate(batch: Batch) -> Batch:
        """A batch is complete as it comes."""
        return batch


def padded(clips: Sequence[Clip]) -> Batch:
    """tokens (B, N, D), 0 where there is none, mask bool (B, N), statistics (B, S)."""
    lengths = torch.tensor([len(clip.tokens) for clip in clips])
    tokens = torch.nn.utils.rnn.pad_sequence([clip.tokens for clip in clips], batch_first=True)
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    statistics = torch.stack([clip.statistics for clip in clips])
    return {"tokens": tokens, "mask": mask, "statistics": statistics}


def inputs_of(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What a model is called with."""
    return batch["tokens"], batch["mask"], batch["statistics"]


def read_source(options: RecordingsOptions, spec: RecordingsSpec | None = None) -> RecordingSource:
    """List the recordings and read each once: those that cannot be read, are silent or too short
    are left out, copies share a group.

    spec: of the run whose data it is. Raises `InputError` for data that cannot be used.
    """
    assert options.data is not None
    listed = list_labelled(
        options.data, options.columns, label_from=options.label_from, pattern=options.pattern
    )
    with FeatureCache() as cache:
        if spec is None:
            reader = ClipReader(options.features, options.weights, options.seconds, cache)
        else:
            reader = reader_of(spec, cache)
        return read_listed(options.data, listed, reader)


def reader_of(spec: RecordingsSpec, cache: FeatureCache | None = None) -> ClipReader:
    """Reads recordings as a run did. Raises `InputError` where its weights are others now."""
    reader = ClipReader(spec.features, spec.weights, spec.seconds, cache)
    if reader.fingerprint != spec.fingerprint:
        raise InputError(f"{spec.weights}: are other weights than those of the training")
    return reader


def read_listed(where: str, listed: Sequence[Utterance], reader: ClipReader) -> RecordingSource:
    """Read listed recordings, see `read_source`."""
    source, problems = RecordingSource(where, listed, reader), dict[int, str]()
    remarks: dict[str, list[str]] = {}
    with Progressbar(total=len(listed), unit="recording", desc="reading") as bar:
        for row in range(len(listed)):
            try:
                clip = source.clip(row)
            except InputError as error:
                problems[row] = str(error)
            else:
                source.contents[row] = clip.content
                for remark in clip.remarks:
                    remarks.setdefault(remark, []).append(listed[row].name)
            bar.update()
    rows = readable_rows("recordings", [u.name for u in listed], problems)
    recount("read", "recordings", len(rows))
    for remark, names in remarks.items():
        note("values", f"recordings: {remark}", names)
    if not rows:
        raise fail(where, "holds no recording that can be used")
    source.use(rows)
    _join_copies(source)
    return source


def _join_copies(source: RecordingSource) -> None:
    """Exact copies share a group; what groups there are goes into the account."""
    parts = [u.part for u in source.utterances]
    source.groups = join_copies(
        source.where,
        "recording",
        source.names,
        source.contents,
        source.groups,
        source.labels,
        parts,
    )
    noun = "group" if any(u.group for u in source.utterances) else "speaker"
    known = len({u.group or u.speaker for u in source.utterances} - {""})
    if known:
        note("groups", f"{len(source):,} recordings of {known:,} {noun}s, which stay together")
    named = [u.group or u.speaker for u in source.utterances]
    note_stretches(source.utterances, named)
    if "" in named:
        each = "each file" if any(u.stretch for u in source.utterances) else "each"
        what = f"recordings of no known speaker: {each} counts as its own group"
        note("groups", f"{what}, so that a voice may be in two parts", count=named.count(""))


def open_splits(
    options: RecordingsOptions, spec: RecordingsSpec | None = None, *, as_test: bool = False
) -> Splits[RecordingsSpec, RecordingSet]:
    """The three parts. as_test: all recordings are the test part."""
    source = read_source(options, spec)
    if as_test and spec is not None:
        source.standardise_by(None if spec.prior is None else opened(spec.prior))
        part = RecordingSet(source, range(len(source)), spec.classes)
        members = [member_of(utterance) for utterance in source.utterances]
        return Splits(part, part, part, spec, members={"test": members})
    subsets = split(source, options)
    classes = classes_of(source) if spec is None else spec.classes
    if spec is None:
        spec = spec_of(source, subsets, classes, options)
    source.standardise_by(None if spec.prior is None else opened(spec.prior))
    train, validation, test = (RecordingSet(source, rows, classes) for rows in subsets)
    members = {
        name: [member_of(source.utterances[row]) for row in rows]
        for name, rows in subsets._asdict().items()
    }
    return Splits(train, validation, test, spec, members=members)


def member_of(utterance: Utterance) -> Member:
    """A recording as an item of the data: its file, and its stretch where it is one."""
    return Member(utterance.file, utterance.stretch)


def classes_of(source: RecordingSource) -> list[str]:
    """Raises `InputError` for a single class."""
    classes = sorted(set(source.labels))
    if len(classes) < 2:
        raise fail(source.where, f"all labels are {shown(classes[0])}; there must be two classes")
    return classes


def split(source: RecordingSource, options: RecordingsOptions) -> Subsets:
    """Rows of the three parts: those that the data names, or else shares of the groups, the classes
    balanced as far as possible.

    Raises `InputError` for an empty part, and a group in two parts.
    """
    labels, groups = np.array(source.labels), np.array(source.groups)

    def take(rows: np.ndarray, share: float, part: str) -> Taken:
        seed = (options.seed + (part == "validation")) % (1 << 32)
        return take_stratified(source.where, rows, labels[rows], groups[rows], share, seed)

    subsets = own_or_shares(
        source.where,
        [u.part for u in source.utterances],
        take,
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="recordings",
    )
    home = source.where if os.path.isdir(source.where) else os.path.dirname(source.where) or "."
    files = {
        group: os.path.relpath(utterance.file, home)
        for group, utterance in zip(source.groups, source.utterances, strict=True)
        if group.startswith(_ALONE)
    }
    names = [files.get(group, group) for group in source.groups]
    refuse_shared_groups(source.where, subsets, names, "speaker, group or file")
    return subsets


def spec_of(
    source: RecordingSource, subsets: Subsets, classes: Sequence[str], options: RecordingsOptions
) -> RecordingsSpec:
    """The spec of a training on the part "train". Raises `InputError` for a class without a
    recording in it.
    """
    reader, rows = source.reader, subsets.train.tolist()
    labels = [source.labels[row] for row in rows]
    counts = [labels.count(name) for name in classes]
    if 0 in counts:
        name = shown(classes[counts.index(0)])
        cure = "it needs more speakers (or groups), or parts named in the table"
        raise fail(source.where, f"class {name} has no recording in the training part; {cure}")
    plain = moments_of(map(source.clip, rows), is_fixed=reader.is_fixed)
    prior, visible = None, plain
    if options.standardise == "speaker":
        if not all(source.speakers):
            cure = "name them in a column, or with {speaker} in --pattern"
            raise fail(source.where, f"--standardise speaker: not all speakers are known; {cure}")
        prior = stored(plain)
        source.standardise_by(opened(prior))
        visible = moments_of(map(source.model_clip, rows), is_fixed=reader.is_fixed)
    return RecordingsSpec(
        input=InputFacts(
            recordings=len(source),
            training_recordings=len(rows),
            speakers=len(set(source.speakers) - {""}),
            sound="16,000 samples a second, mono",
        ),
        classes=list(classes),
        counts=counts,
        features=options.features,
        weights=options.weights if reader.encoder is not None else "",
        fingerprint=reader.fingerprint,
        seconds=options.seconds,
        moments=stored(visible),
        prior=prior,
        pattern=options.pattern or "",
        parts=subsets.sizes(),
    )
