"""Items read one by one, predicted in batches."""

import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.pipelines.engine.inference.batches import predict_in_batches


def read(item):
    if item["value"] is None:
        raise InputError(f"{item['file']}: is empty")
    return item["value"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_each_item_has_its_own_answer_in_its_own_place(batch_size):
    values = [1, None, 3, 4, None, None, 7, 8]
    items = [{"file": f"{place}.png", "value": value} for place, value in enumerate(values)]
    sizes = []

    def predict(batch, inputs):
        assert [item["value"] for item in batch] == inputs
        sizes.append(len(inputs))
        return [pl.DataFrame({"double": [2 * value]}) for value in inputs]

    answers = predict_in_batches(items, read, predict, batch_size)
    assert sum(sizes) == 5
    assert all(size == batch_size for size in sizes[:-1])
    for place, (value, answer) in enumerate(zip(values, answers, strict=True)):
        if value is None:
            assert str(answer) == f"{place}.png: is empty"
        else:
            assert answer["double"].to_list() == [2 * value]


def test_a_batch_that_answers_for_too_few_items_is_an_error():
    items = [{"file": "a", "value": 1}, {"file": "b", "value": 2}]
    with pytest.raises(ValueError, match="shorter"):
        predict_in_batches(items, read, lambda batch, inputs: [pl.DataFrame()], 2)


def test_no_readable_item_means_no_batch():
    items = [{"file": "a", "value": None}]
    (answer,) = predict_in_batches(items, read, lambda batch, inputs: pytest.fail("called"), 2)
    assert isinstance(answer, InputError)
