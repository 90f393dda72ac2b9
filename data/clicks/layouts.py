"""Known click data sets as schemas, chosen by the columns that a log has; and where a person's
schema is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...base.errors import fail, nearest, shown
from ..formats.tables import check_file, list_files, stem_of
from .log import LOG_SUFFIXES, Log, scan_log
from .schema import Schema, parse_schema, read_schema

Layout = Callable[[Sequence[str], Path], dict[str, Any]]

LIKED, LOVED = {"column": "rating", "at_least": 4}, {"column": "rating", "equals": 5}


def movielens(columns: Sequence[str], folder: Path) -> dict[str, Any]:
    """MovieLens in RecBole's files: like (4 or 5 stars) and love (5 stars), as click and conversion
    are.
    """
    users, items = _beside(folder, ".user"), _beside(folder, ".item")
    categorical: dict[str, Any] = {"user_id": {}, "item_id": {}}
    numeric: dict[str, Any] = {}
    join = []
    if users:
        join.append({"table": users, "on": "user_id"})
        there = scan_log(folder / users)[1]
        categorical |= {name: {} for name in ("gender", "occupation") if name in there}
        categorical |= {"zip_code": {"prefix": 1}} if "zip_code" in there else {}
        numeric |= {"age": {"buckets": 10}} if "age" in there else {}
    if items:
        join.append({"table": items, "on": "item_id"})
        there = scan_log(folder / items)[1]
        categorical |= {"release_year": {"min_count": 10}} if "release_year" in there else {}
        for name in ("class", "genre"):
            categorical |= {name: {"split": " ", "length": 6}} if name in there else {}
    return {
        "user": "user_id",
        "item": "item_id",
        "time": {"column": "timestamp", "unit": "s"},
        "join": join,
        "categorical": categorical,
        "numeric": numeric,
        "time_fields": ["hour", "weekday"],
        "sequences": {
            "loved": {"of": "item_id", "where": LOVED},
            "liked": {"of": "item_id", "where": {"column": "rating", "equals": 4}},
            "disliked": {"of": "item_id", "where": {"column": "rating", "at_most": 3}},
        },
        "tasks": {"like": LIKED, "love": LOVED},
    }


def kuairand(columns: Sequence[str], folder: Path) -> dict[str, Any]:
    """KuaiRand: its log, with the user and video tables beside it; click, like and long view, of
    those it has.
    """
    join, categorical, numeric = [], {"user_id": {}, "video_id": {}}, {}
    sides = {
        "user_id": _beside(folder, ".csv", "user_features"),
        "video_id": _beside(folder, ".csv", "video_features_basic"),
    }
    there = list(columns)
    for on, table in sides.items():
        if table:
            join.append({"table": table, "on": on})
            there += [name for name in scan_log(folder / table)[1] if name not in there]
    outcomes = (
        "is_click",
        "is_like",
        "is_follow",
        "is_comment",
        "is_forward",
        "is_hate",
        "long_view",
        "play_time_ms",
        "profile_stay_time",
        "comment_stay_time",
        "is_profile_enter",
    )
    kept_out = (
        "date",
        "hourmin",
        "time_ms",
        "is_rand",
        "upload_dt",
        *outcomes,
    )  # known only afterwards, or the clock
    for name in there:
        if name in kept_out or name in categorical:
            continue
        if name in (
            "duration_ms",
            "video_duration",
            "server_width",
            "server_height",
            "register_days",
        ) or (name.endswith("_num") and f"{name}_range" not in there):
            numeric[name] = {"buckets": 20}
        elif not name.endswith("_num"):
            categorical[name] = {}
    tasks = {"click": "is_click", "like": "is_like", "long_view": "long_view"}
    found: dict[str, Any] = {
        "user": "user_id",
        "item": "video_id",
        "join": join,
        "categorical": categorical,
        "numeric": numeric,
        "tasks": {name: column for name, column in tasks.items() if column in columns},
    }
    if "time_ms" not in columns:  # joined samples have none
        return found | {"split": {"by": "random"}}
    return found | {
        "time": {"column": "time_ms", "unit": "ms"},
        "time_fields": ["hour", "weekday"],
        "sequences": {
            name: {"of": "video_id", "where": {"column": column}}
            for name, column in {
                "clicked": "is_click",
                "liked": "is_like",
                "watched": "long_view",
            }.items()
            if column in columns
        },
    }


def aliexpress(columns: Sequence[str], folder: Path) -> dict[str, Any]:
    """AliExpress and Ali-CCP as FuxiCTR and MTReclib lay them out: click, and conversion of what
    was clicked.
    """
    fields = [name for name in columns if name.startswith("categorical_")]
    return {
        "user": "search_id",
        "item": fields[0],
        "categorical": {name: {} for name in fields},
        "numeric": {name: {"buckets": 10} for name in columns if name.startswith("numerical_")},
        "tasks": {"click": "click", "conversion": "conversion"},
        "split": {"by": "random"},
    }


def criteo(columns: Sequence[str], folder: Path) -> dict[str, Any]:
    """Criteo display advertising: I1 to I13, C1 to C26 and a label. It has no user: every row is
    one of its own.
    """
    label = next(name for name in columns if name.lower() == "label")
    number = next((name for name in columns if name.lower() == "id"), "C1")
    return {
        "user": number,
        "item": "C3",
        "categorical": {
            name: {"min_count": 2} for name in columns if name[:1] == "C" and name[1:].isdigit()
        },
        "numeric": {
            name: {"buckets": 20} for name in columns if name[:1] == "I" and name[1:].isdigit()
        },
        "tasks": {"click": label},
        "split": {"by": "random"},
    }


# name -> (columns by which a log is known, its schema)
LAYOUTS: dict[str, tuple[tuple[str, ...], Layout]] = {
    "movielens": (("user_id", "item_id", "rating", "timestamp"), movielens),
    "kuairand": (("user_id", "video_id", "is_click"), kuairand),
    "aliexpress": (("search_id", "categorical_1", "click", "conversion"), aliexpress),
    "criteo": (("I1", "I13", "C1", "C26"), criteo),
}


def open_log(data: str, schema: str = "auto") -> tuple[Log, Schema]:
    """The log and its schema. `data`: a log (file, folder, pattern), or a schema that names one
    (.yaml).

    schema: a YAML file, the name of a layout, or "auto": the YAML file beside the log that bears
    its name, else the layout that the columns are of. Raises `InputError` where there is none."""
    if data.lower().endswith((".yaml", ".yml")):
        found = read_schema(data)
        if found.log is None:
            raise fail(
                data, "names no log; put `log: FILE` into it, or give --data FILE --schema this"
            )
        return Log.open(Path(data).parent / found.log, Path(data).parent), found
    files = _log_files(data)
    columns, folder = scan_log(files[0])[1], Path(files[0]).parent
    if schema == "auto":
        beside = [folder / f"{stem_of(files[0])}{ending}" for ending in (".yaml", ".yml")]
        beside += [folder / "schema.yaml"]
        for path in beside:
            if path.is_file():
                return Log(tuple(files), folder), read_schema(path)
        name = next(
            (name for name, (needed, _) in LAYOUTS.items() if set(needed) <= set(columns)), None
        )
        if name is None:
            raise fail(
                files[0], f"has no schema; write one with `headwise ranking schema --data {data}`"
            )
    elif schema in LAYOUTS:
        name = schema
    else:
        if not schema.lower().endswith((".yaml", ".yml")):
            raise fail(
                f"--schema {schema}", f"neither a .yaml file nor a layout{nearest(schema, LAYOUTS)}"
            )
        return Log(tuple(files), Path(check_file(schema, (".yaml", ".yml"))).parent), read_schema(
            schema
        )
    needed, layout = LAYOUTS[name]
    if missing := [one for one in needed if one not in columns]:
        raise fail(files[0], f"is not laid out as {name}: there is no column {shown(missing[0])}")
    return Log(tuple(files), folder), parse_schema(layout(columns, folder), f"layout {name}")


def log_of(data: str) -> Log:
    """The log alone, for a run that has its schema."""
    if data.lower().endswith((".yaml", ".yml")):
        return open_log(data)[0]
    files = _log_files(data)
    return Log(tuple(files), Path(files[0]).parent)


def files_of(path: str) -> list[str]:
    """The tables that a path, folder, pattern or schema names."""
    return list(log_of(path).files)


def _log_files(data: str) -> list[str]:
    """The files of the log: of a folder, those that look like one."""
    files = list_files(data, LOG_SUFFIXES)
    for chosen in (".inter", "log_standard", "log_") if Path(data).is_dir() else ():
        found = [
            f for f in files if Path(f).name.endswith(chosen) or Path(f).name.startswith(chosen)
        ]
        if found:
            return found
    return files


def _beside(folder: Path, ending: str, begins: str = "") -> str | None:
    """The one file of a folder with this ending, if there is one."""
    found = sorted(
        f.name for f in folder.iterdir() if f.name.endswith(ending) and f.name.startswith(begins)
    )
    return found[0] if found else None
