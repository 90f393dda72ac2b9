"""A first schema from the columns of a log, to be read and mended by a person."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from ....base.errors import InputError, fail, shown
from ....base.files import write_text
from ....data.clicks.layouts import files_of
from ....data.clicks.log import scan_log
from ....data.clicks.schema import UNITS
from ....data.clicks.schema_file import parse_schema
from ....data.clicks.vocabulary import clean
from ....data.formats.tables import collect, numbers, stem_of
from ...engine.command_line.terminal import say
from ..options import SchemaOptions

ROWS = 200_000  # rows looked at
USERS = (
    "user_id",
    "userid",
    "user",
    "uid",
    "visitorid",
    "visitor_id",
    "customer_id",
    "customerid",
    "client_id",
    "member_id",
    "account_id",
    "reviewerid",
    "reviewer_id",
    "session_id",
    "search_id",
)
ITEMS = (
    "item_id",
    "itemid",
    "item",
    "iid",
    "video_id",
    "movie_id",
    "movieid",
    "product_id",
    "productid",
    "ad_id",
    "adid",
    "article_id",
    "news_id",
    "book_id",
    "song_id",
    "track_id",
    "photo_id",
    "content_id",
    "doc_id",
    "goods_id",
    "sku",
    "parent_asin",
    "asin",
    "listing_id",
    "feed_id",
    "creative_id",
    "business_id",
)
TIMES = (
    "timestamp",
    "time",
    "ts",
    "time_ms",
    "event_time",
    "unix_time",
    "unixtime",
    "datetime",
    "created_at",
    "date",
)
RATINGS = ("rating", "ratings", "stars", "score", "overall", "review_score")
OUTCOMES = frozenset(
    (
        "click",
        "clicked",
        "like",
        "liked",
        "love",
        "buy",
        "bought",
        "purchase",
        "purchased",
        "label",
        "conversion",
        "converted",
        "convert",
        "follow",
        "followed",
        "share",
        "shared",
        "forward",
        "comment",
        "commented",
        "favorite",
        "favourite",
        "cart",
        "order",
        "ordered",
        "install",
        "installed",
        "download",
        "save",
        "saved",
        "subscribe",
        "subscribed",
        "long_view",
        "longview",
        "watched",
        "pay",
        "paid",
        "add_to_cart",
        "hate",
    )
)
NO_OUTCOMES = frozenset(
    (
        "rand",
        "random",
        "new",
        "vip",
        "member",
        "active",
        "lowactive",
        "weekend",
        "holiday",
        "author",
        "streamer",
        "mobile",
    )
)
AFTERWARDS = (
    "play_time",
    "stay_time",
    "watch_time",
    "watch_ratio",
    "dwell",
    "time_spent",
    "playing_time",
)


@dataclass(frozen=True)
class Look:
    """What the first rows of a column hold. values: float64 or None where not all cells are
    numbers.
    """

    name: str
    kind: str  # "number", "text", "list" or "moment"
    distinct: int
    values: np.ndarray | None = None

    @property
    def plain(self) -> str:
        """The name in lower case, with underscores between its words."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    @property
    def whole(self) -> bool:
        """Whether all its numbers are whole."""
        return self.values is not None and bool((self.values % 1 == 0).all())

    @property
    def binary(self) -> bool:
        """Whether it holds 0 and 1, both of them, and nothing else."""
        return (
            self.values is not None
            and self.distinct == 2
            and set(np.unique(self.values)) == {0.0, 1.0}
        )

    @property
    def is_id(self) -> bool:
        """Whether its numbers are names by how it is called."""
        return bool(
            re.search(r"(^|_)(id|ids|code|zip|zipcode|zip_code|type|category|tag)$|id$", self.plain)
        )


def draft(options: SchemaOptions) -> Path:
    """Guess what the columns are and write that as YAML with comments; returns its path.

    Raises `InputError` where the file stands already, or no user, item or task can be guessed.
    """
    if options.data.lower().endswith((".yaml", ".yml")):
        raise InputError(f"--data {options.data}: is a schema already; give the log")
    files = files_of(options.data)
    first = files[0]
    name = "schema" if len(files) > 1 else stem_of(first)
    path = Path(options.output or Path(first).parent / f"{name}.yaml")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--output {path}: must end in .yaml")
    if path.exists():
        raise InputError(f"{path}: stands already; choose another --output, or remove it")
    frame = collect(first, scan_log(first)[0].head(ROWS))
    if not frame.height:
        raise fail(first, "holds no rows")
    text = schema_text(frame, files, path)
    parse_schema(yaml.safe_load(text), path)
    write_text(path, text)
    say(f"schema {path}: a guess from {frame.height:,} rows; read it before you train")
    return path


