"""The verbs on topics as a person types them: fit, evaluate, tasks, agreement."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.pipelines.text.topics.models import class_tf_idf, count_terms, stop_words_of
from headwise.pipelines.text.topics.pages import results_folder
from headwise.pipelines.text.topics.word_vectors import corpus_vectors, open_vectors

SUBJECTS = {
    "animal": ["dog", "cat", "horse", "sheep", "goat", "pig", "cow", "hen", "duck", "goose"],
    "music": [
        "violin",
        "piano",
        "flute",
        "drum",
        "cello",
        "harp",
        "trumpet",
        "organ",
        "guitar",
        "horn",
    ],
    "sea": ["ship", "sail", "harbour", "tide", "wave", "anchor", "mast", "deck", "captain", "crew"],
}
FRIENDS = ("quickly", "often", "again", "here")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """240 texts of three subjects, two empty ones, and words that all subjects share."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(240):
        subject = list(SUBJECTS)[number % 3]
        words = [*generator.permutation(SUBJECTS[subject])[:6], generator.choice(FRIENDS)]
        rows.append({"about": subject, "body": f"The {' '.join(words)} and the rest."})
    rows += [{"about": "", "body": " "}, {"about": "", "body": None}]
    path = tmp_path_factory.mktemp("corpus") / "notes.csv"
    pl.DataFrame(rows).write_csv(path)
    return path


@pytest.fixture(scope="module")
def fitted(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fit") / "three"
    pipelines.text.topics_fit(data=corpus, output=folder, count=3)
    return folder


@pytest.fixture(scope="module")
def topics(tmp_path_factory) -> dict[str, Path]:
    """True topics, and topics whose words are of all subjects."""
    folder = tmp_path_factory.mktemp("topics")
    mixed = {
        str(place): [
            words[(place + turn) % 10] for turn, words in enumerate([*SUBJECTS.values()] * 3)
        ]
        for place in range(3)
    }
    paths = {}
    for name, value in {"good": SUBJECTS, "poor": mixed}.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps(value))
    return paths


@pytest.mark.parametrize("method", ["nmf", "kmeans"])
def test_fit_finds_the_subjects_and_writes_a_folder(method, corpus, tmp_path, headwise) -> None:
    code, lines = headwise(
        "text", "topics", "fit", "--data", corpus, "--count", 3, "--method", method,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, lines
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "account.json", "documents.parquet", "summary.html", "summary.md", "topics.json",
        "topics.png",
    ]  # fmt: skip
    assert not list(tmp_path.glob("*.part"))
    result = json.loads((tmp_path / "out" / "topics.json").read_text())["topics"]
    tops = [set(topic["words"][:10]) for topic in result]
    assert all(any(top == set(words) for words in SUBJECTS.values()) for top in tops)
    documents = pl.read_parquet(tmp_path / "out" / "documents.parquet")
    assert documents.height == 240
    assert documents["row"].to_list() == list(range(1, 241))
    subjects = pl.read_csv(corpus)["about"][:240]
    pairs = set(zip(documents["topic"], subjects, strict=True))
    assert len(pairs) == 3, "each topic is one subject"
    assert sum(topic["texts"] for topic in result) == 240
    if method == "nmf":
        assert np.allclose(documents["weights"].list.sum(), 1, atol=1e-5)
    text = " ".join(lines)
    assert "left out: 2 empty texts" in text
    assert "the texts are English" in text
    assert "npmi" in text


def test_texts_of_a_script_without_blanks_and_of_one_text_a_line_are_fitted(tmp_path) -> None:
    animals, music = (
        ["犬と猫と馬", "猫と馬の庭", "犬の庭と馬"],
        ["音楽と琴の歌", "琴の音楽会", "歌と音楽会"],
    )
    (tmp_path / "t.txt").write_text("\n".join([*animals * 5, *music * 5, ""]))
    found = pipelines.text.topics_fit(
        data=tmp_path / "t.txt", output=tmp_path / "o", count=2, least_texts=2, most_share=0.6
    )
    topic = found.documents["topic"].to_list()
    assert topic == [topic[0]] * 15 + [topic[15]] * 15
    assert topic[0] != topic[15]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"count": 1}, "--count 1: must be at least 2"),
        ({"count": 500}, "more than the 240 texts"),
        ({"column": "boddy"}, "did you mean 'body'"),
        ({"least_texts": 300}, "lower --least-texts"),
        ({"most_share": 0.0}, "--most-share 0.0: must be above 0"),
        ({"vectors": "v.npz"}, "is read by --method kmeans"),
        ({"stop_words": "words.txt"}, "there is no such file"),
    ],
)
def test_fit_refuses_what_it_cannot_use_and_writes_nothing(
    corpus, tmp_path, options, reason
) -> None:
    with pytest.raises(InputError, match=reason):
        pipelines.text.topics_fit(data=corpus, output=tmp_path / "out", **{"count": 3, **options})
    assert list(tmp_path.iterdir()) == []


