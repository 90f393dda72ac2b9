"""From a person's prompts or texts to three parts of tokens, and what a run keeps of them.

Shapes: n prompts of a part, B of a batch, N tokens of the longest of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...base.account import doubt, note
from ...base.errors import InputError, fail, shown
from ...base.files import write_text
from ...data.columns import note_groups, parse_columns
from ...data.prompts.builtin import builtin_texts
from ...data.prompts.generate import filler_of, generate_prompts, pieces_of
from ...data.prompts.sample import SAMPLE
from ...data.prompts.table import (
    FIELDS,
    TEXT_FIELDS,
    Prompt,
    PromptReading,
    PromptTable,
    read_prompt_data,
)
from ...models.language.generated import GENERATED
from ..engine.command_line.checks import check_unread
from ..engine.opened_models import is_sample, model_of, open_base
from ..engine.pipeline import Member, Splits
from ..engine.subsets import Subsets, own_or_shares, refuse_shared_groups, take_groups
from ..engine.training.order import mix
from .coding import Coder, Tokens
from .options import LENGTHS, LongContextOptions
from .spec import InputFacts, LongContextSpec

if TYPE_CHECKING:
    from ...models.language.opening import OpenedLanguageModel
    from .scoring import PromptScores

ASSET = "prompts.jsonl"
LEAST_TEXTS = 6  # fewer texts are cut into pieces, so that each part has some


@dataclass(frozen=True)
class PromptPart:
    """Prompts of a part, as a data set. groups: int64 (n,), equal for prompts that share a text.
    memory: scores that were measured before, by plan.
    """

    prompts: list[Prompt]
    tokens: list[Tokens]
    groups: np.ndarray
    memory: dict[str, PromptScores] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(tokens.prompt) for tokens in self.tokens)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch: ids int64 (B, N), mask and answer bool (B, N), padded on the right."""
        rows = [self.tokens[index] for index in indices]
        ids = [torch.tensor([*row.prompt, *row.answer]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        places = torch.arange(padded.shape[1])
        ends = torch.tensor([len(row) for row in ids])[:, None]
        begins = torch.tensor([len(row.prompt) for row in rows])[:, None]
        mask = places < ends
        index = torch.tensor(list(indices))
        return {"ids": padded, "mask": mask, "answer": mask & (places >= begins), "index": index}

    @staticmethod
    def collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch is complete as it comes."""
        return batch


def reading_of(
    columns: Sequence[str], usual: Mapping[str, str] | None = None, *, prompts_only: bool = False
) -> PromptReading:
    """How tables are read: by the columns that the user names, else by usual names."""
    chosen = parse_columns(columns, (*FIELDS, *TEXT_FIELDS[:1]))
    return PromptReading(chosen, usual or {}, prompts_only)


def base_of(spec: LongContextSpec) -> OpenedLanguageModel:
    """The language model of a run. Raises `InputError` where it is another one now."""
    return open_base(spec.model, sha256=spec.sha256, settings_sha256=spec.settings_sha256)


def open_splits(
    options: LongContextOptions, spec: LongContextSpec | None, as_test: bool
) -> Splits[LongContextSpec, PromptPart]:
    """The three parts; as_test: all of the data is the test part."""
    assert options.data is not None
    if spec is None:
        name = model_of(options.model, generated=is_sample(options.data, SAMPLE))
        opened = open_base(name)
    else:
        name, opened = spec.model, base_of(spec)
    coder = Coder(opened.tokenizer)
    table = _table(options, spec)
    if table.are_texts:
        parts = _generated(options, table, coder, as_test)
    else:
        parts = _as_they_are(options, table, as_test)
    datasets = {name: _dataset(part, coder, opened, name) for name, part in parts.items()}
    spec = spec or _new_spec(name, table, opened, datasets)
    members: dict[str, list[Member]] = {}
    if not table.are_texts and Path(options.data).is_file():
        members = {
            name: [Member(options.data, str(prompt.row)) for prompt in part]
            for name, part in parts.items()
        }
    if as_test:
        return Splits(*[datasets["test"]] * 3, spec=spec, members=members)
    assets: dict[str, Callable[[Path], object]] = {}
    if table.are_texts:
        assets[ASSET] = partial(_write_prompts, prompts=parts["test"])
    train, validation, test = (datasets[name] for name in ("train", "validation", "test"))
    return Splits(train, validation, test, spec, assets, members)


def _table(options: LongContextOptions, spec: LongContextSpec | None) -> PromptTable:
    """The rows of --data. Without it, for prompts of a length or for a model of the user's: texts
    that come with Python.
    """
    assert options.data is not None
    names_model = options.model not in ("auto", GENERATED)
    if is_sample(options.data, SAMPLE) and (options.lengths or names_model):
        texts = [Prompt(text, id=f"text {k}") for k, text in enumerate(builtin_texts(), 1)]
        note("assumed", "prompts are generated over texts that need no download")
        return PromptTable(texts, are_texts=True)
    usual = spec.columns if spec is not None else {}
    table = read_prompt_data(options.data, reading_of(options.columns, usual))
    if not table.are_texts:
        if spec is None:
            reader = "a --data of texts, over which prompts are generated; this has prompts"
            check_unread(options, ("lengths", "depths", "kinds"), reader)
        table = replace(table, prompts=_with_answers(options.data, table))
    if not table.prompts:
        raise fail(options.data, "has no prompt")
    return table


def _with_answers(where: str, table: PromptTable) -> list[Prompt]:
    """The prompts that can be scored; a missing answer is a doubt where there is a column of
    them.
    """
    rows = []
    for number, prompt in enumerate(table.prompts, 1):
        if not prompt.text.strip():
            raise fail(f"{where}, row {number}", "the prompt is empty; leave the row out")
        if "answer" in table.columns and prompt.answer.strip().lower() in ("", "nan", "none", "na"):
            doubt(
                "missing-labels",
                f"{where}, row {number}",
                "there is no label: the answer is missing",
            )
            continue
        rows.append(prompt)
    if missing := len(table.prompts) - len(rows):
        note("left out", "rows without a label, their answer", count=missing)
    if "answer" not in table.columns:
        note("values", "prompts without answers: only the loss of their text is measured",
             count=len(rows))  # fmt: skip
    return rows


def _as_they_are(
    options: LongContextOptions, table: PromptTable, as_test: bool
) -> dict[str, list[Prompt]]:
    """The parts of a table of prompts, with groups and equal prompts together."""
    prompts = table.prompts
    note_groups("group", "prompts", table.columns.get("group"), [p.group for p in prompts])
    _check_copies(str(options.data), prompts)
    if as_test:
        return {"test": _at_most(prompts, options.test_prompts, "--test-prompts", options.seed)}
    codes = _codes(prompts)
    subsets = _split(options, prompts, codes, "prompts")
    most = (options.fit_prompts, options.validation_prompts, options.test_prompts)
    parts = {}
    for (name, rows), count in zip(subsets._asdict().items(), most, strict=True):
        option = f"--{'fit' if name == 'train' else name}-prompts"
        parts[name] = _at_most([prompts[row] for row in rows], count, option, options.seed)
    return parts


def _at_most(prompts: list[Prompt], count: int, option: str, seed: int) -> list[Prompt]:
    """Some of the prompts, drawn by the seed, in their order."""
    if len(prompts) <= count:
        return prompts
    note("left out", f"prompts beyond {option} {count}", count=len(prompts) - count)
    rows = np.random.default_rng(mix(seed, 4)).choice(len(prompts), count, replace=False)
    return [prompts[row] for row in sorted(rows.tolist())]


def _check_copies(where: str, prompts: Sequence[Prompt]) -> None:
    """Equal prompts in two parts, or with two answers, would make a score wrong."""
    first: dict[str, Prompt] = {}
    copies = 0
    for prompt in prompts:
        before = first.setdefault(" ".join(prompt.text.split()), prompt)
        if before is prompt:
            continue
        copies += 1
        if before.answer.strip() != prompt.answer.strip():
            both = f"{shown(before.answer.strip())} and {shown(prompt.answer.strip())}"
            doubt(
                "two-labels", where, f"the prompt {shown(prompt.text[:50])} has two answers, {both}"
            )
        if before.part != prompt.part:
            parts = f"{before.part or 'no part'} and in {prompt.part or 'no part'}"
            doubt("copies", where, f"the prompt {shown(prompt.text[:50])} is in {parts}")
    if copies:
        note("items", "prompts that are there more than once, in one part", count=copies)


def _codes(prompts: Sequence[Prompt]) -> np.ndarray:
    """A number for each prompt, int64 (n,): equal for prompts of one group or of one text."""
    of_text: dict[str, str] = {}
    names = []
    for number, prompt in enumerate(prompts):
        text = " ".join(prompt.text.split())
        names.append(of_text.setdefault(text, prompt.group or f"row {number}"))
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _split(
    options: LongContextOptions, rows: Sequence[Prompt], codes: np.ndarray, items: str
) -> Subsets:
    generator = np.random.default_rng(mix(options.seed, 3))
    subsets = own_or_shares(
        options.data,
        [row.part for row in rows],
        lambda among, share, _: take_groups(among, codes[among], share, generator),
        test_share=options.test_share,
        validation_share=options.validation_share,
        items=items,
    )
    refuse_shared_groups(options.data, subsets, codes.tolist(), "group")
    return subsets


def _generated(
    options: LongContextOptions, table: PromptTable, coder: Coder, as_test: bool
) -> dict[str, list[Prompt]]:
    """Prompts over texts; those of one part are over texts of that part alone."""
    texts = _cut(table.prompts)
    if as_test:
        return {"test": _over(options, texts, coder, "test", options.test_prompts)}
    codes = _codes(texts)
    subsets = _split(options, texts, codes, "texts")
    counts = (options.fit_prompts, options.validation_prompts, options.test_prompts)
    return {
        name: _over(options, [texts[row] for row in rows], coder, name, count)
        for (name, rows), count in zip(subsets._asdict().items(), counts, strict=True)
    }


def _cut(texts: list[Prompt]) -> list[Prompt]:
    """The texts or, where there are few, their pieces, each of which counts as a text."""
    filled = [text for text in texts if text.text.strip()]
    if not filled:
        raise InputError("--data: all texts are empty")
    groups = {text.group or text.id for text in filled}
    if len(groups) >= LEAST_TEXTS:
        note("groups", f"{len(filled):,} texts of {len(groups):,} groups")
        return [text._replace(group=text.group or text.id) for text in filled]
    note("groups", f"{len(groups)} texts are few: each piece of them counts as a text of its own")
    longest = max(len(text.text) for text in filled)
    size = min(4000, max(400, longest // (2 * LEAST_TEXTS)))
    return [
        text._replace(text=piece, group=f"{text.group or text.id}, piece {number}")
        for text in filled
        for number, piece in enumerate(pieces_of(text.text, size), 1)
    ]


def _over(
    options: LongContextOptions, texts: Sequence[Prompt], coder: Coder, part: str, count: int
) -> list[Prompt]:
    number = ("train", "validation", "test").index(part)
    filler = filler_of([text.text for text in texts], coder.measure)
    prompts = generate_prompts(
        filler,
        coder.measure,
        kinds=options.kinds,
        lengths=options.lengths or LENGTHS,
        depths=options.depths,
        count=count,
        seed=mix(options.seed, number, 6),
        name=part,
    )
    return [prompt._replace(part=part) for prompt in prompts]


def _dataset(
    prompts: list[Prompt], coder: Coder, opened: OpenedLanguageModel, name: str
) -> PromptPart:
    """Raises InputError for a prompt that is longer than the positions of the model."""
    tokens = [coder.prompt(prompt) for prompt in prompts]
    for prompt, row in zip(prompts, tokens, strict=True):
        length = len(row.prompt) + len(row.answer)
        if length > opened.facts.positions:
            raise InputError(
                f"prompt {prompt.id}: {length:,} tokens with its answer, more than the "
                f"{opened.facts.positions:,} positions of {opened.name}; leave it out or shorten it"
            )
    groups = np.arange(len(prompts))
    if any(prompt.group for prompt in prompts):
        groups = _codes(prompts)
    return PromptPart(prompts, tokens, groups)


def _new_spec(
    name: str, table: PromptTable, opened: OpenedLanguageModel, datasets: Mapping[str, PromptPart]
) -> LongContextSpec:
    lengths = [
        len(tokens.prompt) for part in ("train", "validation") for tokens in datasets[part].tokens
    ]
    kinds = {prompt.kind for part in datasets.values() for prompt in part.prompts}
    return LongContextSpec(
        input=InputFacts(
            model=opened.name,
            licence=opened.licence,
            prompts=sum(map(len, datasets.values())),
            generated=table.are_texts,
            kinds=sorted(kinds),
        ),
        model=name,
        sha256=opened.sha256,
        settings_sha256=opened.settings_sha256,
        layers=opened.facts.layers,
        kv_heads=opened.facts.kv_heads,
        columns=dict(table.columns),
        shortest=min(lengths),
        longest=max(lengths),
        parts={name: len(part) for name, part in datasets.items()},
    )


def _write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Generated prompts as a table that `predict` and `evaluate` read."""
    lines = [
        json.dumps(
            {
                "id": prompt.id,
                "prompt": prompt.text,
                "answer": prompt.answer,
                "question2": prompt.question2,
                "answer2": prompt.answer2,
                "kind": prompt.kind,
                "depth": prompt.depth,
            },
            ensure_ascii=False,
        )
        for prompt in prompts
    ]
    write_text(path, "\n".join(lines) + "\n")
