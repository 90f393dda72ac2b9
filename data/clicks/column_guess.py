"""What the columns of a log seem to be, guessed from their names and values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ..formats.tables import numbers
from .cells import ANSWERS
from .schema import UNITS
from .times import moments
from .vocabulary import clean

USERS = (
    "user_id", "userid", "user", "uid", "visitorid", "visitor_id", "customer_id", "customerid",
    "client_id", "member_id", "account_id", "reviewerid", "reviewer_id", "customer",
    "customer_no", "customer_number", "client", "member", "visitor", "shopper", "buyer",
    "account", "person_id", "person", "household_id", "reader_id", "reader", "subscriber_id",
    "subscriber", "reviewer", "session_id", "sessionid", "session", "search_id",
)  # fmt: skip
ITEMS = (
    "item_id", "itemid", "item", "iid", "video_id", "movie_id", "movieid", "product_id",
    "productid", "ad_id", "adid", "article_id", "news_id", "book_id", "song_id", "track_id",
    "photo_id", "content_id", "doc_id", "goods_id", "sku", "parent_asin", "asin", "listing_id",
    "feed_id", "creative_id", "business_id", "stock_code", "stockcode", "article_no",
    "item_no", "product_code", "item_code", "isbn", "ean", "product", "article", "movie",
    "video", "book", "song", "track", "artist_id", "artistid", "news", "recipe_id", "course_id",
    "offer_id", "campaign_id", "banner_id", "restaurant_id", "title",
)  # fmt: skip
TIMES = (
    "timestamp", "time", "ts", "time_ms", "event_time", "unix_time", "unixtime", "datetime",
    "created_at", "date", "t_dat", "date_time", "event_date", "event_timestamp", "purchase_date",
    "order_date", "invoice_date", "invoicedate", "clicked_at", "viewed_at", "occurred_at",
)  # fmt: skip
# Words in the names of moments of users and items, which are no times of events.
TRAITS = ("birth", "release", "upload", "regist", "signup", "joined", "publish", "launch", "expir")
HISTORIES = ("hist", "seq", "past", "recent", "previous", "last")  # in names of lists of items
RATINGS = (
    "rating", "ratings", "stars", "score", "overall", "review_score",
)  # fmt: skip
OUTCOMES = frozenset((
    "click", "clicked", "like", "liked", "love", "buy", "bought", "purchase", "purchased",
    "label", "conversion", "converted", "convert", "follow", "followed", "share", "shared",
    "forward", "comment", "commented", "favorite", "favourite", "cart", "order", "ordered",
    "install", "installed", "download", "save", "saved", "subscribe", "subscribed", "long_view",
    "longview", "watched", "pay", "paid", "add_to_cart", "hate",
))  # fmt: skip
NO_OUTCOMES = frozenset((
    "rand", "random", "new", "vip", "member", "active", "lowactive", "weekend", "holiday",
    "author", "streamer", "mobile",
))  # fmt: skip
AFTERWARDS = (
    "play_time", "stay_time", "watch_time", "watch_ratio", "dwell", "time_spent",
    "playing_time",
)  # fmt: skip


@dataclass(frozen=True)
class ColumnFacts:
    """What the first rows of a column hold. values: float64 or None where not all cells are
    numbers.
    """

    name: str
    kind: str  # "number", "text", "list" or "moment"
    distinct: int
    values: np.ndarray | None = None
    answers: bool = False  # words such as yes and no

    @property
    def plain(self) -> str:
        """The name in lower case, with underscores between its words."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    @property
    def bare(self) -> str:
        """The plain name without "is" or "has" before it."""
        return self.plain.removeprefix("is_").removeprefix("has_")

    @property
    def is_outcome(self) -> bool:
        """Whether it is called as an outcome is, or as a count of outcomes."""
        return self.bare in OUTCOMES or self.bare.removesuffix("s") in OUTCOMES

    @property
    def integers(self) -> bool:
        """Whether all its numbers are whole numbers."""
        return self.values is not None and bool((self.values % 1 == 0).all())

    @property
    def binary(self) -> bool:
        """Whether it holds 0 and 1, both of them, and nothing else; or such words as yes and no."""
        return self.answers or (
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


def facts_of(column: pl.Series) -> ColumnFacts:
    """What a column holds."""
    if isinstance(column.dtype, pl.List | pl.Array):
        return ColumnFacts(column.name, "list", column.explode().n_unique())
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        return ColumnFacts(column.name, "other", 0)
    if column.dtype.is_temporal():
        seconds = (
            column.cast(pl.Datetime("us")).dt.epoch("s")
            if column.dtype in (pl.Date, pl.Datetime)
            else None
        )
        values = None if seconds is None else seconds.drop_nulls().to_numpy().astype(np.float64)
        return ColumnFacts(
            column.name, "moment" if values is not None else "other", column.n_unique(), values
        )
    text = clean(column).drop_nulls()
    distinct = text.n_unique()
    try:
        values, bad = numbers(column)
    except TypeError:
        return _text_facts(column.name, text.cast(pl.String), distinct)
    if bad.any() or np.isnan(values).all():
        return _text_facts(column.name, text.cast(pl.String), distinct)
    values = values[~np.isnan(values)]
    return ColumnFacts(column.name, "number", len(np.unique(values)), values)


def _text_facts(name: str, text: pl.Series, distinct: int) -> ColumnFacts:
    """What a column of words holds: moments, answers to a question, lists, or names."""
    if not len(text):
        return ColumnFacts(name, "text", distinct)
    head = text.head(1000)
    if moments(head).null_count() == 0:
        seconds = moments(text).drop_nulls()
        if len(seconds) == len(text):
            return ColumnFacts(name, "moment", distinct, seconds.to_numpy().astype(np.float64))
    words = set(head.str.to_lowercase().unique())
    if len(words) == 2 and words <= ANSWERS.keys() and distinct == 2:
        return ColumnFacts(name, "text", distinct, answers=True)
    if head.str.contains(r"^\[.*\]$").all():
        return ColumnFacts(name, "list", distinct)
    return ColumnFacts(name, "text", distinct)


def column_named(columns: Sequence[ColumnFacts], names: Sequence[str]) -> ColumnFacts | None:
    """The first column with one of these names, else with such an ending."""
    plain = [column for column in columns if column.kind in ("number", "text")]
    for name in names:
        for column in plain:
            if column.plain == name:
                return column
    for name in names:
        for column in plain:
            if column.plain.endswith(f"_{name}") and "_" in name:
                return column
    return None


def time_column(columns: Sequence[ColumnFacts]) -> tuple[ColumnFacts | None, str]:
    """The column of the time, and its unit by the size of its numbers."""
    for name in TIMES:
        for column in columns:
            if (
                column.plain != name
                or column.values is None
                or not len(column.values)
                or column.values.min() < 0
            ):
                continue
            if column.kind == "moment":
                return column, "s"
            day, top = column.values, column.values.max()
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
                    return column, unit
    of_rows = [c for c in columns if c.kind == "moment" and not any(t in c.plain for t in TRAITS)]
    if len(of_rows) == 1:
        return of_rows[0], "s"
    return None, "s"


def outcome_labels(columns: Sequence[ColumnFacts]) -> dict[str, dict[str, object]]:
    """Columns that look like outcomes, clicks first: name of the task -> its label."""
    labels: dict[str, dict[str, object]] = {}
    outcomes = []
    for column in columns:
        bare = column.bare
        words = set(bare.split("_")) | {bare}
        asked = column.plain.startswith("is_") and not words & NO_OUTCOMES
        if column.binary and (
            bare in OUTCOMES
            or asked
            or (words & OUTCOMES and column.plain.startswith(("is_", "label_")))
        ):
            outcomes.append((bare, column.name))
        elif (
            column.is_outcome
            and column.values is not None
            and set(np.unique(column.values)) == {-1.0, 1.0}
        ):
            labels[bare] = {"column": column.name, "equals": 1}
        elif (
            column.plain in RATINGS
            and column.values is not None
            and column.values.min() >= 0.5
            and column.values.max() <= 5
        ):
            liked = column.values >= 4
            if column.values.max() > 1 and liked.any() and not liked.all():
                labels[
                    "like" if not any(bare == "like" for bare, _ in outcomes) else column.plain
                ] = {"column": column.name, "at_least": 4}
    for bare, name in sorted(outcomes, key=lambda pair: not pair[0].startswith("click")):
        labels[bare if bare not in labels else name] = {"column": name}
    return dict(sorted(labels.items(), key=lambda pair: not pair[0].startswith("click")))


def unfit(column: ColumnFacts, rows: int) -> str | None:
    """Why a column is left out, or None."""
    if column.distinct < 2:
        empty = "; if an empty cell means no, write 0" if column.is_outcome else ""
        return f"holds one value{empty}"
    if column.kind in ("moment", "other"):
        return "is a time, or of a kind that is no field"
    if any(part in column.plain for part in AFTERWARDS):
        return "seems to be known only afterwards; it may make a task with at_least"
    if column.plain in RATINGS or column.is_outcome:
        return "seems to be an outcome; it may make a task with at_least or equals"
    if rows > 1000 and column.distinct == rows and (column.kind == "text" or column.is_id):
        return "differs in every row"
    if column.plain in TIMES:
        return "seems to be a time that cannot be read as seconds"
    return None


def sides_of(frame: pl.DataFrame, user: str, item: str) -> dict[str, str]:
    """Columns that are the same in all rows of a user or of an item, where most of these have
    several rows.
    """
    sides: dict[str, str] = {}
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
        sides |= {name: side for name, count in zip(rest, most) if count == 1}
    return sides
