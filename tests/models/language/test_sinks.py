"""Sinks that were planted are found, and figures are those of a plain formula."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headwise.models.language.analysis.sink_kinds import (
    Sink,
    TextFigures,
    find_sinks,
    official_sinks,
    runs,
)
from headwise.models.language.analysis.sinks import (
    first_places,
    measure_sinks,
    rank_correlation,
    removal_test,
    run_decoder,
    state_figures,
    without_written,
    writer_of,
    writing_layers,
)
from headwise.tests.models.language.tiny_models import shared_model, tiny_model
from headwise.tests.models.language.watched_models import padded_ids, plain_maps

TOKENS, WIDTH = 96, 24
EARLY, COMPANION, SECONDARY, OTHER = 11, 30, 47, 60


def planted(
    layers: int, *, shared: float = 0.0, rotate: bool = False, scale: float = 1.0
) -> TextFigures:
    """Figures of a residual stream with one sink of each kind.

    Token 0 takes over in the third of the layers that begins at `layers` / 3; shared: length of a
    direction that all states have, beside random ones of length 1.
    """
    generator = torch.Generator().manual_seed(layers)
    states = torch.randn(layers, TOKENS, WIDTH, generator=generator) / WIDTH**0.5
    states += shared * torch.nn.functional.normalize(torch.ones(WIDTH), dim=0)
    direction = torch.nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)
    begin, end = layers // 3, layers - 1
    middle = begin + max(2, (end - begin) // 2)
    mass = torch.full((layers, TOKENS), 0.002)
    mass[:, -1] = torch.nan  # no later token
    for place, first, last, length in (
        (0, begin, end, 40.0), (COMPANION, begin, end, 20.0), (SECONDARY, middle, end, 12.0),
    ):  # fmt: skip
        states[first:last, place] += length * (1 + shared) * direction
        mass[first + 1 : last + 1, place] = length / 100
    mass[: begin + 1, EARLY] = 0.3
    mass[begin + 1 :, OTHER] = 0.13
    if rotate:
        turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
        states = states @ turn
    return figures_of(states * scale, mass)


def figures_of(states: Tensor, mass: Tensor) -> TextFigures:
    """The figures of a stream (L, T, D) whose candidate is token 0 and whose MLPs write it all."""
    layers = len(states)
    present = torch.ones(layers, TOKENS, dtype=torch.bool)
    read = state_figures(states, present, torch.zeros(layers, 1, dtype=torch.int64))
    later = torch.arange(TOKENS - 1, -1, -1).float().expand(layers, -1)
    even = (1 / torch.arange(1, TOKENS + 1)).flip(0).cumsum(0).flip(0)
    uniform = ((even - 1 / torch.arange(1, TOKENS + 1)) / later.clamp(min=1)).expand(layers, -1)
    written = states.diff(dim=0, prepend=torch.zeros_like(states[:1]))
    return TextFigures(
        mass=mass,
        uniform=uniform,
        later=later,
        norm=read.norm,
        cosine=read.cosine[:, 0],
        centred=read.centred[:, 0],
        reference=0,
        mlp_norm=written.norm(dim=-1),
        mlp_cosine=torch.cosine_similarity(written, written[:, :1], dim=-1),
        mlp_share=torch.ones(layers, TOKENS),
        value_norm=torch.ones(layers, TOKENS),
        last_norm=read.norm[-1],
        last_cosine=read.cosine[-1, 0],
    )


def expected(layers: int) -> dict[int, tuple[str, int, int]]:
    """Kind, first and last layer of the direction."""
    begin, end = layers // 3, layers - 1
    return {
        0: ("primary", begin, end - 1),
        COMPANION: ("companion", begin, end - 1),
        SECONDARY: ("secondary", begin + max(2, (end - begin) // 2), end - 1),
    }


@pytest.mark.parametrize("shared", [0.0, 5.0])
@pytest.mark.parametrize("layers", [6, 12, 18, 24, 48])
def test_planted_sinks_and_no_others_are_of_their_kind_at_any_number_of_layers(
    layers: int, shared: float
) -> None:
    sinks = {sink.place: sink for sink in find_sinks(planted(layers, shared=shared))}
    assert set(sinks) == {0, EARLY, COMPANION, SECONDARY, OTHER}
    assert sinks[EARLY].kind == "early"
    assert sinks[OTHER].kind == "other"
    for place, (kind, first, last) in expected(layers).items():
        sink = sinks[place]
        assert (sink.kind, sink.carrying[0], sink.carrying[-1]) == (kind, first, last)
        assert sink.writer == first
        assert sink.drawing == tuple(range(first + 1, last + 2))


@pytest.mark.parametrize("shared", [0.0, 5.0])
def test_kinds_do_not_change_where_the_stream_is_rotated_or_scaled(shared: float) -> None:
    plain = find_sinks(planted(12, shared=shared))
    for rotate, scale in ((True, 1.0), (False, 1e-3), (True, 1e4)):
        again = find_sinks(planted(12, shared=shared, rotate=rotate, scale=scale))
        assert again == plain


def test_the_published_rule_cannot_find_a_secondary_sink_in_fewer_than_21_layers() -> None:
    for layers in range(6, 40):
        found_by_rule = official_sinks(planted(layers))
        assert found_by_rule.can_fire == (layers >= 21)
        if layers < 21:
            assert found_by_rule.of_kind("secondary") == []
    assert official_sinks(planted(30)).of_kind("secondary") == [SECONDARY]
    assert official_sinks(planted(30)).of_kind("bos_sink") == [COMPANION]


def test_the_published_rule_takes_every_token_for_a_sink_where_all_states_share_a_direction(
) -> None:  # fmt: skip
    layers = 12
    figures = planted(layers, shared=5.0)
    states = torch.full((layers, TOKENS), 0.95)
    crowded = replace(figures, cosine=states, last_cosine=states[-1])
    by_rule = official_sinks(crowded)
    assert len(by_rule.of_kind("bos_sink")) == TOKENS - 1
    assert [s.place for s in find_sinks(crowded)] == [0, EARLY, COMPANION, SECONDARY, OTHER]


def test_the_window_of_the_published_rule_is_from_the_largest_jump_to_the_largest_fall() -> None:
    figures = planted(30)
    norm = torch.ones(30, TOKENS)
    norm[:, 0] = torch.tensor([1.0] * 7 + [50.0] * 10 + [45.0] * 5 + [2.0] * 8)
    assert official_sinks(replace(figures, norm=norm, last_norm=norm[-1])).window == (7, 22)
    # The published code reads the last state after the final normalisation.
    normed = replace(figures, norm=norm, last_norm=norm[-1] - 48)
    assert official_sinks(normed).window == (7, 29)


def test_a_text_without_a_sink_has_none() -> None:
    figures = planted(12)
    even = replace(figures, mass=figures.uniform.clone())
    assert find_sinks(even) == []
    tall = figures.mass.clone()
    tall[:, TOKENS - 3] = 0.5  # two later tokens: what neighbours give
    assert TOKENS - 3 not in [sink.place for sink in find_sinks(replace(figures, mass=tall))]


def test_without_a_massive_first_token_no_sink_is_called_primary() -> None:
    figures = planted(12)
    flat = replace(figures, norm=torch.ones_like(figures.norm))
    assert {sink.kind for sink in find_sinks(flat)} == {"other"}


def test_the_threshold_of_the_mass_decides_what_a_sink_is() -> None:
    def places(least: float) -> set[int]:
        return {sink.place for sink in find_sinks(planted(12), least)}

    assert OTHER in places(0.05)
    assert OTHER not in places(0.15)
    assert places(0.25) == {0, EARLY}


def test_stretches_of_true_values() -> None:
    assert runs([False, True, True, False, True]) == [range(1, 3), range(4, 5)]
    assert runs([]) == []


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_figures_of_a_padded_batch_are_those_of_the_plain_formula(kind: str, side: str) -> None:
    model, (ids, present) = shared_model(kind), padded_ids(side)
    texts = measure_sinks(model, ids, present)
    for row, figures in enumerate(texts):
        text = ids[row, present[row]]
        with torch.no_grad():
            result = model(text[None], output_hidden_states=True, use_cache=False)
        states = [state[0] for state in result.hidden_states]  # the last one is normalised
        reference = figures.reference
        assert reference in (0, 1, 2)
        for layer in range(2):
            state = states[layer + 1]
            others = torch.cat([state[:reference], state[reference + 1 :]]).mean(0)
            centred = torch.cosine_similarity(state - others, (state - others)[reference], dim=-1)
            plain = torch.cosine_similarity(state, state[reference], dim=-1)
            torch.testing.assert_close(
                figures.norm[layer], state.norm(dim=-1), atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(figures.cosine[layer], plain, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(figures.centred[layer], centred, atol=1e-4, rtol=1e-4)
            maps = plain_maps(model, text[None])[layer][0].mean(0)
            first = maps[1 : (figures.later[layer, 0].int() + 1), 0].mean()
            torch.testing.assert_close(figures.mass[layer, 0], first, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(figures.last_norm, states[-1].norm(dim=-1), atol=1e-4, rtol=1e-4)


def test_what_a_layer_adds_is_what_its_attention_and_its_mlp_add() -> None:
    model = shared_model("gemma3")
    ids = padded_ids()[0][:1]
    figures = measure_sinks(model, ids)[0]
    seen_by_hook = {}
    layer = model.model.layers[1]
    handles = [
        writer_of(layer).register_forward_hook(lambda m, a, r: seen_by_hook.update(mlp=r[0])),
        layer.register_forward_hook(
            lambda m, a, r: seen_by_hook.update(change=(r[0] if isinstance(r, tuple) else r) - a[0])
        ),
    ]
    run_decoder(model, ids, torch.ones_like(ids, dtype=torch.bool))
    for handle in handles:
        handle.remove()
    mlp, change = seen_by_hook["mlp"], seen_by_hook["change"][0]
    share = (mlp * change).sum(-1) / (change * change).sum(-1)
    torch.testing.assert_close(figures.mlp_share[1], share, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(figures.mlp_norm[1], mlp.norm(dim=-1), atol=1e-4, rtol=1e-4)


def test_the_first_real_tokens_are_the_candidates() -> None:
    present = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]]).bool()
    assert first_places(present).tolist() == [[2, 3, 4], [0, 1, 2], [5, 5, 5]]
    with pytest.raises(ValueError, match="no token"):
        first_places(torch.zeros(1, 4, dtype=torch.bool))


def test_removing_makes_a_state_like_the_mean_along_the_direction_and_changes_nothing_else() -> (
    None
):
    model = shared_model("llama")
    ids = padded_ids()[0][:1]
    written: list[Tensor] = []
    states: list[Tensor] = []
    layer = model.model.layers[1]
    present = torch.ones_like(ids, dtype=torch.bool)
    places = torch.zeros_like(present)
    places[0, 9] = True
    record = [
        layer.mlp.register_forward_hook(lambda m, a, r: written.append(r[0].detach().clone())),
        layer.register_forward_hook(lambda m, a, r: states.append(r[0].detach().clone())),
    ]
    before = run_decoder(model, ids, present)
    with without_written(model, [1], places, torch.tensor([2])):
        run_decoder(model, ids, present)
        after = run_decoder(model, ids, present)  # a second call is as the first
    assert torch.equal(states[1], states[2])
    direction = written[0][2] / written[0][2].norm()
    along = [state @ direction for state in states]
    ordinary = torch.cat([along[0][:2], along[0][3:]]).mean()
    assert abs(float(along[0][9] - ordinary)) > 1e-2
    torch.testing.assert_close(along[1][9], ordinary, atol=1e-4, rtol=1e-4)
    change = states[1][9] - states[0][9]
    torch.testing.assert_close(change, (change @ direction) * direction, atol=1e-5, rtol=1e-4)
    rest = torch.arange(20) != 9
    assert torch.equal(states[1][rest], states[0][rest])
    assert torch.equal(before[0, :9], after[0, :9])  # tokens before it do not see it
    assert not torch.equal(before[0, 9], after[0, 9])
    for hook in record:
        hook.remove()
    assert torch.equal(run_decoder(model, ids, present), before)  # the hooks are gone


def test_removing_the_direction_lowers_the_mass_and_leaves_the_order_of_the_others() -> None:
    model, ids = sink_model(), torch.arange(3, 43)
    figures = measure_sinks(model, ids[None])[0]
    sink = next(sink for sink in find_sinks(figures) if sink.place == MARKED)
    assert (sink.kind, sink.writer, sink.carrying) == ("companion", 1, (1, 2))
    removal = removal_test(model, ids, figures, sink)
    assert removal is not None
    assert removal.layers == (1,)
    assert removal.without < 0.2 * removal.mass
    assert removal.order > 0.7  # the others have nearly equal masses
    no_direction = replace(sink, carrying=())
    assert removal_test(model, ids, figures, no_direction) is None


MARKED = 15  # place of the token that gets a sink's state


def sink_model() -> PreTrainedModel:
    """A random model whose second MLP writes a long vector into the first token and the one at
    `MARKED`, and whose next layer attends to whatever has that vector.
    """
    model = tiny_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 1e30})
    marks, towards = 0, 1  # numbers of the stream: what the MLP reads, and where it writes
    with torch.no_grad():
        for layer in model.model.layers:
            for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
                part.weight.mul_(0.05)
        model.model.embed_tokens.weight[:, :2] = 0
        model.model.embed_tokens.weight[[3, 3 + MARKED], marks] = 8.0
        writing = model.model.layers[1].mlp
        for part in (writing.gate_proj, writing.up_proj):
            part.weight[0] = 0
            part.weight[0, marks] = 3.0
        writing.down_proj.weight[:, 0] = 0
        writing.down_proj.weight[towards, 0] = 1.0
        # All queries have one direction, which is also that of the keys of written states.
        reading = model.model.layers[2].self_attn
        reading.q_proj.weight.mul_(0.02)
        reading.k_proj.weight.mul_(0.02)
        for head in range(6):
            reading.q_proj.weight[head * 8 + 7] = 0.0
            reading.q_proj.weight[head * 8 + 7, 2] = 4.0
        for head in range(3):
            reading.k_proj.weight[head * 8 + 7, towards] = 3.0
        model.model.embed_tokens.weight[:, 2] = 2.0
    return model


def test_layers_write_a_sink_where_their_mlp_adds_much_in_the_direction_of_the_primary() -> None:
    figures = planted(12)
    assert writing_layers(figures, COMPANION)[0] == 12 // 3
    assert 12 // 3 not in writing_layers(figures, OTHER)


def test_rank_correlation_is_that_of_ranks() -> None:
    first = torch.tensor([[0.1, 0.4, 0.2, torch.nan], [1.0, 2.0, 3.0, 4.0]])
    second = torch.tensor([[5.0, 9.0, 7.0, 1.0], [8.0, 6.0, 4.0, 1.0]])
    torch.testing.assert_close(
        rank_correlation(first, second), torch.tensor([1.0, -1.0], dtype=torch.float64)
    )


def test_a_sink_is_listed_with_the_most_that_a_layer_gives_it() -> None:
    sink: Sink = next(s for s in find_sinks(planted(12)) if s.place == SECONDARY)
    assert sink.mass == pytest.approx(0.12)
