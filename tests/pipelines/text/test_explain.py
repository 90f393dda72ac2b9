"""Explanations of texts: they sum to the logit, stand at their characters, and are true of the
model.
"""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
import torch

from headwise import pipelines
from headwise.data.texts.counting import terms_of
from headwise.data.texts.generate import write_sample_texts
from headwise.models.text.attention import ScaledTexts
from headwise.models.text.contributions import divided_part, is_sum, text_contributions
from headwise.models.text.cross import CrossTexts
from headwise.models.text.linear import BlendedTexts, LinearTexts
from headwise.models.text.sources import SourceLinearTexts, SourcesTexts
from headwise.pipelines import text as text_verbs
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.text.coding import inputs_of
from headwise.pipelines.text.explanation import check, sums
from headwise.pipelines.text.explanation.pages import clean, section, write_html
from headwise.pipelines.text.explanation.sums import Explainer
from headwise.pipelines.text.explanation.words import share_words, stretches
from headwise.pipelines.text.prediction import coder_of, plain_table
from headwise.pipelines.text.probabilities import calibrated

pytestmark = pytest.mark.drawn

HOSTILE = [
    "the printer jams & <script>alert(1)</script> </p> \"x\" 'y'",
    "",
    "مرحبا، الطابعة لا تعمل printer",
    "😀😀 the vpn 👩‍💻 does not connect",
    "打印机坏了 printer がたがた",
    "a\x1b[2Kb \x00\x07 \u202e desrever \u2028 the screen flickers",
    "?!...",
    "wifi " * 100,
    "x" * 5000,
]
KINDS = ("naive", "simple", "model", "blend", "scaled", "attention")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of messages with a table beside them and windows of 16 tokens."""
    home = tmp_path_factory.mktemp("explain")
    data = write_sample_texts(home, texts=400)
    options = {"table": ("plan", "seats"), "weights": "none", "width": 16, "window": 16}
    pipelines.text.train(data=data, run=home / "run", epochs=3, choose="blend", **options)
    return home / "run"


@pytest.fixture
def loaded(run):
    return load_run(text_verbs.TASK.load(), str(run))


def table_of(texts):
    """Texts with what the run has beside them."""
    beside = pl.DataFrame({"plan": ["team"] * len(texts), "seats": [30] * len(texts)})
    names = [f"t{k}" for k in range(len(texts))]
    sources = ["mail", "elsewhere"] * len(texts)
    return replace(plain_table(texts, names), table=beside, sources=sources[: len(texts)])


def model_of(loaded, kind):
    models = loaded.ladder.models
    if kind == "blend":  # with weights that differ by label, and a shift
        for buffer in (models["blend"].first, models["blend"].second, models["blend"].shift):
            torch.nn.init.uniform_(buffer, 0.2, 1)
    if kind == "scaled":
        model = ScaledTexts(models["simple"], loaded.spec.outputs)
        torch.nn.init.uniform_(model.scale, 0.5, 2)
        torch.nn.init.uniform_(model.shift)
        return model
    return models["model"].network if kind == "attention" else models[kind]


def explainer_of(loaded, model):
    return Explainer(model, coder_of(loaded.spec), loaded.calibration, loaded.device)


def everything(spec):
    return np.arange(spec.outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_words_table_and_bias_sum_to_the_calibrated_logit_that_predicts(loaded, kind):
    model, coder, table = model_of(loaded, kind), coder_of(loaded.spec), table_of(HOSTILE)
    batch = coder.code(table).inputs(np.arange(len(table)), coder.padding)
    with torch.no_grad():
        predicted = calibrated(model(*inputs_of(batch)).numpy(), loaded.calibration)
    explained = list(explainer_of(loaded, model).texts(table, everything(loaded.spec), 1))
    for row, text in enumerate(explained):
        total = text.words.sum(0) + text.table + text.symbols + text.bias
        np.testing.assert_allclose(total, text.logits, atol=1e-6)
        np.testing.assert_allclose(text.logits, predicted[row], atol=2e-4, rtol=1e-5)
        assert text.exact
        assert (text.network == 0).all()
    assert (len(explained[0].spans) > 0) == (kind != "none")
    if kind in ("simple", "model", "blend", "scaled"):
        assert np.abs(explained[0].table).max() > 1e-3
    if kind != "naive":
        assert np.abs(explained[0].words).max() > 1e-3


def test_a_word_has_its_terms_and_half_of_its_pairs_over_their_places(loaded):
    text = "The printer jams, the printer stops. Jams again"
    explained = next(
        explainer_of(loaded, model_of(loaded, "simple")).texts(
            table_of([text]), everything(loaded.spec), 1
        )
    )
    coder, weight = coder_of(loaded.spec), loaded.ladder.models["simple"].weight.numpy()
    row = coder.terms.rows([text]).toarray()[0]
    slope = loaded.calibration["slope"].numpy()
    terms = list(terms_of(text, pieces=coder.terms.pieces))
    names = [name for name, _ in terms]
    expected = np.zeros_like(explained.words)
    for name, spans in terms:
        if name in coder.terms.terms:
            place = coder.terms.terms.index(name)
            for span in spans:
                word = explained.spans.tolist().index(list(span))
                expected[word] += row[place] * weight[place] / names.count(name) / len(spans)
    np.testing.assert_allclose(explained.words, expected * slope, atol=1e-5)


def test_the_characters_of_each_word_are_those_of_the_text(loaded):
    for text in explainer_of(loaded, loaded.model).texts(table_of(HOSTILE), None, 3):
        ends = text.spans.ravel()
        assert (np.diff(ends) >= 0).all()
        assert (text.spans[:, 0] < text.spans[:, 1]).all()
        assert ends.max(initial=0) <= len(text.text)
    explained = next(explainer_of(loaded, loaded.model).texts(table_of([HOSTILE[3]]), None, 3))
    words = [explained.text[a:b] for a, b in explained.spans.tolist()]
    assert words == ["😀", "😀", "the", "vpn", "👩‍💻", "does", "not", "connect"]


def test_tokens_go_to_the_words_that_they_cover_and_symbols_are_words():
    text = "unhappy days, ok"
    offsets = np.array([[0, 0], [0, 2], [2, 9], [9, 12], [12, 13], [14, 16], [0, 0]])
    shared = share_words(text, offsets, [7], {7: [((0, 7), (8, 12)), ((8, 12), (14, 16))]})
    assert [text[a:b] for a, b in shared.spans.tolist()] == ["unhappy", "days", ",", "ok"]
    expected = [
        [0, 1, 5 / 6, 0, 0, 0, 0, 0.25],
        [0, 0, 1 / 6, 1, 0, 0, 0, 0.5],
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0.25],
    ]
    np.testing.assert_allclose(shared.shares.toarray(), expected)
    assert shared.alone.tolist() == [True, *[False] * 5, True, False]


def test_windows_hold_all_words_and_name_what_the_network_does_not_read(loaded):
    coder = coder_of(replace(loaded.spec, most_tokens=32))
    text = "the printer jams and the wifi is slow " * 10
    explainer = Explainer(loaded.model, coder, loaded.calibration, loaded.device)
    explained = next(explainer.texts(table_of([text]), everything(loaded.spec), 1))
    parts = explained.stretches
    assert [part.is_read for part in parts] == [True, True, False]
    assert [a.end for a in parts[:-1]] == [b.start for b in parts[1:]]
    assert (parts[0].start, parts[-1].end) == (0, len(text))
    for place in range(len(explained.labels)):
        total = explained.by_stretch(place).sum()
        assert total == pytest.approx(explained.words[:, place].sum(), abs=1e-9)
    assert explained.error < 1e-6
    # Without a network, stretches of 256 words.
    spans = np.stack([np.arange(600) * 2, np.arange(600) * 2 + 1], 1)
    parts = stretches("x " * 600, spans, np.zeros((0, 2), np.int64), 1)
    assert [(part.start, part.end) for part in parts] == [(0, 512), (512, 1024), (1024, 1200)]


def test_all_labels_take_one_pass_of_the_encoder_and_blocks_change_nothing(loaded, monkeypatch):
    model, table = model_of(loaded, "model"), table_of([HOSTILE[0], HOSTILE[7]])
    calls = []
    model.network.encoder.register_forward_hook(lambda *_: calls.append(1))
    explainer = explainer_of(loaded, model)
    labels = everything(loaded.spec)
    together = list(explainer.texts(table, labels, 1))
    assert len(calls) == 2 * len(table)  # the logits, and what they are made of
    monkeypatch.setattr(sums, "NUMBERS", 1)
    by_label = list(explainer.texts(table, labels, 1))
    assert len(calls) == len(table) * (2 + 1 + len(labels))
    for a, b in zip(together, by_label, strict=True):
        np.testing.assert_allclose(a.words, b.words, atol=1e-12)
        np.testing.assert_allclose(a.bias, b.bias, atol=1e-12)


def networks(spec, encoder):
    """Models that are no sum over the words, with a linear part and without."""
    torch.manual_seed(1)
    linear = LinearTexts(spec.terms, spec.outputs, spec.table_width)
    linear.weight.normal_()
    cross = {"outputs": spec.outputs, "table": spec.table_width}
    models = {
        "cross": CrossTexts(encoder, **cross, linear=linear),
        "cross alone": CrossTexts(encoder, **cross),
        "sources": SourcesTexts(
            encoder,
            outputs=spec.outputs,
            sources=len(spec.sources),
            table=spec.table_width,
            linear=linear,
        ),
    }
    for model in models.values():
        torch.nn.init.normal_(model.head.weight)
    models["blend"] = BlendedTexts(models["cross"], linear, spec.outputs)
    return models


@pytest.mark.parametrize("kind", ["cross", "cross alone", "sources", "blend"])
def test_what_is_no_sum_is_said_to_be_none_and_its_linear_part_is_divided(loaded, kind):
    model = networks(loaded.spec, model_of(loaded, "attention").encoder)[kind]
    assert not is_sum(model)
    assert (divided_part(model) is None) == (kind == "cross alone")
    explainer, labels = explainer_of(loaded, model), everything(loaded.spec)
    explained = next(explainer.texts(table_of([HOSTILE[0]]), labels, 1))
    assert not explained.exact
    assert explained.error < 1e-6
    assert np.abs(explained.network).max() > 1e-3
    assert (np.abs(explained.words).max() > 1e-3) == (kind != "cross alone")
    if kind != "sources":
        assert explained.attention.sum() == pytest.approx(1)
        assert (explained.attention >= 0).all()
    page = write_html(
        [section(explained, loaded.spec, None)],
        {},
        exact=False,
        is_divided=explained.is_divided,
        left_out=0,
        check=None,
    )
    assert "no exact explanations" in page
    assert ('class="seen' in page) == (kind == "cross alone")


def test_a_model_that_says_nothing_of_words_is_refused(loaded):
    spec = loaded.spec
    encoder = model_of(loaded, "attention").encoder
    model = SourcesTexts(
        encoder, outputs=spec.outputs, sources=len(spec.sources), table=spec.table_width
    )
    with pytest.raises(ValueError, match=r"SourcesTexts.*no sum over words.*--choose simple"):
        explainer_of(loaded, model)


def test_the_vector_of_a_text_is_told_from_its_table(loaded, monkeypatch):
    facts = {"weights": "none", "centre": [0.0, 0.0, 0.0], "distance": 1.0}
    spec = replace(loaded.spec, vectors=facts)
    vectors = np.array([[1.0, -2.0, 0.5]], np.float32)
    monkeypatch.setattr("headwise.pipelines.text.coding.vector_rows", lambda *_: vectors)
    old = loaded.ladder.models["simple"]
    model = LinearTexts(spec.terms, spec.outputs, spec.table_width)
    model.weight, model.bias = old.weight, old.bias
    behind = torch.randn(3, spec.outputs)
    model.table_weight = torch.cat([old.table_weight, behind])
    labels, table = everything(spec), table_of([HOSTILE[0]])
    coder = replace(coder_of(loaded.spec), spec=spec)
    explainer = Explainer(model, coder, loaded.calibration, loaded.device)
    explained = next(explainer.texts(table, labels, 1))
    plain = next(explainer_of(loaded, old).texts(table, labels, 1))
    expected = loaded.calibration["slope"].numpy() * (vectors @ behind.numpy())[0]
    np.testing.assert_allclose(explained.vector, expected, atol=1e-6)
    np.testing.assert_allclose(explained.table, plain.table, atol=1e-6)
    assert (plain.vector == 0).all()
    assert explained.error < 1e-6


def test_linear_models_of_sources_sum_by_the_source_of_each_text():
    torch.manual_seed(0)
    model = SourceLinearTexts(7, 3, 2, sources=2)
    for buffer in model.buffers():
        buffer.normal_()
    features, amounts = torch.randint(7, (3, 4)), torch.rand(3, 4)
    tokens = torch.zeros(3, 1, dtype=torch.int64)
    source = torch.tensor([0, 1, 2])  # the last is not known
    inputs = tokens, tokens > 0, features, amounts, torch.randn(3, 2), source
    for labels in (None, torch.tensor([2, 0])):
        parts = text_contributions(model, inputs, labels)
        total = parts.features.sum(2) + parts.table + parts.bias
        expected = model(*inputs)
        expected = expected if labels is None else expected[:, labels]
        torch.testing.assert_close(total, expected)
        torch.testing.assert_close(parts.logits, expected)


@pytest.mark.parametrize("goal", ["class", "number"])
def test_classes_and_numbers_are_explained_in_their_own_scale(loaded, goal):
    spec = loaded.spec
    if goal == "class":
        spec = replace(spec, goal="class", levels="")
        slope, shift = torch.full((spec.outputs,), 0.5), torch.zeros(spec.outputs)
        calibration = {"slope": slope, "shift": shift, "set": torch.tensor([0.05])}
        model = loaded.model
    else:
        spec = replace(spec, goal="number", labels=["stars"], levels="", mean=3.0, deviation=2.0)
        calibration = {"width": torch.tensor([1.0])}
        model = LinearTexts(spec.terms, 1, spec.table_width)
        model.weight.normal_()
    coder = replace(coder_of(loaded.spec), spec=spec)
    explainer = Explainer(model, coder, calibration, loaded.device)
    explained = next(explainer.texts(table_of([HOSTILE[0]]), None, 3))
    assert explained.error < 1e-6
    page = section(explained, spec, sums.threshold_of(calibration, spec))
    if goal == "class":
        assert explained.probability.sum() == pytest.approx(1)
        assert explained.given.sum() == 1
        assert len(explained.labels) == 3
    else:
        batch = coder.code(table_of([HOSTILE[0]])).inputs([0], 0)
        value = 3 + 2 * float(
            model.double()(*(x.double() if x.is_floating_point() else x for x in inputs_of(batch)))
        )
        assert explained.logits[0] == pytest.approx(value)
        assert page.views[0].chance == f"{value:.4g}"


class Page(HTMLParser):
    """Tags of a page in their order, and the text in shaded words."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.marks, self.titles = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "input", "img", "br"):
            self.open.append(tag)
        values = dict(attrs)
        assert not {"src", "href", "onclick", "onerror"} & set(values) or tag == "img"
        if tag == "mark":
            self.titles.append((values["class"], values.get("title")))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "mark":
            self.marks.append(data)