def schema_text(frame: pl.DataFrame, files: Sequence[str], path: Path) -> str:
    """The YAML of a log that begins with these rows."""
    looks = [look(frame[name]) for name in frame.columns]
    user, item = named(looks, USERS), named(looks, ITEMS)
    time, unit = moment(looks)
    tasks = targets([one for one in looks if one not in (user, item, time)])
    missing = [
        f"{what} (write `{what}: COLUMN`, {hint})" if what != "tasks" else f"task (write {hint})"
        for what, found, hint in (
            ("user", user, "an id"),
            ("item", item, "an id"),
            (
                "tasks",
                tasks,
                "`tasks: {click: {column: COLUMN}}` with a column of 0 and 1, or with `at_least: 4`",
            ),
        )
        if not found
    ]
    if user is None or item is None or missing:
        columns = ", ".join(shown(name) for name in frame.columns[:12])
        raise fail(
            files[0],
            f"cannot guess the {' and the '.join(missing)}; it has {columns}; write the schema by "
            "hand, as in docs/reference/ranking.md, into a .yaml file for --schema",
        )
    labels = {one["column"] for one in tasks.values()}
    left = [one for one in looks if one not in (time,) and one.name not in labels]
    sides = sides_of(frame, user.name, item.name)
    numeric, categorical, out = list[tuple[str, Any]](), list[tuple[str, Any]](), list[str]()
    for one in left:
        ids = one in (user, item)
        if not ids and (why := unfit(one, frame.height)):
            out.append(f"#   {one.name!r}: {why}".replace("\n", " "))
            continue
        options: dict[str, Any] = {}
        as_number = (
            not ids
            and one.kind == "number"
            and not one.is_id
            and (not one.whole or one.distinct > 100)
        )
        if not as_number:
            options |= {"min_count": 2} if one.distinct > 1000 else {}
            options |= {"split": " ", "length": 8} if one.kind == "list" else {}
        options |= {"side": sides[one.name]} if one.name in sides else {}
        (numeric if as_number else categorical).append((one.name, options))
    lines = [
        "# A guess from the columns of the log. Read it before you train: a column that is known only after the",
        "# click must not be a field. Every key is explained in docs/reference/ranking.md.",
    ]
    if len(files) == 1:
        beside = path.parent.resolve() == Path(files[0]).parent.resolve()
        lines.append(
            f"log: {word(Path(files[0]).name if beside else str(Path(files[0]).resolve()))}"
        )
    lines += [f"user: {word(user.name)}", f"item: {word(item.name)}"]
    if time is not None:
        lines.append(f"time: {flow({'column': time.name, 'unit': unit})}")
    else:
        lines.append(
            "# time: {column: COLUMN, unit: s}   # found none; histories and splits in time need one"
        )
    lines.append(
        "categorical:                    # names and ids; those rarer than min_count count as unseen"
    )
    lines += [f"  {word(name)}: {flow(one)}" for name, one in categorical]
    if numeric:
        lines += ["numeric:                        # numbers, cut into buckets of equal count"]
        lines += [f"  {word(name)}: {flow({'buckets': 10, **one})}" for name, one in numeric]
    if time is not None:
        low = (
            time.values.min() / UNITS[unit]
            if time.values is not None and len(time.values)
            else np.inf
        )
        if low > 1e8:  # counts from 1970, not from the start of the log
            lines.append("time_fields: [hour, weekday]    # of the time, in UTC")
        lines.append("sequences:                      # what the user did before")
        name, one = next(iter(tasks.items()))
        lines.append(
            f"  {word('past_' + name)}: {flow({'of': item.name, 'where': one, 'length': 50})}"
        )
    lines.append(
        "tasks:                          # `only_where: {column: click}` counts a task on clicked rows only"
    )
    lines += [f"  {word(name)}: {flow(one)}" for name, one in tasks.items()]
    few = frame.height < 5 * frame[user.name].n_unique()
    by = "random" if time is None else ("time" if few else "user")
    lines.append(
        f"split: {{by: {by}, train: 0.8, validation: 0.1}}   # user (each one's rows in time), time or random"
    )
    if out:
        lines += ["# Left out:", *out]
    return "\n".join(lines) + "\n"


