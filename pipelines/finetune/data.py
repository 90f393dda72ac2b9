"""From a table of prompts and answers to three parts and what a run keeps of them.

Shapes: n prompts of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ...base.account import doubt, note
from ...base.errors import InputError, fail, shown
from ...data.columns import note_groups, parse_columns
from ...data.prompts.dialogues import FIELDS, Dialogue, DialogueReading, read_dialogues
from ...data.prompts.sample_answers import SAMPLE
from ...models.language.opening import OpenedLanguageModel
from ..engine.opened_models import is_sample, model_of, open_base
from ..engine.pipeline import Member, Splits
from ..engine.subsets import Taken, joined_groups, own_or_shares, refuse_shared_groups, take_groups
from ..engine.training.order import Batch, mix
from .coding import Coded, DialogueCoder, batch_of
from .general import GeneralTexts, read_general
from .masks import importance_of
from .options import FinetuneOptions
from .spec import IMPORTANCE, BaseFacts, InputFacts, TuneSpec


@dataclass(frozen=True)
class TunePart:
    """Prompts with their answers of one part, as a data set.

    dialogues: as they were read; coded: as the model sees them; groups: int64 (n,); general: texts
    that the model should not get worse at, of this part; packed: whether rows of a batch share
    sequences; watched: whether the general texts are among the samples, behind the prompts.
    """

    dialogues: list[Dialogue]
    coded: list[Coded]
    groups: np.ndarray
    coder: DialogueCoder
    general: list[GeneralTexts]
    packed: bool = False
    watched: bool = False

    @property
    def count(self) -> int:
        """n."""
        return len(self.coded)

    def __len__(self) -> int:
        return self.count + (len(self.general_rows) if self.watched else 0)

    @property
    def general_rows(self) -> list[Coded]:
        """All general texts."""
        return [row for texts in self.general for row in texts.rows]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch."""
        rows = [*self.coded, *self.general_rows] if self.watched else self.coded
        batch = batch_of([rows[k] for k in indices], packed=self.packed, padding=self.coder.padding)
        batch["general"] = torch.tensor([k >= self.count for k in indices])
        return batch

    @staticmethod
    def collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch is complete as it comes."""
        return batch


def reading_of_run(spec: TuneSpec, columns: Sequence[str], *, need_answer: bool) -> DialogueReading:
    """How other tables of a run are read: by the columns given now, else by those of the training
    or their usual names.
    """
    return DialogueReading(parse_columns(columns, FIELDS), spec.columns, need_answer)


def coder_of(spec: TuneSpec) -> DialogueCoder:
    """How prompts of a run are written for its model."""
    return DialogueCoder(base_of(spec), spec.template)


def base_of(spec: TuneSpec) -> OpenedLanguageModel:
    """The model that a run tuned. Raises `InputError` where it is another one now."""
    settings = spec.base.get("settings_sha256", "")
    return open_base(spec.base["model"], sha256=spec.base["sha256"], settings_sha256=settings)


def open_new(options: FinetuneOptions) -> Splits[TuneSpec, TunePart]:
    """The three parts of a new run."""
    assert options.data is not None
    table = read_dialogues(options.data, DialogueReading(parse_columns(options.columns, FIELDS)))
    name = model_of(options.model, generated=is_sample(options.data, SAMPLE))
    opened = open_base(name)
    coder = DialogueCoder(opened, template_of(options.template, opened))
    dialogues, coded = fitting(options.data, table.dialogues, coder, options.most_tokens)
    general = read_general(options.general, coder, options.most_tokens, seed=options.seed)
    spec = TuneSpec(
        input=InputFacts(
            prompts=len(coded), training_prompts=0, general=[texts.name for texts in general]
        ),
        base=BaseFacts(
            model=name,
            name=opened.name,
            sha256=opened.sha256,
            settings_sha256=opened.settings_sha256,
            architecture=opened.facts.architecture,
            licence=opened.licence,
        ),
        template=coder.template,
        most_tokens=options.most_tokens,
        new_tokens=options.new_tokens,
        columns=dict(table.columns),
        parts={},
    )
    splits = _parts(options, spec, dialogues, coded, coder, general, new=True)
    if options.mask == "none":
        return splits
    importance = importance_of(opened, splits.train.general, options)
    tensors = {f"layer {layer}": values.float() for layer, values in importance.items()}
    return replace(
        splits,
        spec=replace(splits.spec, importance=importance),
        assets={IMPORTANCE: partial(_save, tensors)},
    )


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)


def template_of(
    asked: Literal["auto", "chat", "plain"], opened: OpenedLanguageModel
) -> Literal["chat", "plain"]:
    """How prompts are written. Raises InputError for a chat template that the model lacks."""
    has = bool(opened.tokenizer.chat_template)
    if asked == "chat" and not has:
        raise InputError(f"--template chat: {opened.name} has no chat template; use plain")
    if asked == "auto":
        how = "by its chat template" if has else "as they are (it has no chat template)"
        note("assumed", f"prompts are written for the model {how}")
    return "chat" if has and asked != "plain" else "plain"


def open_of_run(
    options: FinetuneOptions, spec: TuneSpec, as_test: bool
) -> Splits[TuneSpec, TunePart]:
    """The three parts by the codes of the run. as_test: all rows are `test`."""
    assert options.data is not None
    reading = reading_of_run(spec, options.columns, need_answer=True)
    table = read_dialogues(options.data, reading)
    coder = coder_of(spec)
    dialogues, coded = fitting(options.data, table.dialogues, coder, spec.most_tokens)
    general = read_general(options.general, coder, spec.most_tokens, seed=options.seed)
    if as_test:
        groups = _groups_of(dialogues, table.columns.get("group"))
        part = TunePart(dialogues, coded, groups, coder, [texts.part("test") for texts in general])
        members = {"test": [Member(d.file, str(d.row)) for d in dialogues]}
        return Splits(part, part, part, spec, members=members)
    return _parts(options, spec, dialogues, coded, coder, general, new=False)


def fitting(
    where: object, dialogues: list[Dialogue], coder: DialogueCoder, most_tokens: int
) -> tuple[list[Dialogue], list[Coded]]:
    """The dialogues that are not too long, and their tokens."""
    coded = [coder.row(dialogue) for dialogue in dialogues]
    fits = [len(row) <= most_tokens and bool(row.learned[1:].any()) for row in coded]
    if long := len(fits) - sum(fits):
        note("left out", f"rows of more than {most_tokens:,} tokens (--most-tokens)", count=long)
    if not any(fits):
        raise fail(where, f"no row has at most {most_tokens:,} tokens; raise --most-tokens")
    kept = [k for k, fit in enumerate(fits) if fit]
    return [dialogues[k] for k in kept], [coded[k] for k in kept]


def _groups_of(dialogues: list[Dialogue], column: str | None) -> np.ndarray:
    """A number for each dialogue: equal for those of a group, and for equal prompts."""
    groups = [dialogue.group for dialogue in dialogues]
    note_groups("group", "prompts", column, groups)
    return joined_groups([plain_prompt(dialogue) for dialogue in dialogues], groups)


def plain_prompt(dialogue: Dialogue) -> str:
    """A prompt by which equal ones are known: without regard to case and white space."""
    text = "\n".join(f"{message.role}: {message.text}" for message in dialogue.messages)
    return " ".join(text.split()).casefold()


def _parts(
    options: FinetuneOptions,
    spec: TuneSpec,
    dialogues: list[Dialogue],
    coded: list[Coded],
    coder: DialogueCoder,
    general: list[GeneralTexts],
    *,
    new: bool,
) -> Splits[TuneSpec, TunePart]:
    groups = _groups_of(dialogues, spec.columns.get("group"))
    generator = np.random.default_rng(mix(options.seed, 3))

    def take(among: np.ndarray, share: float, _: str) -> Taken:
        return take_groups(among, groups[among], share, generator)

    subsets = own_or_shares(
        options.data,
        [dialogue.part for dialogue in dialogues],
        take,
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="prompts",
    )
    _refuse_copies(options.data, dialogues, subsets._asdict())
    refuse_shared_groups(
        options.data, subsets, [d.group or k for k, d in enumerate(dialogues)], "group"
    )
    parts: dict[str, TunePart] = {}
    for name, rows in subsets._asdict().items():
        parts[name] = TunePart(
            [dialogues[row] for row in rows.tolist()],
            [coded[row] for row in rows.tolist()],
            groups[rows],
            coder,
            [texts.part(name) for texts in general],
            packed=options.packing and name == "train",
            watched=name == "validation",
        )
    if new:
        facts = InputFacts(**{**spec.input, "training_prompts": parts["train"].count})
        spec = replace(spec, parts=subsets.sizes(), input=facts)
    members = {
        name: [Member(d.file, str(d.row)) for d in part.dialogues] for name, part in parts.items()
    }
    return Splits(parts["train"], parts["validation"], parts["test"], spec, members=members)


def _refuse_copies(
    where: object, dialogues: list[Dialogue], subsets: dict[str, np.ndarray]
) -> None:
    """A prompt in two parts that the data names would tell the answer."""
    part_of: dict[str, str] = {}
    copies: dict[str, str] = {}
    for part, rows in subsets.items():
        for row in rows.tolist():
            text = plain_prompt(dialogues[row])
            if part_of.setdefault(text, part) != part:
                copies.setdefault(text, f"in {part_of[text]} and in {part}")
    if copies:
        text, parts = next(iter(copies.items()))
        problem = f"{len(copies):,} prompts are more than once in the data, {parts}"
        doubt("copies", where, f"{problem}; the first is {shown(text[:60])}")
