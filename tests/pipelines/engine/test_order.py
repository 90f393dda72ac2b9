"""The order of data is a pure function of seed, epoch and step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise.base.errors import InputError
from headwise.pipelines.engine.training import order

sizes = st.integers(1, 97), st.integers(1, 20), st.integers(1, 5), st.integers(1, 4)


@given(*sizes)
def test_every_sample_once_with_the_weight_of_the_batch_mean(samples, batch, accumulate, world):
    weight_of = np.zeros(samples)
    ranks = [
        order.plan(samples, batch, seed=3, epoch=1, accumulate=accumulate, rank=rank, world=world)
        for rank in range(world)
    ]
    assert len({len(parts) for parts in ranks}) == 1, "all ranks take part in every pass"
    for parts in ranks:
        assert [part.last for part in parts] == [part.last for part in ranks[0]]
        for part in parts:
            # The mean over a part, times its weight, averaged over ranks: each sample of the part
            # counts so much.
            weight_of[part.indices] += part.weight / len(part.indices) / world
    steps = order.count_steps(samples, batch)
    assert sum(part.last for part in ranks[0]) == steps
    expected = np.full(samples, 1 / batch)
    shuffled = [i for part in order.plan(samples, batch, seed=3, epoch=1) for i in part.indices]
    assert sorted(shuffled) == list(range(samples))
    last = shuffled[(steps - 1) * batch :]
    expected[last] = 1 / len(last)
    np.testing.assert_allclose(weight_of, expected, rtol=1e-12)


def test_starting_in_the_middle_gives_the_rest():
    full = order.plan(100, 7, seed=5, epoch=2, accumulate=2)
    rest = order.plan(100, 7, seed=5, epoch=2, accumulate=2, start=4)
    for part, expected in zip(rest, full[len(full) - len(rest) :], strict=True):
        assert (part.indices.tolist(), part.weight, part.last) == (
            expected.indices.tolist(),
            expected.weight,
            expected.last,
        )
    assert sum(part.last for part in rest) == order.count_steps(100, 7) - 4


def test_seed_and_epoch_change_the_order():
    orders = [
        order.plan(50, 50, seed=s, epoch=e)[0].indices.tolist()
        for s, e in [(0, 0), (0, 1), (1, 0), (0, 0)]
    ]
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] != orders[2] != orders[0]


class Pairs:
    """A data set with a sampler of its own: units of two samples."""

    def __len__(self):
        return 12

    def steps(self, batch_size):
        return 12 // batch_size

    def batches(self, batch_size, *, seed, epoch):
        units = np.random.default_rng((seed, epoch)).permutation(6)
        return list(np.stack([2 * units, 2 * units + 1], 1).reshape(-1, batch_size // 2, 2))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_units_of_a_data_sets_own_sampler_stay_together(world, accumulate):
    data = Pairs()
    assert order.count_steps_of(data, 6) == 2
    assert order.count_steps_of(range(13), 6) == 3
    assert order.batches_of(range(13), 6, seed=0, epoch=0) is None
    batches = order.batches_of(data, 6, seed=4, epoch=1)
    steps, weight_of = [[], []], np.zeros(12)
    for rank in range(world):
        step = 0
        for part in order.plan(
            12, 6, seed=4, epoch=1, accumulate=accumulate, rank=rank, world=world, batches=batches
        ):
            assert part.indices.reshape(-1, 2).tolist() == [[a, a + 1] for a in part.indices[::2]]
            steps[step] += part.indices.tolist() if part.weight else []
            weight_of[part.indices] += part.weight / len(part.indices) / world
            step += part.last
    assert [sorted(indices) for indices in steps] == [
        sorted(batch.reshape(-1).tolist()) for batch in batches
    ]
    np.testing.assert_allclose(weight_of, np.full(12, 1 / 6), rtol=1e-12)
    rest = order.plan(12, 6, seed=4, epoch=1, start=1, batches=batches)
    assert [part.indices.tolist() for part in rest] == [batches[1].reshape(-1).tolist()]


class Breaks:
    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 7:
            raise OSError("cannot read it")
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_read_is_named(workers):
    from headwise.pipelines.engine.training.loop import _alive

    loader = order.loader(Breaks(), [[1, 2], [6, 7]], workers=workers)
    with pytest.raises(
        InputError, match=r"samples 6, 7 cannot be read: OSError: cannot read it$"
    ) as caught:
        list(_alive(loader))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
@pytest.mark.parametrize("samples", [0, 1, 5, 64, 65, 127, 129])
def test_scoring_takes_every_sample_once_in_order(samples: int, batch_size: int) -> None:
    lists = order.sequential(samples, batch_size)
    assert [index for indices in lists for index in indices] == list(range(samples))
    assert all(0 < len(indices) <= batch_size for indices in lists)
