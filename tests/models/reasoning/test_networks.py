"""Networks that read a rule and a scene: padding and order change nothing, sizes are equal, the
attention is that of the objects; and the answers that look at no scene.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headwise.data.trials.coding import coded
from headwise.data.trials.generate import trial
from headwise.data.trials.kinds import TrialKind
from headwise.data.trials.trial import NODES, OPERATORS, levels_of, question_place, switch_place
from headwise.models.attention import names_with
from headwise.models.moe import MoE
from headwise.models.reasoning.networks import REASONERS, ReasonerOptions, build_reasoner
from headwise.models.reasoning.simple import BlendedAnswers, ConstantAnswer, ConstantByForm
from headwise.models.reasoning.size import parameters_of, width_for
from headwise.models.reasoning.tokens import MOST_NODES, tree_tables

SMALL = ReasonerOptions(width=16, heads=2, latents=4)
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def arrays(kind=None, count=6, start=0):
    kind = kind or TrialKind("repaired", (1, 3, 5), 0, 8)
    made = [trial(kind, 3, 1, start + index) for index in range(count)]
    rules, scenes, answers = coded(made)
    return torch.from_numpy(rules), torch.from_numpy(scenes), torch.from_numpy(answers)


def network(name, **options):
    torch.manual_seed(0)
    return build_reasoner(name, replace(SMALL, **options)).eval()


@pytest.mark.parametrize("name", REASONERS)
def test_padding_changes_nothing(name):
    model, (rules, scenes, _) = network(name), arrays()
    together = model(rules, scenes)
    assert together.shape == (6, 138)
    for row in range(6):
        nodes, objects = int((rules[row, :, 0] > 0).sum()), int((scenes[row, :, 0] > 0).sum())
        alone = model(rules[row : row + 1, :nodes], scenes[row : row + 1, : max(1, objects)])
        torch.testing.assert_close(together[row : row + 1], alone, **CLOSE)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", [name for name in REASONERS if name != "recurrent"])
def test_the_order_of_the_objects_changes_nothing(name, mask):
    model, (rules, scenes, _) = network(name, tree=mask), arrays()
    # Empty places among the objects are as good as at the end.
    order = torch.randperm(scenes.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(rules, scenes[:, order]), model(rules, scenes), **CLOSE)


@pytest.mark.parametrize("name", REASONERS)
def test_the_answer_depends_on_rule_and_scene(name):
    model, (rules, scenes, _) = network(name), arrays(TrialKind("repaired", (3,), 4, 8), 4)
    logits = model(rules, scenes)
    for rows in ((rules.roll(1, 0), scenes), (rules, scenes.roll(1, 0))):
        assert ((model(*rows) - logits).abs().amax(1) > 1e-4).all()
    second = rules.clone()
    second[:, 0, 0], second[:, 0, 3:] = 5, torch.tensor([4, 7])
    swapped = second.clone()
    swapped[:, 0, 1:3], swapped[:, 0, 3:] = second[:, 0, 3:], second[:, 0, 1:3]
    assert ((model(second, scenes) - model(swapped, scenes)).abs().amax(1) > 1e-5).all()


@pytest.mark.parametrize("name", REASONERS)
def test_all_weights_learn(name):
    model, (rules, scenes, answers) = network(name).train(), arrays(count=32)
    torch.nn.functional.cross_entropy(model(rules, scenes), answers).backward()
    still = [key for key, weight in model.named_parameters() if weight.grad is None]
    assert not still
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("name", REASONERS)
def test_an_empty_scene_gives_finite_answers_and_gradients(name):
    model, (rules, scenes, answers) = network(name), arrays()
    loss = torch.nn.functional.cross_entropy(model(rules, torch.zeros_like(scenes)), answers)
    loss.backward()
    assert loss.isfinite()
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", REASONERS)
def test_networks_of_one_size_differ_by_a_few_percent(name):
    options = ReasonerOptions(heads=2)
    for parameters in (60_000, 150_000):
        width = width_for(name, options, parameters)
        count = parameters_of(name, replace(options, width=width))
        assert count == sum(w.numel() for w in network(name, width=width, latents=16).parameters())
        assert abs(count / parameters - 1) < 0.08


def test_counting_parameters_draws_nothing():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    width_for("cross", replace(SMALL, attention="moh"), 30_000)
    assert torch.equal(torch.rand(3), expected)


def test_a_size_that_no_width_gives_is_refused():
    with pytest.raises(ValueError, match=r"has .* parameters at least"):
        width_for("cross", ReasonerOptions(heads=8), 1000)


def test_latents_of_the_perceiver_are_distinct():
    latents = network("perceiver").latents
    assert torch.cdist(latents, latents)[~torch.eye(4, dtype=torch.bool)].min() > 0.5


@pytest.mark.parametrize("name", [name for name in REASONERS if name != "recurrent"])
def test_attention_is_on_objects_that_are_there(name):
    model, (rules, scenes, _) = network(name), arrays(TrialKind("repaired", (3,), 1, 8))
    looks = model.attended(rules, scenes)
    assert looks
    for weights in looks.values():
        assert weights.shape == scenes.shape[:2]
        assert (weights >= 0).all()
        assert not weights[scenes[..., 0] == 0].any()
        total = weights.sum(1)
        if name == "cross":
            torch.testing.assert_close(total, torch.ones(6))
        assert (total <= 1 + 1e-5).all()


def test_a_network_without_attention_says_so():
    rules, scenes, _ = arrays()
    with pytest.raises(ValueError, match="RecurrentReasoner has no attention weights"):
        network("recurrent").attended(rules, scenes)
    with pytest.raises(ValueError, match="has no attention weights"):
        network("cross", attention="star").attended(rules, scenes)


def test_attention_follows_a_key_that_is_made_to_stand_out():
    model, (rules, scenes, _) = network("cross"), arrays(TrialKind("repaired", (1,), 4, 8))
    with torch.no_grad():
        for layer in model.layers:
            parameters = dict(layer.layer.mixer.named_parameters())
            for weight in parameters.values():
                weight.mul_(20)
    sharp = model.attended(rules, scenes)["layer 1, answer"]
    assert sharp.amax(1).mean() > 0.6


@pytest.mark.parametrize("name", names_with("context"))
def test_mechanisms_that_take_a_context_fit_the_cross_network(name):
    model, (rules, scenes, answers) = network("cross", attention=name), arrays()
    torch.nn.functional.cross_entropy(model(rules, scenes), answers).backward()


def test_experts_and_gated_networks_are_taken_and_grids_refused():
    rules, scenes, _ = arrays()
    assert any(isinstance(part, MoE) for part in network("single", ffn="moe").modules())
    assert network("double", ffn="glu")(rules, scenes).isfinite().all()
    for wrong, message in {
        "tap": "takes no context|is for grids",
        "squeeze": "takes no context",
    }.items():
        with pytest.raises(ValueError, match=message):
            network("cross", attention=wrong)
    with pytest.raises(ValueError, match="is for grids"):
        network("single", attention="tap")
    with pytest.raises(ValueError, match="grid"):
        network("cross", ffn="convglu")
    with pytest.raises(ValueError, match="takes no mask of pairs"):
        network("single", attention="star", tree=True)
    with pytest.raises(ValueError, match="one that joins them"):
        network("double", layers=1)


def branches_of(place):
    """Level, branches on the way and whether it is a switch, by counting."""
    for level in range(4):
        for number in range(2**level):
            way = [1 + int(bit) for bit in f"{number:0{level}b}"] if level else []
            if question_place(level, number) == place:
                return level, way, 0
            if level < 3 and switch_place(level, number) == place:
                return level, way, 1
    raise AssertionError(place)


def test_places_in_the_tree_are_those_of_the_rules():
    places, joined = tree_tables()
    assert places.shape == (MOST_NODES, 5)
    edges = {(k, k) for k in range(MOST_NODES)}
    for place in range(MOST_NODES):
        level, way, is_switch = branches_of(place)
        assert places[place].tolist() == [level, *way, *[0] * (3 - level), is_switch]
    for level in range(3):
        for number in range(2**level):
            here, switch = question_place(level, number), switch_place(level, number)
            below = [question_place(level + 1, 2 * number + k) for k in (0, 1)]
            for first, second in [(here, switch), *((switch, place) for place in below)]:
                edges |= {(first, second), (second, first)}
    assert {tuple(pair) for pair in joined.nonzero().tolist()} == edges


def test_a_tree_mask_keeps_a_node_from_those_it_is_not_joined_to():
    """With one layer, whose answer token is cut off, the two endings do not see each other."""
    model, kind = network("cross", tree=True), TrialKind("repaired", (3,), 2, 4)
    rules, scenes, _ = arrays(kind)
    nodes, present, _, _ = model.tokens(rules, scenes)
    mask = model.tokens.tree_mask(present)
    changed = nodes.clone()
    changed[:, 4] += 1.0  # the ending for false
    mixer = model.layers[0].within
    difference = (mixer(changed, mask=mask) - mixer(nodes, mask=mask)).abs().amax(-1)
    assert (difference[:, [0, 2, 4]] > 1e-4).all()  # the answer, its switch, itself
    assert (difference[:, [1, 3]] < 1e-6).all()  # the condition, the other ending


def plain_mixture(shares, rule):
    """The answers of a rule, path by path."""
    levels = levels_of(len(rule))

    def mixture(level, number):
        operator = rule[question_place(level, number)]
        if level == levels - 1:
            return shares[operator]
        true = shares[operator, 0] / (shares[operator, 0] + shares[operator, 1])
        branches = mixture(level + 1, 2 * number), mixture(level + 1, 2 * number + 1)
        return true * branches[0] + (1 - true) * branches[1]

    return mixture(0, 0)


def test_constants_by_form_are_the_mixture_of_the_ends():
    model, generator = ConstantByForm(), np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(138), len(OPERATORS) + 1)
    model.shares = torch.from_numpy(shares).float()
    for depth in NODES:
        kind = TrialKind("repaired", (depth,))
        rules, scenes, _ = arrays(kind, 5)
        expected = [plain_mixture(shares, rule[:, 0].tolist()) for rule in rules]
        padded = torch.nn.functional.pad(rules, (0, 0, 0, MOST_NODES - rules.shape[1]))
        for inputs in (rules, padded):
            logits = model(inputs, scenes)
            np.testing.assert_allclose(logits.exp().numpy(), np.stack(expected), atol=1e-6)


def test_a_constant_and_a_blend_are_called_as_networks_are():
    rules, scenes, _ = arrays()
    naive, model = ConstantAnswer(), network("cross")
    naive.logits = torch.randn(138)
    assert torch.equal(naive(rules, scenes), naive.logits.expand(6, -1))
    blend = BlendedAnswers(model, naive)
    expected = 0.5 * model(rules, scenes).softmax(1) + 0.5 * naive.logits.softmax(0)
    torch.testing.assert_close(blend(rules, scenes).exp(), expected, **CLOSE)
