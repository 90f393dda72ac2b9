"""What all models of texts are called with.

Shapes: B texts, N tokens, K tokens of knowledge, F features of a text (filled up), T numbers of the
table beside it, L outputs: labels, classes, or one number.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from torch import Tensor, nn


class TextInputs(NamedTuple):
    """A batch of texts.

    tokens (B, N) int64, mask (B, N) bool: ids of tokens and which are there; features (B, F) int64,
    amounts (B, F): which counted features a text has and how much of each, 0 where filled up; table
    (B, T): numbers of the row beside the text; source (B,) int64: where it comes from; knowledge
    (B, K) int64, knowledge_mask (B, K) bool: tokens of what is known about it, None for models that
    read none.
    """

    tokens: Tensor
    mask: Tensor
    features: Tensor
    amounts: Tensor
    table: Tensor
    source: Tensor
    knowledge: Tensor | None = None
    knowledge_mask: Tensor | None = None

    @property
    def places(self) -> int:
        """N + K: tokens of a text and then of the knowledge about it, filled up."""
        return self.tokens.shape[1] + (0 if self.knowledge is None else self.knowledge.shape[1])


class TextModel(nn.Module):
    """Base of the models of texts. It is called with the tensors one by one, which exported
    programs have as their arguments; what it answers is `answer`.
    """

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        features: Tensor,
        amounts: Tensor,
        table: Tensor,
        source: Tensor,
        knowledge: Tensor | None = None,
        knowledge_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, L)."""
        beside = table, source, knowledge, knowledge_mask
        return self.answer(TextInputs(tokens, mask, features, amounts, *beside))

    def answer(self, x: TextInputs) -> Tensor:
        """Logits, or a scaled number, (B, L)."""
        raise NotImplementedError


Linear = TypeVar("Linear", bound=TextModel | None)


class CorrectingModel(TextModel, Generic[Linear]):
    """Base of the models that correct a linear one: its logits and the change are summed.

    The change is learned beside logits of the linear model that a text had no part in.
    """

    linear: Linear

    def answer(self, x: TextInputs) -> Tensor:
        """As of `TextModel`; the change alone where there is no linear model."""
        change = self.change(x)
        return change if self.linear is None else self.linear(*x) + change

    def corrected(self, base: Tensor, *inputs: Tensor) -> Tensor:
        """(B, L), with other logits (B, L) in place of the linear model's; inputs: as a call's."""
        return base + self.change(TextInputs(*inputs))

    def change(self, x: TextInputs) -> Tensor:
        """What is added to the logits of the linear model, (B, L)."""
        raise NotImplementedError
