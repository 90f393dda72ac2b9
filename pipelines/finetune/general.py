"""General texts: what a model should not get worse at, while it learns a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...base.account import note
from ...base.errors import InputError, fail
from ...data.columns import plain_name
from ...data.formats.tables import TABLE_SUFFIXES, collect, list_files, scan_table, stem_of
from ...data.prompts.builtin import builtin_texts
from ...data.prompts.dialogues import DIALOGUE_SYNONYMS, Dialogue, DialogueReading, read_dialogues
from ...data.prompts.table import PROMPT_SYNONYMS
from ...data.text_files import is_text_file, read_text_file
from ..engine.training.order import mix
from .coding import Coded, DialogueCoder

PARTS = ("train", "validation", "test")
MOST = 64  # texts of a part
BUILTIN = "builtin"  # texts that need no file
LEAST_TOKENS = 8  # of a piece of a text


@dataclass(frozen=True)
class GeneralTexts:
    """Texts of one source. rows: as the model sees them; dialogues: of each row the prompt with its
    answer, [] for plain texts.
    """

    name: str
    rows: list[Coded]
    dialogues: list[Dialogue]

    def part(self, name: str) -> GeneralTexts:
        """A third of them, at most `MOST`: train is what masks are made of, on validation and test
        it is seen what was forgotten.
        """
        chosen = range(PARTS.index(name), len(self.rows), len(PARTS))[:MOST]
        dialogues = [self.dialogues[k] for k in chosen] if self.dialogues else []
        return GeneralTexts(self.name, [self.rows[k] for k in chosen], dialogues)


def read_general(
    paths: Sequence[str], coder: DialogueCoder, most_tokens: int, *, seed: int
) -> list[GeneralTexts]:
    """The general texts of some files or folders, in a random order that follows from the seed.

    A long text is cut into pieces of `most_tokens`. Raises InputError where there are too few.
    """
    sources = list[GeneralTexts]()
    names = set[str]()
    for path in paths:
        name = stem_of(path) or "general"
        while name in names:
            name += "'"
        names.add(name)
        sources.append(_read(name, path, coder, most_tokens, seed))
    return sources


def _read(name: str, path: str, coder: DialogueCoder, most_tokens: int, seed: int) -> GeneralTexts:
    rows, dialogues = list[Coded](), list[Dialogue]()
    if path == BUILTIN:
        texts = builtin_texts()
        files = list[str]()
    else:
        files, texts = list_files(path, TABLE_SUFFIXES), list[str]()
    if files and not is_text_file(files[0]) and _has_answers(files[0]):
        for dialogue in read_dialogues(path, DialogueReading()).dialogues:
            row = coder.row(dialogue)
            if len(row) > most_tokens:
                what = f"general prompts of more than {most_tokens:,} tokens (--most-tokens)"
                note("left out", what, [f"{name}, row {dialogue.row + 1}"])
                continue
            rows.append(row)
            dialogues.append(dialogue)
    else:
        texts += [text for file in files for text in _texts(file)]
        for text in texts:
            rows += _pieces(coder.text(text), most_tokens)
    if len(rows) < len(PARTS):
        raise fail(
            f"--general {path}",
            f"holds {len(rows)} texts or pieces of {most_tokens:,} tokens; a part each for masks, "
            "validation and test needs 3 or more",
        )
    order = np.random.default_rng(mix(seed, 7)).permutation(len(rows)).tolist()
    note("read", f"general texts of {name}", count=len(rows))
    if len(rows) > MOST * len(PARTS):
        note("left out", f"general texts beyond {MOST} of each part", count=len(rows) - 3 * MOST)
    return GeneralTexts(
        name, [rows[k] for k in order], [dialogues[k] for k in order] if dialogues else []
    )


def _has_answers(file: str) -> bool:
    """Whether a table holds prompts with answers, or dialogues."""
    names = {plain_name(name) for name in scan_table(file)[1]}
    fits = {
        field: bool(names & {*DIALOGUE_SYNONYMS[field]})
        for field in ("messages", "prompt", "input", "answer")
    }
    return fits["messages"] or (fits["answer"] and (fits["prompt"] or fits["input"]))


def _texts(file: str) -> list[str]:
    """The texts of a file: the file itself, or a column of texts."""
    if is_text_file(file):
        return [read_text_file(file)]
    frame, names = scan_table(file)
    column = next((c for c in names if plain_name(c) in PROMPT_SYNONYMS["text"]), None)
    if column is None:
        raise InputError(
            f"--general {Path(file)}: there is no column 'text', nor prompt and answer"
        )
    cells = collect(file, frame.select(column))[column]
    return [str(text) for text in cells.to_list() if text and str(text).strip()]


def _pieces(row: Coded, most_tokens: int) -> list[Coded]:
    """A text in pieces; a last one that is very short is left out."""
    pieces = []
    for start in range(0, len(row), most_tokens):
        piece = Coded(*(part[start : start + most_tokens] for part in row))
        if len(piece) >= LEAST_TOKENS or not pieces:
            pieces.append(piece)
    return [piece for piece in pieces if len(piece) > 1]