def look(column: pl.Series) -> Look:
    """What a column holds."""
    if isinstance(column.dtype, pl.List | pl.Array):
        return Look(column.name, "list", column.explode().n_unique())
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        return Look(column.name, "other", 0)
    if column.dtype.is_temporal():
        seconds = (
            column.cast(pl.Datetime("us")).dt.epoch("s")
            if column.dtype in (pl.Date, pl.Datetime)
            else None
        )
        values = None if seconds is None else seconds.drop_nulls().to_numpy().astype(np.float64)
        return Look(
            column.name, "moment" if values is not None else "other", column.n_unique(), values
        )
    distinct = clean(column).drop_nulls().n_unique()
    try:
        values, bad = numbers(column)
    except TypeError:
        return Look(column.name, "text", distinct)
    if bad.any() or np.isnan(values).all():
        return Look(column.name, "text", distinct)
    values = values[~np.isnan(values)]
    return Look(column.name, "number", len(np.unique(values)), values)


def named(looks: Sequence[Look], names: Sequence[str]) -> Look | None:
    """The first column with one of these names, else with such an ending."""
    plain = [one for one in looks if one.kind in ("number", "text")]
    for name in names:
        for one in plain:
            if one.plain == name:
                return one
    for name in names:
        for one in plain:
            if one.plain.endswith(f"_{name}") and "_" in name:
                return one
    return None


def moment(looks: Sequence[Look]) -> tuple[Look | None, str]:
    """The column of the time, and its unit by the size of its numbers."""
    for name in TIMES:
        for one in looks:
            if (
                one.plain != name
                or one.values is None
                or not len(one.values)
                or one.values.min() < 0
            ):
                continue
            if one.kind == "moment":
                return one, "s"
            day, top = one.values, one.values.max()
            dates = (
                (day >= 19_000_101)
                & (day < 21_010_101)
                & (day // 100 % 100 <= 12)
                & (day % 100 <= 31)
            )
            if dates.all() or top < 100:  # 20240131, or an hour of the day
                continue
            for unit, scale in UNITS.items():
                if top < 2**32 * scale:
                    return one, unit
    return None, "s"


def targets(looks: Sequence[Look]) -> dict[str, dict[str, Any]]:
    """Columns that look like outcomes, clicks first: name of the task -> its label."""
    found: dict[str, dict[str, Any]] = {}
    outcomes = []
    for one in looks:
        bare = one.plain.removeprefix("is_").removeprefix("has_")
        words = set(bare.split("_")) | {bare}
        asked = one.plain.startswith("is_") and not words & NO_OUTCOMES
        if one.binary and (
            bare in OUTCOMES
            or asked
            or (words & OUTCOMES and one.plain.startswith(("is_", "label_")))
        ):
            outcomes.append((bare, one.name))
        elif (
            one.plain in RATINGS
            and one.values is not None
            and one.values.min() >= 0.5
            and one.values.max() <= 5
        ):
            liked = one.values >= 4
            if one.values.max() > 1 and liked.any() and not liked.all():
                found["like" if not any(bare == "like" for bare, _ in outcomes) else one.plain] = {
                    "column": one.name,
                    "at_least": 4,
                }
    for bare, name in sorted(outcomes, key=lambda pair: not pair[0].startswith("click")):
        found[bare if bare not in found else name] = {"column": name}
    return dict(sorted(found.items(), key=lambda pair: not pair[0].startswith("click")))


def unfit(one: Look, rows: int) -> str | None:
    """Why a column is left out, or None."""
    if one.distinct < 2:
        return "holds one value"
    if one.kind in ("moment", "other"):
        return "is a time, or of a kind that is no field"
    if any(part in one.plain for part in AFTERWARDS):
        return "seems to be known only afterwards; it may make a task with at_least"
    if one.plain in RATINGS:
        return "seems to be an outcome; it may make a task with at_least"
    if rows > 1000 and one.distinct == rows and (one.kind == "text" or one.is_id):
        return "differs in every row"
    if one.plain in TIMES:
        return "seems to be a time that cannot be read as seconds"
    return None


def sides_of(frame: pl.DataFrame, user: str, item: str) -> dict[str, str]:
    """Columns that are the same in all rows of a user or of an item, where most of these have
    several rows.
    """
    found: dict[str, str] = {}
    for side, by in (("item", item), ("user", user)):
        rest = [
            n for n in frame.columns if n not in (user, item) and not frame[n].dtype.is_nested()
        ]
        if not rest or frame.height < 2 * frame[by].n_unique():
            continue
        most = (
            frame.group_by(by)
            .agg(pl.col(name).n_unique() for name in rest)
            .select(pl.col(rest).max())
            .row(0)
        )
        found |= {name: side for name, count in zip(rest, most) if count == 1}
    return found


def word(name: str) -> str:
    """A name in YAML, quoted where it must be."""
    return flow([name])[1:-1]


def flow(values: Any) -> str:
    """A mapping or list on one line."""
    text = yaml.safe_dump(
        values, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text.strip()
