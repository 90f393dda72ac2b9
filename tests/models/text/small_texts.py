"""Small texts with all that stands beside them, and an encoder that mixes nothing."""

from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

WORDS, TERMS, NUMBERS, WIDTH = 11, 7, 5, 16
M = TypeVar("M", bound=nn.Module)


class SmallEncoder(nn.Module):
    """A vector for each word, 0 at padding."""

    width = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.words(ids) * mask[..., None]


class Texts(NamedTuple):
    """Inputs of a model of texts, in their order."""

    tokens: Tensor
    mask: Tensor
    features: Tensor
    amounts: Tensor
    table: Tensor
    source: Tensor

    def rows(self, chosen: slice) -> "Texts":
        return Texts(*(values[chosen] for values in self))

    def padded(self, tokens: int) -> "Texts":
        """With so many more tokens and features that are not there, and are not 0 either."""
        ids = nn.functional.pad(self.tokens, (0, tokens), value=WORDS - 1)
        features = nn.functional.pad(self.features, (0, 2), value=TERMS - 1)
        return self._replace(
            tokens=ids,
            mask=nn.functional.pad(self.mask, (0, tokens)),
            features=features,
            amounts=nn.functional.pad(self.amounts, (0, 2)),
        )


def some_texts(
    lengths: tuple[int, ...] = (4, 1, 6, 3), *, sources: int = 3, seed: int = 0
) -> Texts:
    """Texts of such lengths; their sources are 0, 1, ... in turn, up to an unknown one."""
    generator = torch.Generator().manual_seed(seed)
    count, longest = len(lengths), max(lengths, default=0)
    ends = torch.tensor(lengths, dtype=torch.int64)
    return Texts(
        torch.randint(1, WORDS, (count, longest), generator=generator),
        torch.arange(longest) < ends[:, None],
        torch.randint(0, TERMS, (count, 3), generator=generator),
        torch.rand(count, 3, generator=generator),
        torch.randn(count, NUMBERS, generator=generator),
        torch.arange(count) % (sources + 1),
    )


def with_random_weights(model: M, seed: int = 1) -> M:
    """The same model with no weight at 0, in evaluation and float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in [*model.parameters(), *model.buffers()]:
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    return model.double().eval()


def answers(model: nn.Module, texts: Texts) -> Tensor:
    """(B, L) of a model in float64."""
    doubled = texts._replace(amounts=texts.amounts.double(), table=texts.table.double())
    return cast(Tensor, model(*doubled))
