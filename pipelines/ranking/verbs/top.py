"""The best items for each user: every pair of a user and a candidate, scored as of now, block of
users by block.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ....base.account import note, opened
from ....base.errors import InputError, fail, nearest, shown
from ....base.files import clear_aside, write_aside
from ....base.own_files import ASIDE
from ....data.clicks.batches import ClickRows
from ....data.clicks.coding import Rows, codes_of
from ....data.clicks.encoder import ClickEncoder
from ....data.clicks.history import SECONDS, Ragged, spread
from ....data.clicks.layouts import log_of
from ....data.clicks.log import scan_log
from ....data.clicks.times import NOW
from ....data.clicks.vocabulary import FIRST, MISSING, are_integers, clean
from ....data.formats.tables import collect, require_columns
from ...engine.accounts import publish
from ...engine.command_line.terminal import Progressbar, say
from ...engine.inference.output import Writer, refuse_input_as_output, writer_of
from ...engine.runs.loaded import Loaded, load_run
from ..options import TopOptions
from ..pipeline import RankingPipeline
from ..prediction import encoder_with_log
from ..scoring import batch_probability

PART = 1_000_000  # lines of lists held in memory


@dataclass(frozen=True)
class Ids:
    """Users or candidates. ids: as they are written; codes: int32 (n,) places in the run, -1
    unknown.
    """

    ids: pl.Series
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


def top(pipeline: RankingPipeline, options: TopOptions) -> Path:
    """Write user_id, rank, item_id and p_TASK of the k best candidates of each user; returns the
    path of the table.

    A pair is scored as a row without a time, after all events that the run (and --log) knows.
    Fields of the log itself are those of the last row of the item, where the schema says that their
    side is the item, else of the user; parts of the time and sequences that only a table holds are
    missing. Items that the user has met are left out, unless --seen is given; known are only those
    in the histories: events of sequences of the item's id, and of ids that have a code of their
    own. Users with fewer candidates get shorter lists."""
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: already exists; choose another --output, or --overwrite")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give a file")
    with opened() as account:
        written = _top(load_run(pipeline, options.run, options.accelerator), options)
        publish(account)
    return written


def _top(loaded: Loaded, options: TopOptions) -> Path:
    """Write the lists of a run that is open, and say so."""
    output = Path(options.output)
    writer = writer_of(output, {})
    log = () if options.log is None else log_of(options.log).files
    tables = (table for table in (options.users, options.candidates) if table is not None)
    refuse_input_as_output(output, (*tables, *log))
    names = loaded.spec.tasks
    if options.task is not None and options.task not in names:
        raise InputError(f"--task {options.task}: unknown{nearest(options.task, names)}")
    encoder = encoder_with_log(loaded.spec, options.log)
    schema = encoder.schema
    if schema.user is None or schema.item is None:
        raise InputError(f"{options.run}: its log has no users or no items, so there are no lists")
    everyone = Ids(encoder.users.keys, np.arange(len(encoder.users.keys), dtype=np.int32))
    users = (
        everyone
        if options.users is None
        else read_ids(options.users, schema.user, encoder, "users")
    )
    if options.candidates is None:
        met = np.flatnonzero(encoder.trained["item"]).astype(np.int32)
        candidates = Ids(encoder.items.keys.gather(met), met)
    else:
        candidates = read_ids(options.candidates, schema.item, encoder, "items")
    place = 0 if options.task is None else names.index(options.task)
    started = time.monotonic()
    clear_aside(output.parent, output.name)
    blocks = lists(loaded, encoder, users, candidates, options, place)
    write_aside(
        output, lambda path: _write(path, output.name, blocks, users, candidates, names, writer)
    )
    took = max(time.monotonic() - started, 1e-9)
    unknown = (
        f", {int((users.codes < 0).sum()):,} of them unknown to the run"
        if (users.codes < 0).any()
        else ""
    )
    say(
        f"{len(users):,} lists{unknown} of {len(candidates):,} candidates in {took:.1f} s, "
        f"{len(users) / took:.0f} lists/s: {output}"
    )
    return output


def read_ids(table: str, column: str, encoder: ClickEncoder, side: str) -> Ids:
    """The distinct ids of a table, in its order."""
    frame, names = scan_log(table)
    require_columns(table, [column], names)
    words = encoder.schema.missing_words(column)
    cells = clean(collect(table, frame.select(column))[column], missing_words=words)
    ids = cells.drop_nulls().unique(maintain_order=True)
    if not len(ids):
        raise fail(table, f"column {shown(column)} holds no id")
    known = encoder.users if side == "users" else encoder.items
    codes = np.maximum(known.codes(ids, missing_words=words) - FIRST, -1).astype(np.int32)
    note("read", side, count=len(ids))
    if len(names) > 1:
        note("columns", f"not used in {Path(table).name}", [n for n in names if n != column])
    if (codes < 0).any():
        note("values", f"{side} that the run does not know", count=int((codes < 0).sum()))
    return Ids(
        ids.cast(pl.Int64) if known.integers and are_integers(ids) else ids.cast(pl.String), codes
    )


class Pairs:
    """Rows of pairs of users and candidates, with the fields of each side made once."""

    def __init__(self, encoder: ClickEncoder, users: Ids, candidates: Ids) -> None:
        self.encoder, self.users, self.candidates = encoder, users, candidates
        self.item_codes, self.of_item = self._side("item", candidates)
        schema, self.order, self.sorted = (
            encoder.schema,
            dict[str, np.ndarray](),
            dict[str, np.ndarray](),
        )
        for name, sequence in schema.events.items():
            field = schema.categorical[sequence.of]
            if field.column == schema.item and field.hash is None and field.prefix is None:
                codes = encoder.codes(sequence.of, candidates.ids, "ids")[0][:, 0]
                self.order[name] = np.argsort(codes, kind="stable")
                self.sorted[name] = codes[self.order[name]]

    def _side(self, side: str, who: Ids) -> tuple[np.ndarray, np.ndarray]:
        """int32 (n, M) codes of the log's fields as far as they are of this side; bool (M,) those
        of the item.
        """
        schema = self.encoder.schema
        id_column = {"user": schema.user, "item": schema.item}
        codes = codes_of(self.encoder.last[side], who.codes)
        of_item, start = np.zeros(codes.shape[1], bool), 0
        for facts in self.encoder.of_side("row"):
            part = slice(start, start + facts.width)
            start += facts.width
            if facts.name in schema.time_fields:
                codes[:, part] = MISSING
                continue
            field = schema.categorical.get(facts.name) or schema.numeric[facts.name]
            of_item[part] = field.column == schema.item or (
                field.side == "item" and field.column != schema.user
            )
            if field.column == id_column[side]:
                codes[:, part] = self.encoder.codes(facts.name, who.ids, "ids")[0]
        return codes, of_item

    def rows(self, user: np.ndarray, codes: np.ndarray, item: np.ndarray) -> Rows:
        """Rows of pairs. user: places among `users`; codes: their (n, M) fields; item: places among
        `candidates`.
        """
        fields = np.where(self.of_item, self.item_codes[item], codes)
        n = len(user)
        no_lists = {
            name: Ragged(np.zeros(0, np.int32), np.zeros(n + 1, np.int64))
            for name in self.encoder.schema.listed
        }
        return Rows(
            fields,
            self.users.codes[user],
            self.candidates.codes[item],
            np.full(n, NOW),
            listed=no_lists,
        )

    def user_codes(self, start: int, end: int) -> np.ndarray:
        """int32 (n, M) fields of some users."""
        return self._side("user", Ids(self.users.ids[start:end], self.users.codes[start:end]))[0]

    def met(self, start: int, end: int) -> np.ndarray:
        """bool (n, candidates): which candidates some users have met in the histories."""
        out = np.zeros((end - start, len(self.candidates)), bool)
        user = self.users.codes[start:end].astype(np.int64)
        for name, order in self.order.items():
            events = self.encoder.events[name]
            first = np.searchsorted(events.keys, user * SECONDS)
            last = np.where(user < 0, first, np.searchsorted(events.keys, (user + 1) * SECONDS))
            of = np.repeat(np.arange(len(user)), last - first)
            items = events.codes[spread(first, last)]
            of, items = of[items >= FIRST], items[items >= FIRST]
            low, high = (
                np.searchsorted(self.sorted[name], items, edge) for edge in ("left", "right")
            )
            out[np.repeat(of, high - low), order[spread(low, high)]] = True
        return out


def lists(
    loaded: Loaded,
    encoder: ClickEncoder,
    users: Ids,
    candidates: Ids,
    options: TopOptions,
    place: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of lists: places of users and candidates, ranks from 1, and probabilities (n, S) of
    all tasks.
    """
    pairs, count = Pairs(encoder, users, candidates), len(candidates)
    if not options.seen and not pairs.order:
        note("assumed", "the run has no histories of items: lists hold what users have met, too")
    block = max(1, options.batch_size // count)
    with Progressbar(total=len(users), unit="list", desc="top") as bar:
        for start in range(0, len(users), block):
            end = min(start + block, len(users))
            codes, blocks = pairs.user_codes(start, end), []
            for first in range(0, (end - start) * count, options.batch_size):
                pair = np.arange(first, min(first + options.batch_size, (end - start) * count))
                rows = pairs.rows(start + pair // count, codes[pair // count], pair % count)
                batch = ClickRows(encoder, rows).batch(np.arange(len(pair)))
                blocks.append(batch_probability(loaded.model, batch, loaded.device))
                if not np.isfinite(blocks[-1]).all():
                    raise InputError(f"{options.run}: the model gives no finite probability")
            probability = np.concatenate(blocks).reshape(end - start, count, -1)
            met = np.zeros((end - start, count), bool) if options.seen else pairs.met(start, end)
            best = [
                best_of(probability[n, :, place], ~met[n], options.k) for n in range(end - start)
            ]
            length = np.array([len(places) for places in best])
            who, item = np.repeat(np.arange(end - start), length), np.concatenate(best)
            rank = np.concatenate([np.arange(1, n + 1) for n in length])
            yield start + who, item, rank, probability[who, item]
            bar.update(end - start)


def best_of(score: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    """Places of the k highest of the allowed scores, highest first; of equal ones the first."""
    place = np.flatnonzero(allowed)
    value = score[place]
    if len(place) > k:
        least = np.partition(value, len(value) - k)[len(value) - k]
        place, value = place[value >= least], value[value >= least]
    return place[np.argsort(-value, kind="stable")[:k]]


def _write(
    path: Path,
    name: str,
    blocks: Iterator[tuple[np.ndarray, ...]],
    users: Ids,
    candidates: Ids,
    tasks: list[str],
    writer: Writer | None,
) -> None:
    """The blocks as one file, by way of parts beside it, so that only some blocks are in memory.

    writer: of the format; None writes parquet.
    """
    kinds: dict[str, pl.DataType] = {
        "user_id": users.ids.dtype,
        "rank": pl.Int32(),
        "item_id": candidates.ids.dtype,
    }
    kinds |= {f"p_{task}": pl.Float32() for task in tasks}

    with tempfile.TemporaryDirectory(prefix=ASIDE, suffix=f"-{name}", dir=path.parent) as folder:
        parts, held, rows = list[Path](), list[pl.DataFrame](), 0

        def put() -> None:
            nonlocal rows
            parts.append(Path(folder) / f"{len(parts):06d}.parquet")
            pl.concat(held or [pl.DataFrame(schema=kinds)]).write_parquet(parts[-1])
            held.clear()
            rows = 0

        for user, item, rank, probability in blocks:
            columns = {
                "user_id": users.ids.gather(user),
                "rank": rank,
                "item_id": candidates.ids.gather(item),
            }
            columns |= {f"p_{task}": probability[:, place] for place, task in enumerate(tasks)}
            held.append(pl.DataFrame(columns, schema=kinds))
            rows += len(user)
            if rows >= PART:
                put()
        if held or not parts:
            put()
        lists = pl.scan_parquet(parts, glob=False)
        if writer is None:
            lists.sink_parquet(path, maintain_order=True, row_group_size=100_000)
        else:
            writer(lists, path)
