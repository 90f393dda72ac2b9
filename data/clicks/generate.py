"""A generated click log, so that ranking runs without any data: users with a taste, items of a
kind.

A user clicks more often on items near their taste and on popular items, and likes some of those
they clicked. Earlier likes reveal the taste, so a model that reads histories can do better than one
that counts.
"""

from pathlib import Path

import numpy as np
import polars as pl

START = 1_700_000_000
SCHEMA = """\
# A generated log. Every key is explained in docs/reference/ranking.md.
log: generated.csv
user: user_id
item: item_id
time: {column: time, unit: s}
categorical:
  user_id: {}
  item_id: {}
  category: {side: item}
  gender: {side: user}
  page: {}
numeric:
  age: {buckets: 5, side: user}
  seconds: {buckets: 8, side: item}
time_fields: [hour]
sequences:
  clicked: {of: item_id, where: {column: click}, length: 30}
  liked: {of: item_id, where: {column: like}, length: 20}
  passed: {of: item_id, where: {column: click, equals: 0}, length: 20}
tasks:
  click: {column: click}
  like: {column: like, only_where: {column: click}}
split: {by: user, train: 0.8, validation: 0.1}
"""


def click_log(rows: int, users: int, items: int, *, seed: int = 0) -> pl.DataFrame:
    """A log in the order of time; equal for equal arguments."""
    generator = np.random.default_rng(seed)
    kinds, size = 8, 6
    centre = generator.normal(size=(kinds, size))
    kind_of_item = generator.integers(kinds, size=items)
    taste = centre[generator.integers(kinds, size=users)] + 0.5 * generator.normal(
        size=(users, size)
    )
    trait = centre[kind_of_item] + 0.5 * generator.normal(size=(items, size))
    popular = generator.normal(size=items)
    user = generator.choice(users, rows, p=_shares(generator.lognormal(0, 0.7, users)))
    item = generator.choice(items, rows, p=_shares(generator.lognormal(0, 0.7, items)))
    likeness = (taste[user] * trait[item]).sum(1) / size
    hour = generator.integers(24, size=rows)
    page = generator.integers(4, size=rows)
    logit = (
        1.4 * likeness
        + 0.8 * popular[item]
        - 0.9
        + 0.3 * (page == 0)
        + 0.3 * np.sin(hour / 24 * 2 * np.pi)
    )
    click = generator.random(rows) < 1 / (1 + np.exp(-logit))
    like = click & (generator.random(rows) < 1 / (1 + np.exp(0.5 - 1.2 * likeness)))
    day = np.sort(generator.integers(30, size=rows))
    time = START + day * 86_400 + hour * 3_600 + generator.integers(3_600, size=rows)
    order = np.argsort(time, kind="stable")
    age, gender = generator.integers(16, 80, users), generator.integers(2, size=users)
    seconds = np.round(generator.lognormal(3.5, 0.8, items), 1)
    log = pl.DataFrame(
        {
            "time": time,
            "user_id": user + 1,
            "item_id": item + 1,
            "page": page,
            "age": age[user],
            "gender": np.array(["f", "m"])[gender[user]],
            "category": kind_of_item[item],
            "seconds": seconds[item],
            "click": click.astype(np.int8),
            "like": like.astype(np.int8),
        }
    )
    return log[order]


def _shares(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


def write_sample_clicks(folder: Path, rows: int = 8_000) -> Path:
    """Write generated.csv, `rows` rows of 120 users and 200 items, and its schema generated.yaml;
    returns the path of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "generated.csv"
    click_log(rows, 120, 200).write_csv(path)
    path.with_suffix(".yaml").write_text(SCHEMA, encoding="utf-8")
    return path
