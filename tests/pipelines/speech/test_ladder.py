"""The ladder of speech: the same text for all, beside a model that was trained from scratch."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.models.speech.decoding import Rules, transcribe
from headwise.models.speech.same_text import SameText
from headwise.models.speech.speech_to_text import SpeechToText
from headwise.pipelines import load_task
from headwise.pipelines.engine.pipeline import Context
from headwise.pipelines.engine.runs.ladder_files import fit_ladder
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.metrics.alignment import text_errors
from headwise.pipelines.speech.rungs import SpeechRungs, best_text
from headwise.pipelines.speech.scoring import groups_of
from headwise.pipelines.speech.transcriber import Transcriber

CPU = torch.device("cpu")


def small(**options: str) -> SpeechToText:
    torch.manual_seed(0)
    return SpeechToText(
        11,
        width=16,
        heads=2,
        encoder_layers=1,
        decoder_layers=1,
        audio_positions=50,
        text_positions=8,
        **options,
    ).eval()


@pytest.fixture
def loaded(run):  # type: ignore[no-untyped-def]
    return load_run(load_task("speech").load(), str(run), "cpu")


@pytest.fixture
def splits(loaded):  # type: ignore[no-untyped-def]
    return load_task("speech").load().open_data(loaded.options, loaded.spec)


class TestTheSameText:
    @pytest.mark.parametrize("attention", ["softmax", "taylor"])
    @pytest.mark.parametrize("beams", [1, 2])
    def test_it_is_written_whatever_is_said(self, attention: str, beams: int) -> None:
        same = SameText(small(decoder_attention=attention))
        same.write((1, 2), (5, 7, 5), end=9)
        memory = same.encode(torch.randn(3, 80, 40))
        transcripts = transcribe(same, memory, Rules((1, 2), 9, beams=beams))  # type: ignore[arg-type]
        assert [transcript.tokens for transcript in transcripts] == [(5, 7, 5)] * 3
        assert all(transcript.finished for transcript in transcripts)

    def test_a_text_that_is_longer_than_the_positions_is_cut(self) -> None:
        same = SameText(small())
        same.write((1, 2), range(3, 9), end=9)
        transcript = transcribe(same, same.encode(torch.randn(1, 80, 40)), Rules((1, 2), 9))[0]  # type: ignore[arg-type]
        assert transcript.tokens == (3, 4, 5, 6, 7, 8)

    def test_known_texts_are_heard_by_the_model(self) -> None:
        model = small()
        same = SameText(model)
        same.write((1,), (5,), end=9)
        memory, tokens = same.encode(torch.randn(2, 80, 40)), torch.tensor([[1, 4, 6], [1, 3, 2]])
        heard, expected = (m.decoder(tokens, memory, maps=[(0, 1)]) for m in (same, model))
        assert heard.logits.equal(expected.logits)
        assert heard.maps.equal(expected.maps)


def test_the_best_text_has_the_fewest_errors_if_it_is_always_written() -> None:
    true_texts = ["a b c"] * 3 + ["a x"] * 4 + ["a b y"] * 3
    best = best_text(true_texts)
    rates = {
        text: text_errors([text] * len(true_texts), true_texts).rate
        for text in [*true_texts, "", "a"]
    }
    assert rates[best] == min(rates[text] for text in [*true_texts, ""])
    assert best != "a x"  # though it is the commonest
    assert best_text(["one two", "three four", "five", "five six seven"]) == "five"


class TestScores:
    def test_they_are_those_of_what_the_rungs_write(self, loaded, splits, run) -> None:
        context = Context(loaded.options, loaded.spec, loaded.calibration, CPU)
        scores = SpeechRungs().scores(loaded.ladder.models, splits.test, context)
        true_texts = [utterance.text for utterance in splits.test.utterances]
        text = best_text([utterance.text for utterance in splits.train.utterances])
        naive = text_errors([text] * len(true_texts), true_texts)
        assert scores.score["naive"] == naive.rate
        metrics = json.loads((run / "metrics.json").read_text())
        assert scores.score["model"] == metrics["wer"]
        assert metrics["ladder"]["chosen"] == "model"
        speakers = np.array(groups_of(splits.test))
        assert scores.blocks == len(set(speakers))
        means = {  # of draws in which one speaker alone is drawn, all rates are that speaker's
            naive.wrong[speakers == name].sum() / naive.total[speakers == name].sum()
            for name in set(speakers)
        }
        assert min(means) - 1e-9 <= scores.draws["naive"].min()
        assert scores.draws["naive"].max() <= max(means) + 1e-9

    def test_words_name_the_text(self, loaded, splits) -> None:
        rung = SpeechRungs().simple(loaded.model, splits, loaded.options, CPU)["naive"]
        text = best_text([utterance.text for utterance in splits.train.utterances])
        assert text[:20] in rung.words

    def test_without_a_validation_part_there_is_no_ladder(self, loaded, splits) -> None:
        empty = replace(splits.validation, utterances=[], seconds=[])
        none = replace(splits, validation=empty)
        assert SpeechRungs().simple(loaded.model, none, loaded.options, CPU) == {}

    def test_adopted_weights_have_none(self, loaded) -> None:
        pipeline = load_task("speech").load()
        assert pipeline.rungs(replace(loaded.spec, sizes={"vocabulary": 3})) is None
        assert isinstance(pipeline.rungs(loaded.spec), SpeechRungs)


class TestTheChoice:
    def ladder(self, loaded, splits, model):  # type: ignore[no-untyped-def]
        context = Context(
            replace(loaded.options, choose="auto"), loaded.spec, loaded.calibration, CPU
        )
        return fit_ladder(load_task("speech").load(), model, splits, context)

    def test_a_model_that_hears_nothing_is_replaced_by_the_same_text(self, loaded, splits) -> None:
        text = best_text([utterance.text for utterance in splits.train.utterances])
        deaf = SameText(loaded.model)
        tokens = splits.train.tokens
        deaf.write(
            tokens.prompt, tokens.encode("0" * 12 if "0" in text else text[::-1]), tokens.end
        )
        ladder = self.ladder(loaded, splits, deaf)
        assert ladder.chosen == "naive"
        context = Context(loaded.options, loaded.spec, loaded.calibration, CPU)
        transcriber = Transcriber.of_run(ladder.predictor, context)
        memory = transcriber.encode(*splits.test.padded_features([0, 1]))
        written = transcriber.transcripts(memory, [splits.test.seconds[row] for row in (0, 1)])
        assert [tokens.decode(transcript.tokens) for transcript in written] == [text, text]

    def test_a_model_that_hears_is_chosen(self, loaded, splits, monkeypatch) -> None:
        """Here it is told what was said."""
        from headwise.pipelines.speech import rungs

        real = rungs.texts_of

        def told(transcriber, part):  # type: ignore[no-untyped-def]
            if isinstance(transcriber.model, SameText):
                return real(transcriber, part)
            return [utterance.text for utterance in part.utterances]

        monkeypatch.setattr(rungs, "texts_of", told)
        assert self.ladder(loaded, splits, loaded.model).chosen == "model"


def test_a_run_in_which_the_same_text_was_chosen_writes_it(run, home, tmp_path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    facts = json.loads((copy / "ladder.json").read_text())
    (copy / "ladder.json").write_text(json.dumps(facts | {"chosen": "naive"}))
    pipelines.speech.predict(run=copy, input=home, output=tmp_path / "o.parquet")
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert rows["text"].n_unique() == 1
    assert rows["text"][0] in facts["rungs"]["naive"]["words"]
    assert rows["words"].list.len().min() > 0


@pytest.mark.parametrize("choose", ["simple", "blend"])
def test_there_is_no_simple_model_to_ask_for(choose: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="speech has no simple model; there are naive"):
        pipelines.speech.train(run=tmp_path / "run", choose=choose)
