"""top, compare and schema on the generated log and on a table like MovieLens's."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.base.files import checksum
from headwise.data.clicks.batches import ClickRows
from headwise.data.clicks.generate import write_sample_clicks
from headwise.data.clicks.layouts import open_log
from headwise.data.clicks.schema_file import read_schema
from headwise.pipelines import load_task
from headwise.pipelines.engine.experiments.table import t_interval
from headwise.pipelines.engine.runs.loaded import Loaded
from headwise.pipelines.engine.training.order import mix
from headwise.pipelines.ranking.data import load_encoder, open_new_log
from headwise.pipelines.ranking.options import RankingOptions
from headwise.pipelines.ranking.scoring import forward
from headwise.pipelines.ranking.verbs import top as best

SMALL = {"width": 8, "layers": 1, "towers": (8,), "accelerator": "cpu"}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return write_sample_clicks(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def loaded(log, tmp_path_factory) -> Loaded:
    """A model with weights that matter, and the spec of a run, without training one."""
    task, options = load_task("ranking"), RankingOptions(data=str(log), **SMALL)
    splits, folder = task.load().open_data(options), tmp_path_factory.mktemp("assets")
    for name, write in splits.assets.items():
        write(folder / name)
        assert checksum(folder / name)
    torch.manual_seed(mix(3))
    model = task.load().build_model(options, splits.spec)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    spec = splits.spec.with_assets({}, folder)
    return Loaded(None, options, spec, model.eval(), {}, torch.device("cpu"))  # pyright: ignore


@pytest.fixture
def top(loaded, monkeypatch, tmp_path):
    """The verb on that model: the table that it writes."""
    monkeypatch.setattr(best, "load_run", lambda task, run, accelerator: loaded)

    def call(**options) -> pl.DataFrame:
        path = pipelines.ranking.top(
            run="r", output=tmp_path / "lists[1].parquet", overwrite=True, **options
        )
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
        return pl.read_parquet(path, glob=False)

    return call


def brute(loaded: Loaded, log: Path, users: list[int], items: list[int]) -> np.ndarray:
    """(users, items, tasks): each pair as a row of a table without a time, by the encoder of the
    run.
    """
    encoder, table = load_encoder(loaded.spec), pl.read_csv(log)
    of_user = (
        table.group_by("user_id", maintain_order=True)
        .last()
        .select("user_id", "page", "age", "gender")
    )
    of_item = (
        table.group_by("item_id", maintain_order=True)
        .last()
        .select("item_id", "category", "seconds")
    )
    pairs = pl.DataFrame(
        {"user_id": np.repeat(users, len(items)), "item_id": np.tile(items, len(users))}
    )
    pairs = pairs.join(of_user, on="user_id", how="left", maintain_order="left")
    pairs = pairs.join(of_item, on="item_id", how="left", maintain_order="left")
    batch = ClickRows(encoder, encoder.rows(pairs, "pairs", labels=False)).batch(
        np.arange(len(pairs))
    )
    with torch.no_grad():
        return forward(loaded.model, batch).sigmoid().numpy().reshape(len(users), len(items), -1)


class TestTop:
    @pytest.mark.parametrize("batch_size", [97, 100_000])
    def test_lists_are_those_of_scoring_every_pair(
        self, loaded, log, top, tmp_path, batch_size
    ) -> None:
        users, items = [7, 3, 9999, 50], [*range(1, 60), 8888]
        pl.DataFrame({"user_id": users}).write_csv(tmp_path / "users.csv")
        pl.DataFrame({"item_id": items}).write_csv(tmp_path / "items.csv")
        lists = top(
            users=tmp_path / "users.csv",
            candidates=tmp_path / "items.csv",
            k=5,
            task="like",
            seen=True,
            batch_size=batch_size,
        )
        expected = brute(loaded, log, users, items)
        assert lists["user_id"].to_list() == np.repeat(users, 5).tolist()
        assert lists["rank"].to_list() == [1, 2, 3, 4, 5] * 4
        for n, user in enumerate(users):
            of_user = lists.filter(pl.col("user_id") == user)
            place = [items.index(item) for item in of_user["item_id"]]
            probabilities = of_user.select("p_click", "p_like").to_numpy()
            np.testing.assert_allclose(probabilities, expected[n, place], atol=1e-5)
            np.testing.assert_allclose(
                probabilities[:, 1], np.sort(expected[n, :, 1])[::-1][:5], atol=1e-5
            )

    def test_met_items_are_left_out_and_all_users_and_items_are_the_default(self, log, top) -> None:
        lists, table = top(k=300), pl.read_csv(log)
        met = set(zip(table["user_id"], table["item_id"]))
        listed = set(zip(lists["user_id"], lists["item_id"]))
        assert not met & listed
        assert len(lists) == len(listed)
        users, items = table["user_id"].n_unique(), table["item_id"].n_unique()
        # Items without a row in the training part are no candidates.
        assert items - 5 <= (len(listed) + len(met)) / users <= items
        assert lists["user_id"].n_unique() == users

    def test_what_was_read_is_said(self, top, tmp_path, capfd) -> None:
        pl.DataFrame({"user_id": [7, 9999], "age": [1, 2]}).write_csv(tmp_path / "users.csv")
        top(users=tmp_path / "users.csv", k=1)
        shown = capfd.readouterr().err
        assert "read: 2 users" in shown
        assert "1 not used in users.csv (age)" in shown
        assert "1 users that the run does not know" in shown

    def test_newer_events_count(self, top, log, tmp_path) -> None:
        pl.DataFrame({"user_id": [1]}).write_csv(tmp_path / "one.csv")
        before = top(users=tmp_path / "one.csv", k=3)
        newer = (
            pl.read_csv(log)
            .head(3)
            .with_columns(user_id=pl.lit(1), time=pl.lit(1_800_000_000), item_id=before["item_id"])
        )
        newer.write_csv(tmp_path / "newer.csv")
        after = top(users=tmp_path / "one.csv", k=3, log=tmp_path / "newer.csv")
        assert not set(before["item_id"]) & set(after["item_id"])

    @pytest.mark.parametrize("ending", ["csv", "jsonl"])
    def test_the_ending_of_the_lists_is_their_format(self, top, tmp_path, ending) -> None:
        expected = top(k=3)
        path = tmp_path / f"lists.{ending}"
        pipelines.ranking.top(run="r", output=path, k=3)
        table = pl.read_csv(path) if ending == "csv" else pl.read_ndjson(path)
        assert_frame_equal(table, expected, check_dtypes=False, abs_tol=1e-6)
        with pytest.raises(InputError, match="unknown ending '\\.doc'"):
            pipelines.ranking.top(run="r", output=tmp_path / "lists.doc", k=3)

    def test_a_model_without_finite_numbers_has_no_best_items(self, top, monkeypatch) -> None:
        monkeypatch.setattr(
            best, "batch_probability", lambda m, b, d: np.full((len(b["offsets"]), 9), np.nan)
        )
        with pytest.raises(InputError, match="gives no finite probability"):
            top(k=3)

    def test_what_cannot_be_done_is_said(self, top, tmp_path) -> None:
        with pytest.raises(InputError, match="--task clik: unknown; did you mean 'click'"):
            top(task="clik")
        pl.DataFrame({"usr": [1]}).write_csv(tmp_path / "bad.csv")
        with pytest.raises(InputError, match="no column 'user_id'"):
            top(users=tmp_path / "bad.csv")
        (tmp_path / "there.parquet").write_text("mine")
        with pytest.raises(InputError, match="already exists"):
            pipelines.ranking.top(run="r", output=tmp_path / "there.parquet")
        assert (tmp_path / "there.parquet").read_text() == "mine"


class TestCompare:
    def test_is_resumed_and_deterministic(self, log, tmp_path, monkeypatch, capfd) -> None:
        options = {"data": log, "max_steps": 2, "models": ("infnet", "infnet:no-cross"), **SMALL}
        first = pipelines.ranking.compare(output=tmp_path / "a", seeds=1, **options)
        before = {
            path.name: path.stat().st_mtime_ns for path in (tmp_path / "a/trainings").glob("*.json")
        }
        assert sorted(before) == ["infnet-no-cross-seed2021.json", "infnet-seed2021.json"]
        both = pipelines.ranking.compare(output=tmp_path / "a", seeds=2, **options)
        assert all(
            (tmp_path / "a/trainings" / name).stat().st_mtime_ns == at
            for name, at in before.items()
        )
        assert both["seeds"].to_list() == [2, 2, 2, 2, 0, 0]
        assert "2 of 4 trainings were done before" in capfd.readouterr().err
        again = pipelines.ranking.compare(output=tmp_path / "b", seeds=1, **options)
        assert again.drop("seconds").equals(first.drop("seconds"), null_equal=True)
        text = (tmp_path / "a/comparison.md").read_text()
        assert "users and items counted" in text
        assert "Ablations less infnet" in text
        assert {"comparison.csv", "comparison.png"} <= {
            path.name for path in (tmp_path / "a").iterdir()
        }
        with pytest.raises(InputError, match="other options or data"):
            pipelines.ranking.compare(output=tmp_path / "a", seeds=1, **{**options, "width": 16})
        training = json.loads((tmp_path / "a/trainings/infnet-seed2021.json").read_text())
        assert first["auc"][0] == training["scores"]["click"]["auc"]

    def test_a_folder_of_others_is_left_alone(self, log, tmp_path) -> None:
        (tmp_path / "x").write_text("mine")
        with pytest.raises(InputError, match="is not empty"):
            pipelines.ranking.compare(output=tmp_path, data=log)

    def test_the_interval_is_that_of_student(self) -> None:
        low, high = t_interval(np.array([1.0, 2.0, 3.0]))
        assert (low + high) / 2 == pytest.approx(2)
        assert (high - low) / 2 == pytest.approx(
            4.302652729911275 / np.sqrt(3)
        )  # t of 2 degrees of freedom
        assert np.isnan(t_interval(np.array([1.0]))).all()


class TestSchema:
    def test_of_the_generated_log(self, tmp_path) -> None:
        log = write_sample_clicks(tmp_path)
        log.with_suffix(".yaml").unlink()
        path = pipelines.ranking.schema(data=log)
        assert path == log.with_suffix(".yaml")
        schema = open_log(str(log))[1]
        assert (schema.user, schema.item, schema.time, schema.unit) == (
            "user_id",
            "item_id",
            "time",
            "s",
        )
        assert list(schema.tasks) == ["click", "like"]
        assert set(schema.categorical) == {
            "user_id",
            "item_id",
            "page",
            "age",
            "gender",
            "category",
        }
        assert set(schema.numeric) == {"seconds"}
        assert (schema.categorical["category"].side, schema.categorical["gender"].side) == (
            "item",
            "user",
        )
        assert schema.sequences["past_click"].of == "item_id"
        assert open_new_log(RankingOptions(data=str(path), **SMALL)).spec.rows == 8000
        before = path.read_bytes()
        with pytest.raises(InputError, match="already exists"):
            pipelines.ranking.schema(data=log)
        assert path.read_bytes() == before

    def test_of_a_table_like_movielens(self, tmp_path) -> None:
        generator, rows = np.random.default_rng(0), 3000
        pl.DataFrame(
            {
                "userId": generator.integers(1, 99, rows),
                "movieId": generator.integers(1, 300, rows),
                "rating": generator.integers(1, 11, rows) / 2,
                "Timestamp": generator.integers(9e11, 1e12, rows),
                "odd: name #1": ["a", "b", "c"] * (rows // 3),
                "no": generator.normal(size=rows),
            }
        ).write_csv(tmp_path / "ratings.csv")
        pipelines.ranking.schema(data=tmp_path / "ratings.csv")
        log, schema = open_log(str(tmp_path / "ratings.csv"))
        assert (schema.user, schema.item, schema.time, schema.unit) == (
            "userId",
            "movieId",
            "Timestamp",
            "ms",
        )
        assert schema.tasks["like"].label.at_least == 4
        assert "odd: name #1" in schema.categorical
        assert "no" in schema.numeric
        assert schema.split.by == "user"
        open_new_log(RankingOptions(data=log.files[0], **SMALL))

    def test_without_a_time_rows_are_split_by_chance(self, tmp_path) -> None:
        path = tmp_path / "t.csv"
        path.write_text(
            "uid,video_id,is_click,is_vip\n"
            + "".join(f"{n % 9},{n % 7},{n % 2},{n % 5 // 4}\n" for n in range(90))
        )
        schema = read_schema(pipelines.ranking.schema(data=path, output=tmp_path / "s.yaml"))
        assert (schema.split.by, schema.time, list(schema.tasks)) == ("random", None, ["click"])
        assert "is_vip" in schema.categorical

    def test_what_cannot_be_guessed_is_a_gap_to_fill(self, tmp_path, capfd) -> None:
        path = tmp_path / "t.csv"
        path.write_text("user_id,a,b,done\n" + "".join(f"{n},x,{n},yes\n" for n in range(30)))
        draft = pipelines.ranking.schema(data=path)
        text = draft.read_text()
        assert "item: TODO" in text
        assert "click: {column: TODO}" in text
        shown = capfd.readouterr().err
        assert "read: 30 rows" in shown
        assert "gap: the item (" in shown
        assert "gap: the task (" in shown
        with pytest.raises(
            InputError, match=r"the item and the task click is still a gap \(TODO\)"
        ):
            read_schema(draft)
        # Named, they fill the draft that nobody has touched.
        with pytest.raises(InputError, match="--item aa: there is no column 'aa'"):
            pipelines.ranking.schema(data=path, item="aa")
        pipelines.ranking.schema(data=path, item="a", task=("b>=15",))
        schema = read_schema(draft)
        assert (schema.item, schema.tasks["b"].label.at_least) == ("a", 15)
        draft.write_text(text + "# mine\n")
        with pytest.raises(InputError, match="already exists"):
            pipelines.ranking.schema(data=path, item="a")
        assert draft.read_text() == text + "# mine\n"

    def test_people_and_things_of_a_shop_are_recognised(self, tmp_path) -> None:
        path = tmp_path / "sales.csv"
        path.write_text(
            "Customer,SKU,Invoice Date,bought,viewed before\n"
            + "".join(
                f"c{n % 7},s{n % 9},2023-11-{n % 28 + 1:02d} 10:{n % 60:02d}:00,"
                f'{("no", "yes")[n % 2]},"[{n % 9}, {n % 5}]"\n'
                for n in range(200)
            )
        )
        schema = read_schema(pipelines.ranking.schema(data=path))
        assert (schema.user, schema.item, schema.time) == ("Customer", "SKU", "Invoice Date")
        assert schema.tasks["bought"].label.column == "bought"
        assert schema.split.by == "user"
        assert schema.time_fields == ("hour", "weekday")
        assert schema.categorical["viewed before"].split == " "
        assert open_new_log(RankingOptions(data=str(path), **SMALL)).spec.rows == 200

    def test_an_outcome_is_a_task_or_is_left_out_and_never_a_field(self, tmp_path, capfd) -> None:
        path = tmp_path / "t.csv"
        path.write_text(
            "user_id,item_id,date,click,likes,shared,buy,colour\n"
            + "".join(
                f"{n % 9},{n % 7},14.11.2023,{n % 2 * 2 - 1},{n % 30},{'yes' * (n % 2)},"
                f"{n % 2},c{n % 3}\n"
                for n in range(90)
            )
        )
        schema = read_schema(pipelines.ranking.schema(data=path))
        assert schema.tasks["click"].label.equals == 1
        assert list(schema.tasks) == ["click", "buy"]
        assert [*schema.categorical, *schema.numeric] == ["user_id", "item_id", "colour"]
        shown = capfd.readouterr().err
        assert (
            "left out of the fields; the end of the schema says why (date, likes, shared)" in shown
        )
        assert "no column holds times: no histories are drafted" in shown
        draft = (tmp_path / "t.yaml").read_text()
        assert "'shared': holds one value; if an empty cell means no, write 0" in draft

    def test_columns_can_be_named(self, tmp_path) -> None:
        path = tmp_path / "t.csv"
        path.write_text(
            "who,what,stars,ok,clicked\n"
            + "".join(f"{n % 9},{n % 7},{n % 5 + 1},{n % 2},{n % 2}\n" for n in range(90))
        )
        drafted = pipelines.ranking.schema(
            data=path, user="who", item="what", task=("ok", "stars >= 4", "stars==5")
        )
        schema = read_schema(drafted)
        assert (schema.user, schema.item) == ("who", "what")
        assert schema.tasks["ok"].label.column == "ok"
        assert schema.tasks["stars"].label.equals == 5
        with pytest.raises(
            InputError, match=r"--task stars: .* 5 values, not 0 and 1; .*'stars>=4'"
        ):
            pipelines.ranking.schema(data=path, output=tmp_path / "o.yaml", task=("stars",))

    def test_lists_of_what_came_before_are_histories(self, tmp_path) -> None:
        path = tmp_path / "t.parquet"
        pl.DataFrame(
            {
                "user_id": [n % 9 for n in range(90)],
                "item_id": [n % 7 for n in range(90)],
                "hist_item": [[n % 7, n % 3] for n in range(90)],
                "click": [n % 2 for n in range(90)],
            }
        ).write_parquet(path)
        schema = read_schema(pipelines.ranking.schema(data=path))
        assert schema.sequences["hist_item"].column == "hist_item"
        assert schema.sequences["hist_item"].of == "item_id"
        assert "hist_item" not in schema.categorical


@pytest.mark.parametrize("option", ["users", "candidates", "log"])
def test_lists_never_replace_a_table_that_they_are_made_from(top, log, tmp_path, option) -> None:
    path = tmp_path / "lists[1].parquet"
    pl.read_csv(log).write_parquet(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is read by this command; name another"):
        top(**{option: path})
    assert path.read_bytes() == before
