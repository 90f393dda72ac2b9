"""Gates of several tasks, heads for classes of different frequency, low-rank experts: against
loops.
"""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headwise.models.moe.diverse import DiverseHead, adjusted, consistency_loss, diversity_loss
from headwise.models.moe.lora import MoELoRA
from headwise.models.moe.multi_gate import LayeredExtraction, MultiGate, TaskExpertLayer

FLOAT64 = torch.float64


def run(experts, e: int, x: Tensor) -> Tensor:
    h = experts.up[e] @ x + experts.up_bias[e]
    h = F.relu(h) if experts.activation == "relu" else F.gelu(h)
    return experts.down[e] @ h + experts.down_bias[e]


@torch.no_grad()
def test_multi_gate_is_the_sum_by_loops() -> None:
    torch.manual_seed(0)
    model, x = MultiGate(5, 3, experts=4).double(), torch.randn(2, 6, 5, dtype=FLOAT64)
    out = model(x)
    for s in range(3):
        share = (model.gates[s] @ x[1, 4]).softmax(0)
        expected = sum(share[e] * run(model.experts, e, x[1, 4]) for e in range(4))
        torch.testing.assert_close(out[1, 4, s], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.shares(x).sum(-1), torch.ones(2, 6, 3, dtype=FLOAT64))


@torch.no_grad()
def test_extraction_is_the_sum_by_loops() -> None:
    torch.manual_seed(1)
    model, x = (
        LayeredExtraction(5, 2, depth=2, per_task=2, shared=3).double(),
        torch.randn(4, 5, dtype=FLOAT64),
    )
    inputs = [x[0]] * 3
    for layer in model.layers:
        special = [[run(layer.special[s], e, inputs[s]) for e in range(2)] for s in range(2)]
        common = [run(layer.common, e, inputs[2]) for e in range(3)]
        features = []
        for s in range(2):
            share = (layer.gates[s].weight @ inputs[s]).softmax(0)
            features.append(sum(w * y for w, y in zip(share, special[s] + common)))
        if layer.gate is not None:
            share = (layer.gate.weight @ inputs[2]).softmax(0)
            features.append(sum(w * y for w, y in zip(share, special[0] + special[1] + common)))
        inputs = features
    torch.testing.assert_close(model(x)[0], torch.stack(inputs), rtol=1e-12, atol=1e-12)


def test_a_task_trains_only_its_own_experts() -> None:
    model = LayeredExtraction(5, 2, depth=1)
    model(torch.randn(4, 5))[:, 0].sum().backward()
    layer = model.layers[0]
    assert layer.special[0].up.grad.abs().max() > 0
    assert all(p.grad is None or (p.grad == 0).all() for p in layer.special[1].parameters())