def test_hostile_texts_give_a_page_that_runs_nothing_and_files_that_can_be_read(
    run, tmp_path, headwise
):
    rows = [
        {"text": text, "plan": "team", "seats": 3, "id": f"<b>{k}"}
        for k, text in enumerate(HOSTILE)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    words = ("--run", run, "--input", tmp_path / "in.jsonl", "--output", out, "--show", 8)
    code, lines = headwise("text", "explain", *words)
    assert code == 0, lines
    assert any("1 texts in index.html (--show)" in line for line in lines)
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert not {"script", "b>", "link", "iframe"} & set(page.tags)
    assert {"printer", "vpn"} <= set(page.marks)
    assert page.tags.count("section") == 8
    plain = (out / "explanations.txt").read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e\u2028]", plain)
    by_text = {}
    for line in (out / "explanations.jsonl").read_text().splitlines():
        row = json.loads(line)
        text = HOSTILE[row["row"]]
        assert row["id"] == f"<b>{row['row']}"
        assert all(word["word"] == text[word["start"] : word["end"]] for word in row["words"])
        total = sum(word["contribution"] for word in row["words"])
        assert total + row["table"] + row["symbols"] + row["bias"] == pytest.approx(
            row["logit"], abs=1e-6
        )
        assert (row["logit"] >= np.log(row["threshold"] / (1 - row["threshold"]))) == row["given"]
        by_text.setdefault(row["row"], []).append(row)
    assert sorted(by_text) == list(range(len(HOSTILE)))
    assert all(len(rows) >= 3 for rows in by_text.values())
    assert "windows" in by_text[7][0]
    assert [window["window"] for window in by_text[7][0]["windows"]] == [1, 2, 3, 4, 5, 6, 7]


