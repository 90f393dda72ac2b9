"""Encoders of text from files give what the formula gives; damaged files are one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headwise.models.text.pretrained import read_pretrained
from headwise.models.weights.bert import read_bert
from headwise.models.weights.e5 import read_e5
from headwise.models.weights.static_vectors import read_static_vectors
from headwise.tests.text_files import PIECES, E5File, bert_folder, bert_state, plain_bert, rounded

IDS = [2, 6, 4, 7, 5, 9, 3]


def states(encoder: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return encoder(torch.tensor([ids]), torch.ones(1, len(ids)).bool())[0].double()


def refused(function, path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        function(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


class TestBert:
    """A folder of Hugging Face."""

    def test_states_are_those_of_the_formula(self, tmp_path: Path) -> None:
        weights = read_bert(bert_folder(tmp_path))
        assert weights.sizes["heads"] == 4
        assert (weights.sizes["positions"], weights.most_tokens) == (16, 12)
        expected = plain_bert(bert_state(), IDS, heads=4)
        torch.testing.assert_close(states(weights.encoder(), IDS), expected, rtol=1e-4, atol=1e-5)

    def test_names_of_a_model_with_a_head_are_read_as_well(self, tmp_path: Path) -> None:
        bert_folder(tmp_path)
        state = {f"bert.{name}": value.half() for name, value in bert_state().items()}
        save_file({**state, "cls.bias": torch.zeros(1)}, tmp_path / "model.safetensors")
        (tmp_path / "sentence_bert_config.json").unlink()
        weights = read_bert(tmp_path)
        assert weights.most_tokens == 16
        half = {name: value.half().float() for name, value in bert_state().items()}
        torch.testing.assert_close(
            states(weights.encoder(), IDS), plain_bert(half, IDS, 4), rtol=1e-4, atol=1e-5
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("model_type", "roberta"),
            ("hidden_act", "relu"),
            ("position_embedding_type", "relative_key"),
        ],
    )
    def test_another_model_is_refused(self, tmp_path: Path, name: str, value: str) -> None:
        refused(read_bert, bert_folder(tmp_path, **{name: value}), f"{name} is '{value}'")

    def test_damaged_files_are_one_line(self, tmp_path: Path) -> None:
        refused(read_bert, tmp_path / "nowhere", "cannot be read")
        bert_folder(tmp_path)
        file = tmp_path / "model.safetensors"
        content = file.read_bytes()
        for cut in (0, 7, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:cut])
            refused(read_bert, tmp_path, "cannot be read as weights")
        state = bert_state()
        layer = "encoder.layer.1.attention.self.key.weight"
        cases = {
            "it lacks": {name: v for name, v in state.items() if name != layer},
            r"places is \(16, 16\)": {
                **state,
                "embeddings.position_embeddings.weight": torch.zeros(16, 16),
                "embeddings.token_type_embeddings.weight": torch.zeros(2, 16),
            },
            "it lacks 'encoder.layer.0'": {
                name: v for name, v in state.items() if name.startswith("emb")
            },
            "not a BERT": {"a": torch.zeros(1)},
        }
        for message, wrong in cases.items():
            save_file(wrong, file)
            refused(read_bert, tmp_path, message)
        file.write_bytes(content)
        bert_folder(tmp_path, num_attention_heads=5)
        refused(read_bert, tmp_path, "heads")
        for text in ("{", "[]", json.dumps({"model_type": "bert"})):
            (tmp_path / "config.json").write_text(text)
            refused(read_bert, tmp_path, "no JSON|no object|it lacks 'num_attention_heads'")

    def test_a_length_that_is_none_is_refused(self, tmp_path: Path) -> None:
        bert_folder(tmp_path)
        (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": "all"}')
        refused(read_bert, tmp_path, "max_seq_length must be")


class TestStaticVectors:
    """One matrix."""

    def test_vectors_are_looked_up(self, tmp_path: Path) -> None:
        vectors = torch.randn(5, 3).half()
        save_file({"embedding.weight": vectors}, tmp_path / "a.safetensors")
        encoder = read_static_vectors(tmp_path / "a.safetensors")
        assert not encoder.words.weight.requires_grad
        assert states(encoder, [4, 0, 4]).tolist() == vectors[[4, 0, 4]].tolist()

    def test_anything_else_is_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        refused(read_static_vectors, path, "cannot be read as vectors")
        save_file({"a": torch.zeros(5, 3)}, path)
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        refused(read_static_vectors, path, "cannot be read as vectors")
        matrix = torch.zeros(5, 3)
        for wrong, message in (
            ({"a": matrix, "b": matrix.clone()}, "one matrix"),
            ({"a": torch.zeros(5)}, "one matrix"),
            ({"a": torch.zeros(0, 3)}, "one matrix"),
            ({"a": matrix.int()}, "must hold floats"),
        ):
            save_file(wrong, path)
            refused(read_static_vectors, path, message)


class TestE5:
    """Four bits for each weight."""

    def write(self, path: Path, file: E5File) -> Path:
        path.write_bytes(file.content())
        return path

    def test_states_are_those_of_the_formula_with_rounded_weights(self, tmp_path: Path) -> None:
        file = E5File()
        weights = read_e5(self.write(tmp_path / "a.bin", file))
        exact = ("position", "token_type")
        state = {
            name: rounded(value)
            if value.ndim == 2 and not any(word in name for word in exact)
            else value
            for name, value in file.state.items()
        }
        ids = [0, 5, 6, 8, 14, 2]
        encoder = weights.bert.encoder()
        torch.testing.assert_close(
            states(encoder, ids), plain_bert(state, ids, heads=4), rtol=1e-4, atol=1e-5
        )
        assert "words.bits" in encoder.state_dict()

    def test_the_vocabulary_is_read(self, tmp_path: Path) -> None:
        vocabulary = read_e5(self.write(tmp_path / "a.bin", E5File())).vocabulary
        assert vocabulary.pieces == PIECES
        assert vocabulary.scores[:3] == [0.0, -1.0, -2.0]
        places = (vocabulary.begin, vocabulary.end, vocabulary.padding, vocabulary.unknown)
        assert places == (0, 2, 1, 3)
        assert vocabulary.replacements == E5File().replacements

    def test_a_file_cut_anywhere_is_one_line(self, tmp_path: Path) -> None:
        content = E5File().content()
        path = tmp_path / "a.bin"
        for cut in [*range(0, 700, 13), *range(700, len(content), 4001), len(content) - 1]:
            path.write_bytes(content[:cut])
            refused(read_e5, path, "does not begin with|ends too early")
        refused(read_e5, tmp_path / "nowhere.bin", "cannot be read")

    def test_damaged_and_other_files_are_one_line(self, tmp_path: Path) -> None:
        state = E5File().state
        key = "encoder.layer.0.attention.self.key.weight"
        cases = {
            "does not begin": E5File(magic=b"GGUF"),
            "version 2": E5File(version=2),
            "'l2.q.w'": E5File(layers=3),
            "vocabulary is damaged": E5File(pieces=[*PIECES[:-1], "b"]),
            "16 pieces and 15": E5File(pieces=[*PIECES, "x", "y", "z"]),
            "invalid for input of size|shape": E5File(sizes={"hidden": 96}),
            "l0.k.w": E5File(state={name: v for name, v in state.items() if name != key}),
            "heads": E5File(sizes={"heads": 5}),
            "cannot be read as E5": E5File(sizes={"positions": -1}),
        }
        for k, (message, file) in enumerate(cases.items()):
            refused(read_e5, self.write(tmp_path / f"{k}.bin", file), message)
        content = bytearray(E5File().content())
        # The kind of the last tensor in the table.
        place = content.rindex(b"l1.oln.b") + len(b"l1.oln.b")
        content[place] = 7
        (tmp_path / "kind.bin").write_bytes(content)
        refused(read_e5, tmp_path / "kind.bin", "of kind 7")


def test_a_folder_without_weights_is_refused_with_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no model\.safetensors.*all-minilm-l6-v2"):
        read_pretrained("mine", tmp_path)