class TestTaskExpert:
    def test_it_is_the_written_sum(self) -> None:
        torch.manual_seed(2)
        layer = TaskExpertLayer(4, 2, experts=3).double()
        nn.init.normal_(layer.recall)
        x, memory = torch.randn(1, 5, 4, dtype=FLOAT64), torch.randn(1, 5, 2, 4, dtype=FLOAT64)
        features, after = layer(x, memory)
        s, n = 1, 3
        share = (layer.gates[s] @ x[0, n] + layer.recall[s] @ memory[0, n, s]).softmax(0)
        expected = sum(share[e] * run(layer.experts, e, x[0, n]) for e in range(3)) + share[
            3
        ] * layer.read(memory[0, n, s])
        torch.testing.assert_close(features[0, n, s], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(after, memory + layer.write(features), rtol=1e-12, atol=1e-12)

    def test_a_memory_is_written_by_its_own_task_and_starts_at_zero(self) -> None:
        torch.manual_seed(3)
        layer, x = TaskExpertLayer(4, 3), torch.randn(2, 5, 4)
        empty = layer(x, torch.zeros(2, 5, 3, 4))
        torch.testing.assert_close(layer(x), empty)
        memory = torch.randn(2, 5, 3, 4, requires_grad=True)
        layer(x, memory)[1][:, :, 0].sum().backward()
        assert memory.grad[:, :, 0].abs().max() > 0
        assert (memory.grad[:, :, 1:] == 0).all()

    @torch.no_grad()
    def test_tasks_can_change_places(self) -> None:
        torch.manual_seed(4)
        layer, x, order = TaskExpertLayer(4, 3), torch.randn(2, 5, 4), torch.tensor([2, 0, 1])
        nn.init.normal_(layer.recall)
        memory, changed = torch.randn(2, 5, 3, 4), copy.deepcopy(layer)
        changed.gates.copy_(layer.gates[order])
        changed.recall.copy_(layer.recall[order])
        for a, b in zip(changed(x, memory[:, :, order]), layer(x, memory)):
            torch.testing.assert_close(a, b[:, :, order])


class TestDiverse:
    counts = torch.tensor([1000.0, 100.0, 10.0, 1.0])

    def logits(self) -> Tensor:
        torch.manual_seed(5)
        return torch.randn(3, 12, 4, dtype=FLOAT64, requires_grad=True)

    def test_diversity_is_the_written_sum_and_ignores_the_scale_of_counts(self) -> None:
        logits, labels = self.logits(), torch.randint(0, 4, (12,))
        loss = diversity_loss(logits, labels, self.counts)
        prior = self.counts.double().log()
        expected = sum(
            F.cross_entropy(logits[e] + p * prior, labels) for e, p in enumerate((-0.5, 1.0, 2.5))
        )
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            diversity_loss(logits, labels, self.counts * 7), loss, rtol=1e-10, atol=1e-10
        )
        plain = diversity_loss(logits, labels, self.counts, (0.0, 0.0, 0.0))
        torch.testing.assert_close(plain, sum(F.cross_entropy(part, labels) for part in logits))

    def test_consistency_teaches_from_right_and_weak_views_only(self) -> None:
        weak, strong, labels = (
            self.logits(),
            torch.randn(3, 12, 4, dtype=FLOAT64, requires_grad=True),
            torch.arange(12) % 4,
        )
        loss = consistency_loss(weak, strong, labels, self.counts)
        expected = torch.zeros((), dtype=FLOAT64)
        for e, preference in enumerate((-0.5, 1.0, 2.5)):
            shift = preference * self.counts.double().log()
            rows = [b for b in range(12) if int((weak[e, b] + shift).argmax()) == int(labels[b])]
            for b in rows:
                p, q = (weak[e, b].detach() + shift).softmax(0), (strong[e, b] + shift).softmax(0)
                expected = expected + (p * (p / q).log()).sum() / len(rows)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        assert torch.autograd.grad(loss, weak, retain_graph=True, allow_unused=True)[0] is None
        assert torch.autograd.grad(loss, strong)[0].abs().max() > 0
        same = consistency_loss(weak, weak.detach(), labels, self.counts)
        assert float(same) == pytest.approx(0.0, abs=1e-12)
        sure = F.one_hot((labels + 1) % 4, 4).double().expand(3, -1, -1) * 1e3
        assert consistency_loss(sure, strong, labels, self.counts).item() == 0.0

    def test_head(self) -> None:
        torch.manual_seed(6)
        for hidden in (None, 8):
            head, x = DiverseHead(6, 4, hidden=hidden), torch.randn(5, 6)
            out = head(x)
            assert out.shape == (3, 5, 4)
            assert out.abs().max() <= 30.001
            scaled = head(3 * x)
            assert (hidden is not None) or torch.allclose(scaled, out, atol=1e-4)

    def test_experts_specialise_on_an_uneven_sample(self) -> None:
        """Generated: ten classes that overlap, 200 to 4 examples; tested on the same number of
        each.
        """
        torch.manual_seed(7)
        sizes = (200 * (4 / 200) ** (torch.arange(10) / 9)).round().int()
        centres = 1.3 * torch.randn(10, 8)

        def sample(numbers) -> tuple[Tensor, Tensor]:
            y = torch.repeat_interleave(torch.arange(10), numbers)
            return centres[y] + torch.randn(len(y), 8), y

        x, y = sample(sizes)
        test, truth = sample(torch.full((10,), 200))
        head = DiverseHead(8, 10, scale=16.0)
        optimiser = torch.optim.Adam(head.parameters(), 0.02)
        for _ in range(200):
            optimiser.zero_grad()
            diversity_loss(head(x), y, sizes).backward()
            optimiser.step()
        right = (head(test).argmax(-1) == truth).float().view(3, 10, 200).mean(-1)
        many, few = right[:, :3].mean(1), right[:, -3:].mean(1)
        assert int(many.argmax()) == 0
        assert int(few.argmax()) == 2

    def test_mistakes_are_named(self) -> None:
        with pytest.raises(ValueError, match="has no example"):
            adjusted(self.logits(), torch.tensor([3, 1, 0, 2]))
        with pytest.raises(ValueError, match="needs logits"):
            adjusted(self.logits()[:2], self.counts)


class TestLoRA:
    def test_it_starts_as_the_layer_and_trains_only_what_it_adds(self) -> None:
        torch.manual_seed(8)
        linear = nn.Linear(6, 9).double()
        layer, x = MoELoRA(linear, experts=3, rank=2), torch.randn(2, 5, 6, dtype=FLOAT64)
        torch.testing.assert_close(layer(x), linear(x), rtol=1e-14, atol=0)
        nn.init.normal_(layer.update.down)
        (layer(x).square().sum() + layer.auxiliary).backward()
        assert linear.weight.grad is None
        assert all(
            p.grad is not None
            for p in [*layer.update.parameters(), *layer.router.parameters()]
            if p is not None and p.requires_grad
        )

    @torch.no_grad()
    def test_written_out_and_merged(self) -> None:
        torch.manual_seed(9)
        linear = nn.Linear(6, 9).double()
        layer, x = (
            MoELoRA(linear, experts=3, rank=2, alpha=5.0),
            torch.randn(1, 5, 6, dtype=FLOAT64),
        )
        nn.init.normal_(layer.update.down)
        routing, out = layer.router(x), layer(x)
        for t in range(5):
            expected = linear(x[0, t])
            for w, e in zip(routing.weights[t], routing.experts[t]):
                expected = expected + 2.5 * w * (
                    layer.update.down[e] @ (layer.update.up[e] @ x[0, t])
                )
            torch.testing.assert_close(out[0, t], expected, rtol=1e-12, atol=1e-12)
        single = MoELoRA(linear, experts=1, active=1, rank=2)
        nn.init.normal_(single.update.down)
        torch.testing.assert_close(single.merged(0)(x), single(x), rtol=1e-12, atol=1e-12)

    def test_mistakes_are_named(self) -> None:
        with pytest.raises(ValueError, match="rank must be positive"):
            MoELoRA(nn.Linear(2, 2), rank=0)
