"""Published click data sets as schemas, recognised by the columns of a log; and where the schema of
other logs is found.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..formats.tables import check_file, list_files, stem_of
from .log import LOG_SUFFIXES, Log, scan_log
from .schema import (
    Categorical,
    Condition,
    Join,
    Numeric,
    Schema,
    Sequence,
    Split,
    Target,
    check_schema,
)
from .schema_file import read_schema

Layout = Callable[[list[str], Path], Schema]

SCHEMA_SUFFIXES = (".yaml", ".yml")
OUTCOMES = (
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
)  # of KuaiRand, known only after the video was shown
CLOCK = ("date", "hourmin", "time_ms", "is_rand", "upload_dt")
MEASURES = ("duration_ms", "video_duration", "server_width", "server_height", "register_days")


def movielens(columns: list[str], folder: Path) -> Schema:
    """MovieLens in RecBole's files: like (4 or 5 stars) and love (5 stars), as click and conversion
    are.
    """
    users, items = _next_to(folder, ".user"), _next_to(folder, ".item")
    categorical, numeric, join = _categorical("user_id", "item_id"), {}, []
    if users:
        join.append(Join(users, "user_id"))
        names = scan_log(folder / users)[1]
        categorical |= _categorical(*(n for n in ("gender", "occupation") if n in names))
        if "zip_code" in names:
            categorical["zip_code"] = Categorical("zip_code", prefix=1)
        if "age" in names:
            numeric["age"] = Numeric("age", 10)
    if items:
        join.append(Join(items, "item_id"))
        names = scan_log(folder / items)[1]
        if "release_year" in names:
            categorical["release_year"] = Categorical("release_year", min_count=10)
        for name in ("class", "genre"):
            if name in names:
                categorical[name] = Categorical(name, split=" ", length=6)
    loved = Condition("rating", equals=5)
    return Schema(
        user="user_id",
        item="item_id",
        time="timestamp",
        join=tuple(join),
        categorical=categorical,
        numeric=numeric,
        time_fields=("hour", "weekday"),
        sequences={
            "loved": Sequence("item_id", loved),
            "liked": Sequence("item_id", Condition("rating", equals=4)),
            "disliked": Sequence("item_id", Condition("rating", at_most=3)),
        },
        tasks={"like": Target(Condition("rating", at_least=4)), "love": Target(loved)},
    )


def kuairand(columns: list[str], folder: Path) -> Schema:
    """KuaiRand: its log, with the user and video tables next to it, if there; the tasks click, like
    and long view, as far as the log has them.
    """
    join: list[Join] = []
    names = list(columns)
    for on, begin in (("user_id", "user_features"), ("video_id", "video_features_basic")):
        table = _next_to(folder, ".csv", begin)
        if table:
            join.append(Join(table, on))
            names += [name for name in scan_log(folder / table)[1] if name not in names]
    categorical, numeric = _categorical("user_id", "video_id"), {}
    for name in names:
        if name in (*CLOCK, *OUTCOMES) or name in categorical:
            continue
        count = name.endswith("_num")
        if name in MEASURES or (count and f"{name}_range" not in names):
            numeric[name] = Numeric(name, 20)
        elif not count:
            categorical[name] = Categorical(name)
    outcomes = {"click": "is_click", "like": "is_like", "long_view": "long_view"}
    histories = {"clicked": "is_click", "liked": "is_like", "watched": "long_view"}
    timed = "time_ms" in columns  # joined samples have no time
    return Schema(
        user="user_id",
        item="video_id",
        join=tuple(join),
        categorical=categorical,
        numeric=numeric,
        tasks={n: Target(Condition(c)) for n, c in outcomes.items() if c in columns},
        time="time_ms" if timed else None,
        unit="ms" if timed else "s",
        time_fields=("hour", "weekday") if timed else (),
        sequences={
            name: Sequence("video_id", Condition(column))
            for name, column in histories.items()
            if timed and column in columns
        },
        split=Split() if timed else Split("random"),
    )


def aliexpress(columns: list[str], folder: Path) -> Schema:
    """AliExpress and Ali-CCP in the layout of FuxiCTR and MTReclib: click, and conversion of what
    was clicked.
    """
    fields = [name for name in columns if name.startswith("categorical_")]
    return Schema(
        user="search_id",
        item=fields[0],
        categorical=_categorical(*fields),
        numeric={name: Numeric(name, 10) for name in columns if name.startswith("numerical_")},
        tasks={name: Target(Condition(name)) for name in ("click", "conversion")},
        split=Split("random"),
    )


def criteo(columns: list[str], folder: Path) -> Schema:
    """Criteo display advertising: I1 to I13, C1 to C26 and a label. It has no users: each row
    counts as its own.
    """
    label = next(name for name in columns if name.lower() == "label")
    number = next((name for name in columns if name.lower() == "id"), "C1")
    numbered = [name for name in columns if name[1:].isdigit()]
    return Schema(
        user=number,
        item="C3",
        categorical={n: Categorical(n, min_count=2) for n in numbered if n[0] == "C"},
        numeric={n: Numeric(n, 20) for n in numbered if n[0] == "I"},
        tasks={"click": Target(Condition(label))},
        split=Split("random"),
    )


def _categorical(*names: str) -> dict[str, Categorical]:
    return {name: Categorical(name) for name in names}


# name -> (columns by which a log is recognised, its schema)
LAYOUTS: dict[str, tuple[tuple[str, ...], Layout]] = {
    "movielens": (("user_id", "item_id", "rating", "timestamp"), movielens),
    "kuairand": (("user_id", "video_id", "is_click"), kuairand),
    "aliexpress": (("search_id", "categorical_1", "click", "conversion"), aliexpress),
    "criteo": (("I1", "I13", "C1", "C26"), criteo),
}


def open_log(data: str, schema: str = "auto") -> tuple[Log, Schema]:
    """The log and its schema.

    data    a log (file, folder, pattern), or the schema of one (.yaml)
    schema  a YAML file, the name of a layout, or "auto": the YAML file next to the log with its
            name, else the layout that has the columns of the log

    Raises InputError where there is no log or no schema.
    """
    if data.lower().endswith(SCHEMA_SUFFIXES):
        described = read_schema(data)
        if described.log is None:
            beside = _log_beside(Path(data))
            if beside is None:
                cure = "put `log: FILE` into it, or give --data FILE --schema this"
                raise fail(data, f"names no log; {cure}")
            note("assumed", f"the log is {beside.name}, which lies next to its schema")
            return Log.open(beside), described
        return Log.open(Path(data).parent / described.log, Path(data).parent), described
    files = _log_files(data)
    columns, folder = scan_log(files[0])[1], Path(files[0]).parent
    log = Log(tuple(files), folder)
    if schema == "auto":
        names = [f"{stem_of(files[0])}{ending}" for ending in SCHEMA_SUFFIXES]
        for path in (folder / name for name in (*names, "schema.yaml")):
            if path.is_file():
                return log, read_schema(path)
        name = _recognised(columns)
        if name is None:
            cure = f"write one with `headwise ranking schema --data {data}`"
            raise fail(files[0], f"has no schema; {cure}")
    elif schema in LAYOUTS:
        name = schema
    elif schema.lower().endswith(SCHEMA_SUFFIXES):
        folder = Path(check_file(schema, SCHEMA_SUFFIXES)).parent
        return Log(tuple(files), folder), read_schema(schema)
    else:
        hint = nearest(schema, LAYOUTS)
        raise fail(f"--schema {schema}", f"neither a .yaml file nor a layout{hint}")
    return log, _laid_out(name, files[0], columns, folder)


def _log_beside(schema: Path) -> Path | None:
    """The log with the name of its schema, where there is one alone."""
    names = (schema.with_name(f"{schema.stem}{ending}") for ending in LOG_SUFFIXES)
    logs = [path for path in names if path.is_file()]
    return logs[0] if len(logs) == 1 else None


def _recognised(columns: list[str]) -> str | None:
    present = set(columns)
    return next((name for name, (needed, _) in LAYOUTS.items() if present >= set(needed)), None)


def _laid_out(name: str, file: str, columns: list[str], folder: Path) -> Schema:
    needed, layout = LAYOUTS[name]
    if missing := [column for column in needed if column not in columns]:
        raise fail(file, f"is not laid out as {name}: there is no column {shown(missing[0])}")
    schema = layout(columns, folder)
    check_schema(schema, f"layout {name}")
    return schema


def log_of(data: str) -> Log:
    """The log alone, for a run that has its schema."""
    if data.lower().endswith(SCHEMA_SUFFIXES):
        return open_log(data)[0]
    files = _log_files(data)
    return Log(tuple(files), Path(files[0]).parent)


def files_of(path: str) -> list[str]:
    """The tables that a path, folder, pattern or schema names."""
    return list(log_of(path).files)


def _log_files(data: str) -> list[str]:
    """The files of the log; of a folder, those that look like one."""
    files = list_files(data, LOG_SUFFIXES)
    for mark in (".inter", "log_standard", "log_") if Path(data).is_dir() else ():
        chosen = [f for f in files if Path(f).name.endswith(mark) or Path(f).name.startswith(mark)]
        if chosen:
            return chosen
    return files


def _next_to(folder: Path, ending: str, begin: str = "") -> str | None:
    """The first file of a folder with this ending and beginning, if there is one."""
    names = (file.name for file in folder.iterdir())
    return min((n for n in names if n.endswith(ending) and n.startswith(begin)), default=None)