def test_results_are_replaced_only_if_asked_and_nothing_of_the_user_ever(
    corpus, fitted, tmp_path
) -> None:
    with pytest.raises(InputError, match="is not empty; choose another, or --overwrite"):
        pipelines.text.topics_fit(data=corpus, output=fitted, count=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds thesis.txt, which is no such result"):
        pipelines.text.topics_fit(data=corpus, output=tmp_path / "mine", count=3, overwrite=True)
    (tmp_path / "mine").rename(tmp_path / "new.part")
    with pytest.raises(InputError, match=r"holds thesis.txt, which is no such result; move it"):
        pipelines.text.topics_fit(data=corpus, output=tmp_path / "new", count=3)
    assert (tmp_path / "new.part" / "thesis.txt").read_text() == "x"
    with pytest.raises(InputError, match="would be replaced"):
        pipelines.text.topics_fit(data=corpus, output=corpus.parent, count=3, overwrite=True)


def test_a_killed_job_leaves_no_half_results_and_the_next_one_clears_up(corpus, tmp_path) -> None:
    code = (
        "import os, signal\n"
        "from headwise.pipelines.text.verbs.options_topics import TopicFitOptions\n"
        "from headwise.pipelines.text.verbs import topics_fit\n"
        "topics_fit.save_png = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"topics_fit.fit(TopicFitOptions(data={str(corpus)!r}, output='out', count=3))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.part" / "topics.json").exists()
    pipelines.text.topics_fit(data=corpus, output=tmp_path / "out", count=3)
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_while_writing_leaves_the_results_before_it(tmp_path) -> None:
    def write(text: str, *, fails: bool = False, overwrite: bool = True) -> None:
        output = str(tmp_path / "out")
        with results_folder(output, ["a.txt"], overwrite=overwrite, read=[]) as folder:
            (folder / "a.txt").write_text(text)
            if fails:
                raise RuntimeError

    write("first", overwrite=False)
    with pytest.raises(RuntimeError):
        write("second", fails=True)
    assert (tmp_path / "out" / "a.txt").read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]
    write("third")
    assert (tmp_path / "out" / "a.txt").read_text() == "third"


def test_the_same_seed_gives_the_same_topics(corpus, fitted, tmp_path) -> None:
    pipelines.text.topics_fit(data=corpus, output=tmp_path / "again", count=3)
    first, again = (folder / "topics.json" for folder in (fitted, tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


def test_c_tf_idf_of_a_table_worked_out_by_hand() -> None:
    """Topic 0 has the terms x x y, topic 1 y: A = 2, f(x) = 2, f(y) = 2."""
    table = count_terms([["x", "x"], ["y"], ["y"], ["z"]], 1, 1.0, frozenset("z"))
    weights = class_tf_idf(table.counts, np.array([0, 0, 1, -1]), 2)
    assert weights == pytest.approx(np.log(2) * np.array([[2 / 3, 1 / 3], [0, 1]]))


def test_stop_words_are_of_english_texts_only() -> None:
    assert "the" in stop_words_of("auto", [["the", "cat", "is", "on", "the", "mat"]])
    assert not stop_words_of("auto", [["die", "katze", "liegt", "auf", "der", "matte"]])
    assert "the" in stop_words_of("english", [["die", "katze"]])


def test_evaluate_tells_true_topics_from_mixed_ones(topics, corpus, tmp_path, headwise) -> None:
    code, lines = headwise(
        "text", "topics", "evaluate", "--topics", topics["good"], topics["poor"], "--data", corpus,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, lines
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    good, poor = scores["good"], scores["poor"]
    for name in ("npmi", "c_npmi"):
        assert good[name]["value"] > 0.3 > 0 > poor[name]["value"]
        low, high = good[name]["interval"]
        assert low <= good[name]["value"] <= high
    assert good["intrusion_accuracy"]["value"] == 1
    assert good["mixing_auc"]["value"] == 1
    assert good["diversity"]["value"] == 1
    by_topic = pl.read_csv(tmp_path / "out" / "by_topic.csv")
    assert by_topic["model"].to_list() == ["good"] * 3 + ["poor"] * 3
    text = " ".join(lines)
    assert "vectors of the corpus" in text
    assert "Vectors of the same texts favour topics" in text


def test_evaluate_says_what_it_cannot_measure_and_which_words_are_missing(
    topics, corpus, tmp_path, headwise
) -> None:
    code, lines = headwise("text", "topics", "evaluate", "--topics", topics["good"])
    assert code == 0
    assert "No coherence: name the texts with --data." in lines
    assert any(line.startswith("No machine raters") for line in lines)
    (tmp_path / "t.json").write_text('[["dog", "cat", "unicorn"], ["violin", "flute", "kraken"]]')
    result = pipelines.text.topics_evaluate(topics=[tmp_path / "t.json"], data=corpus)
    scores = result.scores["t"]
    assert scores.in_corpus == pytest.approx(4 / 6)
    assert np.isfinite(scores.scores["npmi"].value)
    assert scores.rated == {"intrusion": 0, "mixing": 0}, "three words are too few"


def test_vectors_of_a_file_rate_topics_without_a_corpus(topics, tmp_path) -> None:
    axes = np.eye(3)
    lines = [
        f"{w} {' '.join(map(str, axes[i]))}" for i, ws in enumerate(SUBJECTS.values()) for w in ws
    ]
    (tmp_path / "v.vec").write_text(f"{len(lines)} 3\n" + "\n".join(lines))
    words = [word for group in SUBJECTS.values() for word in group]
    np.savez(tmp_path / "v.npz", words=words, vectors=np.repeat(axes, 10, axis=0))
    for name in ("v.vec", "v.npz"):
        result = pipelines.text.topics_evaluate(topics=[topics["good"]], vectors=tmp_path / name)
        assert result.scores["good"].scores["intrusion_accuracy"].value == 1
        assert result.scores["good"].scores["mixing_auc"].value == 1
        assert np.isnan(result.scores["good"].scores["npmi"].value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("v.vec", "dog 1 x\n", "line 1: should be a word and its numbers"),
        ("v.vec", "dog 1 2\ncat 1\n", "line 2: 1 numbers, not 2"),
        ("v.vec", "unicorn 1 2\n", "has no vector of any"),
        ("v.npz", "", "should hold arrays `words` and `vectors`"),
        ("v.bin", "x", "say corpus, all-minilm"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(topics, tmp_path, name, content, reason) -> None:
    (tmp_path / name).write_text(content)
    if name == "v.npz":
        np.savez(tmp_path / name, other=np.zeros(2))
    with pytest.raises(InputError, match=reason):
        pipelines.text.topics_evaluate(topics=[topics["good"]], vectors=tmp_path / name)


def test_vectors_of_a_corpus_point_the_same_way_for_words_of_one_subject(corpus) -> None:
    texts = [str(text).lower().split() for text in pl.read_csv(corpus)["body"] if text]
    vectors = corpus_vectors(texts)
    dog, cat, flute, unknown = vectors(["dog", "Cat", "flute", "unicorn"])
    assert dog @ cat > 5 * abs(dog @ flute)
    assert np.isnan(unknown).all()
    assert open_vectors("corpus", ["dog"], None) is None


@pytest.fixture(scope="module")
def sheets(topics, corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks") / "out"
    pipelines.text.topics_tasks(
        topics=[topics["good"], topics["poor"]], data=corpus, output=folder, controls=2, raters=3
    )
    return folder


def test_sheets_are_balanced_blind_and_in_an_order_of_their_own(sheets) -> None:
    key = pl.read_csv(sheets / "key.csv")
    counts = dict(key.group_by("kind", "model", "truth_kind").len().rows_by_key(
        ["kind", "model", "truth_kind"], unique=True
    ))  # fmt: skip
    assert len({n for (kind, model, _), (n,) in counts.items() if model != "control"}) <= 2
    for kind in ("intrusion", "mixing"):
        assert counts[kind, "control", "control"] == (2,)
        assert counts[kind, "good", {"intrusion": "intruder", "mixing": "single"}[kind]][0] >= 1
    assert counts["mixing", "good", "single"] == counts["mixing", "poor", "mixed"]
    orders = set()
    for rater in (1, 2, 3):
        sheet = pl.read_csv(sheets / "sheets" / f"rater_{rater}_intrusion.csv")
        assert sheet.columns == ["task", *(f"word{n}" for n in range(1, 6)), "annotator", "answer"]
        assert set(sheet["task"]) == set(key.filter(kind="intrusion")["task"])
        orders.add(tuple(sheet["task"]))
    assert len(orders) == 3
    mixing = (sheets / "sheets" / "rater_1_mixing.csv").read_text()
    assert "single" not in mixing
    assert "good" not in mixing
    # The names of tasks are not in the order of models or truths.
    assert key.sort("task")["model"].to_list() != key.sort("model")["model"].to_list()


def fill(sheets: Path, folder: Path, wrong: dict[str, set[str]]) -> None:
    """Answer all sheets by the key, each rater wrong at some tasks."""
    key = {row["task"]: row for row in pl.read_csv(sheets / "key.csv").iter_rows(named=True)}
    folder.mkdir()
    for path in (sheets / "sheets").glob("*.csv"):
        sheet = pl.read_csv(path)
        rater = sheet["annotator"][0]
        answers = []
        for task in sheet["task"]:
            row = key[task]
            right = task not in wrong.get(rater, ())
            if row["kind"] == "intrusion":
                others = [row[f"word{n}"] for n in range(1, 6) if row[f"word{n}"] != row["truth"]]
                answers.append(row["truth"] if right else others[0])
            else:
                answers.append("2" if (row["truth"] == "mixed") == right else "1")
        sheet.with_columns(pl.Series("answer", answers)).write_csv(folder / path.name)


def test_filled_sheets_come_back_as_scores(sheets, tmp_path, headwise) -> None:
    key = pl.read_csv(sheets / "key.csv").filter(~pl.col("control"))
    slips = set(key.filter(model="poor", kind="intrusion")["task"])
    fill(sheets, tmp_path / "filled", {"rater_2": slips})
    code, lines = headwise(
        "text", "topics", "agreement", "--answers", tmp_path / "filled", "--key",
        sheets / "key.csv", "--output", tmp_path / "out", "--draws", 50,
    )  # fmt: skip
    assert code == 0, lines
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["mixing"]["agreement"]["alpha"]["value"] == 1
    assert scores["intrusion"]["controls"]["value"] == 1
    families = scores["intrusion"]["families"]
    assert families["good"]["accuracy"]["value"] == 1
    assert families["poor"]["accuracy"]["value"] == pytest.approx(2 / 3)
    annotators = scores["intrusion"]["annotator_scores"]
    assert annotators["rater_2"]["accuracy"] == pytest.approx(
        1 - len(slips) / key.filter(kind="intrusion").height
    )
    assert annotators["rater_1"]["accuracy"] == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "account.json", "annotators.csv", "models.csv", "models.png", "scores.json", "summary.html",
        "summary.md",
    }  # fmt: skip


def test_sheets_with_answers_are_never_replaced(topics, corpus, sheets, tmp_path) -> None:
    options = {"topics": [topics["good"], topics["poor"]], "data": corpus, "output": tmp_path / "o"}
    pipelines.text.topics_tasks(**options)
    pipelines.text.topics_tasks(**options, overwrite=True)
    path = tmp_path / "o" / "sheets" / "rater_1_mixing.csv"
    pl.read_csv(path).with_columns(answer=pl.lit("1")).write_csv(path)
    with pytest.raises(InputError, match=r"rater_1_mixing.csv: holds answers"):
        pipelines.text.topics_tasks(**options, overwrite=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "needs --data, or --vectors FILE, to find the closest topics"),
        ({"answers": 4}, "--answers 4: more than --raters 3"),
        ({"kinds": ()}, "--kinds"),
        ({"kinds": ("intrusion",), "control_words": "poor"}, "of 8 words each"),
    ],
)
def test_tasks_refuse_what_they_cannot_use(topics, tmp_path, options, reason) -> None:
    if "control_words" in options:
        (tmp_path / "c.json").write_text('[["a", "b"]]')
        options = {**options, "control_words": tmp_path / "c.json"}
    with pytest.raises(InputError, match=reason):
        pipelines.text.topics_tasks(topics=[topics["good"]], output=tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()


def mixing_table(rows: list[tuple[str, str, int, str, bool]]) -> str:
    """task, annotator, answer, truth, control of mixings of models m_10 and m_20."""
    lines = [
        f"{task},{rater},{answer},mixing,m_{10 + 10 * (place % 2)},{truth},{control}"
        for place, (task, rater, answer, truth, control) in enumerate(rows)
    ]
    return "\n".join(["task,annotator,answer,kind,model,truth,control", *lines]) + "\n"


def test_agreement_of_a_table_worked_out_by_hand(tmp_path) -> None:
    """Raters a and b. Mixed tasks 1, 2: a finds both, b one. Single 3, 4: a calls 3 two, b none.

    3 of 4 hits, 1 of 4 false alarms, F1 = 6 / 8. Answers 21, 22, 21, 11: alpha with D_o = 4 / 8,
    D_e = (2 * 4 * 4) / 56; control: both right, and not among these.
    """
    rows = [
        (task, rater, answer, "mixed" if task in "12" else "single", False)
        for task, answers in {"1": (2, 1), "2": (2, 2), "3": (2, 1), "4": (1, 1)}.items()
        for rater, answer in zip("ab", answers, strict=True)
    ]
    rows += [
        ("5", "a", 2, "mixed", True),
        ("5", "b", 2, "mixed", True),
        ("5", "a", 1, "mixed", True),
    ]
    (tmp_path / "a.csv").write_text(mixing_table(rows))
    report = pipelines.text.topics_agreement(answers=[tmp_path / "a.csv"], draws=20)
    rated = report.kinds["mixing"]
    assert rated.agreement["alpha"].value == pytest.approx(1 - (4 / 8) / (32 / 56))
    assert rated.agreement["pairwise_agreement"].value == 0.5
    assert rated.controls.value == pytest.approx(2 / 3)
    scores = rated.by_family["m"]
    assert (scores["hit_rate"].value, scores["false_alarm_rate"].value) == (0.75, 0.25)
    assert scores["f1"].value == pytest.approx(6 / 8)
    assert rated.by_annotator["a"]["says_two"] == 0.75
    assert rated.by_annotator["b"]["says_two"] == 0.25
    assert rated.by_annotator["a"]["criterion"] < 0 < rated.by_annotator["b"]["criterion"]
    assert set(rated.by_model) <= {"m_10", "m_20"}


def test_agreement_refuses_what_it_cannot_use(tmp_path, headwise) -> None:
    (tmp_path / "a.csv").write_text("task,annotator,answer\n1,a,\n2,b,\n")
    code, lines = headwise("text", "topics", "agreement", "--answers", tmp_path / "a.csv")
    assert (code, len(lines)) == (2, 1)
    assert "holds no answer; all are blank" in lines[0]
    code, lines = headwise(
        "text", "topics", "agreement", "--answers", tmp_path / "a.csv", "--key", tmp_path / "k.csv"
    )
    assert (code, len(lines)) == (2, 1)


def test_machine_raters_do_the_tasks_of_the_people(sheets, tmp_path) -> None:
    fill(sheets, tmp_path / "filled", {})
    words = [word for group in SUBJECTS.values() for word in group]
    np.savez(tmp_path / "v.npz", words=words, vectors=np.repeat(np.eye(3), 10, axis=0))
    good = set(pl.read_csv(sheets / "key.csv").filter(model="good")["task"])
    for path in (tmp_path / "filled").iterdir():
        pl.read_csv(path).filter(pl.col("task").is_in(good)).write_csv(path)
    report = pipelines.text.topics_agreement(
        answers=[tmp_path / "filled"], key=[sheets / "key.csv"], vectors=tmp_path / "v.npz", draws=9
    )
    intrusion, mixing = report.machine["intrusion"], report.machine["mixing"]
    assert intrusion["human_accuracy"].value == mixing["human_vote_auc"].value == 1
    assert intrusion["machine_accuracy, good"].value == intrusion["machine_accuracy"].value == 1
    assert mixing["machine_auc"].value == mixing["rank_correlation"].value == 1