def test_probabilities_are_those_of_predict(run, tmp_path):
    table = pl.DataFrame({"text": HOSTILE[2:5], "plan": ["free"] * 3, "seats": [1, 2, 3]})
    table.write_parquet(tmp_path / "in.parquet")
    pipelines.text.predict(
        run=run, input=tmp_path / "in.parquet", output=tmp_path / "p.parquet", all_labels=True
    )
    predicted = pl.read_parquet(tmp_path / "p.parquet")
    explained = pipelines.text.explain(
        run=run, input=tmp_path / "in.parquet", output=tmp_path / "e", top=99
    ).table()
    for row in explained.iter_rows(named=True):
        wanted_row = predicted.row(row["row"], named=True)
        assert row["probability"] == pytest.approx(wanted_row[f"p_{row['label']}"], abs=1e-4)
        assert row["given"] == (row["label"] in wanted_row["labels"])
        assert row["possible"] == (row["label"] in wanted_row["possible"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--labels", "hardware::prnter"), "did you mean 'hardware::printer'"),
        (("--text", "x"), "give one of them"),
        (("--input", "-", "--check"), "needs labelled texts"),
        (("--top", "0"), "--top"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(run, tmp_path, headwise, words, reason):
    (tmp_path / "in.csv").write_text("text,plan,seats\nthe printer jams,team,1\n")
    out = tmp_path / "out"
    options = ("--run", run, "--output", out, "--input", tmp_path / "in.csv", *words)
    code, lines = headwise("text", "explain", *options)
    assert code == 2
    assert reason in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_text_alone_needs_the_columns_that_the_run_reads(run, tmp_path, headwise):
    code, lines = headwise(
        "text", "explain", "--run", run, "--text", "hello", "--output", tmp_path / "o"
    )
    assert code == 2
    assert "also reads the column 'plan'" in lines[-1]


def test_nothing_that_is_there_is_replaced_unasked(run, tmp_path, headwise):
    (tmp_path / "in.csv").write_text("text,plan,seats\nthe printer jams,team,1\n")
    options = ("--run", run, "--input", tmp_path / "in.csv", "--output")
    assert headwise("text", "explain", *options, tmp_path / "o")[0] == 0
    before = (tmp_path / "o" / "explanations.jsonl").read_bytes()
    code, lines = headwise("text", "explain", *options, tmp_path / "o")
    assert (code, "already exists" in lines[-1]) == (2, True)
    assert headwise("text", "explain", *options, tmp_path / "o", "--overwrite")[0] == 0
    assert (tmp_path / "o" / "explanations.jsonl").read_bytes() == before
    (tmp_path / "o" / "mine.txt").write_text("mine")
    code, lines = headwise("text", "explain", *options, tmp_path / "o", "--overwrite")
    assert (code, "holds other things" in lines[-1]) == (2, True)
    assert (tmp_path / "o" / "mine.txt").read_text() == "mine"


def test_a_killed_job_leaves_nothing_half_written(run, tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_text("text,plan,seats\nthe printer jams,team,1\n")
    values = {"run": run, "input": tmp_path / "in.csv", "output": tmp_path / "o"}
    (tmp_path / ".aside-x-o").mkdir()  # of one that was killed before
    (tmp_path / ".aside-x-o" / "explanations.jsonl").write_text("half")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headwise.pipelines.text.verbs.explain.write_html", stop)
        with pytest.raises(KeyboardInterrupt):
            pipelines.text.explain(**values)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    pipelines.text.explain(**values)
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        "index.html", "explanations.jsonl", "explanations.txt", "account.json",
    }  # fmt: skip


def test_a_file_that_cannot_be_read_is_named_and_the_rest_explained(run, tmp_path, headwise):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text,plan,seats\nthe printer jams,team,1\n")
    (tmp_path / "in" / "b.csv").write_text("text,plan\nthe wifi is slow,team\n")
    options = ("--run", run, "--input", tmp_path / "in", "--output", tmp_path / "o")
    code, lines = headwise("text", "explain", *options)
    assert code == 3, lines
    assert any("not explained" in line and "seats" in line for line in lines)
    assert "the printer" not in (tmp_path / "o" / "account.json").read_text()


def test_explanations_beside_the_texts_are_no_texts(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text,plan,seats\nthe printer jams,team,1\n")
    for name in ("o", "p"):
        output = tmp_path / "in" / name
        result = pipelines.text.explain(run=run, input=tmp_path / "in", output=output)
        assert (result.texts, result.failed) == (1, 0)


def test_a_long_text_is_explained_in_full_and_shown_from_its_strongest_window(run, tmp_path):
    text = "nothing of note here " * 9000 + "the printer jams " * 3 + "good morning " * 1000
    assert len(text) > 200_000
    table = pl.DataFrame({"text": [text], "plan": ["team"], "seats": [1]})
    table.write_parquet(tmp_path / "in.parquet")
    result = pipelines.text.explain(
        run=run, input=tmp_path / "in.parquet", output=tmp_path / "o", labels=("hardware::printer",)
    )
    assert result.error < 1e-6
    row = json.loads((tmp_path / "o" / "explanations.jsonl").read_text())
    strongest = max(row["windows"], key=lambda window: abs(window["sum"]))
    assert strongest["start"] <= text.index("printer") or strongest["end"] == len(text)
    assert sum(w["sum"] for w in row["windows"]) == pytest.approx(
        sum(w["contribution"] for w in row["words"]), abs=1e-6
    )
    assert (tmp_path / "o" / "index.html").stat().st_size < 1_000_000


def test_check_finds_that_top_words_matter_and_that_false_ones_do_not(run, tmp_path, monkeypatch):
    result = pipelines.text.explain(run=run, check=True, pairs=60, output=tmp_path / "o", show=2)
    checked = result.check
    assert checked.share >= 0.9
    assert checked.error < 1e-6
    assert checked.overlap > 3 * checked.by_chance
    stored = json.loads((tmp_path / "o" / "explain_check.json").read_text())
    assert stored["share_falls_more"] == checked.share
    page = (tmp_path / "o" / "index.html").read_text()
    assert checked.sentence in page.replace("&#39;", "'")
    assert "data:image/png;base64," in page
    # Words that are said to speak for a label and do not: the check must see it.
    by_key = check._by_key

    def turned(explained, keys=None):
        names, values = by_key(explained, keys)
        return names, -values

    monkeypatch.setattr(check, "_by_key", turned)
    false = pipelines.text.explain(run=run, check=True, pairs=60, output=tmp_path / "f", show=0)
    assert false.check.share < 0.3
    assert false.check.pairs == checked.pairs


def test_the_interval_of_a_share_is_not_empty_where_all_cases_are_alike():
    # The rule of three, two-sided: 0.025 ** (1 / 100).
    low, high = check.share_interval(np.ones(200), np.repeat(np.arange(100), 2))
    assert (low, high) == (pytest.approx(0.96378, abs=1e-5), 1.0)
    low, high = check.share_interval(np.zeros(100), np.arange(100))
    assert (low, high) == (0.0, pytest.approx(1 - 0.96378, abs=1e-5))
    low, high = check.share_interval(np.repeat([0.0, 1.0], 50), np.arange(100))
    assert low < 0.5 < high


def test_the_report_of_a_training_begins_with_explained_texts(run):
    assert (run / "figures" / "explained.png").stat().st_size > 3000
    page = (run / "report.html").read_text()
    assert page.index("words that speak for them") < page.index("<table>")


def test_characters_that_a_page_cannot_hold_are_replaced():
    assert clean("a\x00b\ud800c\td\n") == "a\ufffdb\ufffdc\td\n"
