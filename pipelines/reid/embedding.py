"""Pictures to vectors and classes, by DCAL or by what was chosen in its place.

Shapes: n pictures of a part, B of a batch, E numbers of a vector, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ...models.vision.cca import ConditionalEmbedder
from ...models.vision.dcal import DCAL, HEADS, Heads
from ...models.vision.frozen import FrozenLinear
from ...models.vision.picture_rungs import BLENDS, frozen_outputs
from ...models.vision.picture_rungs import outputs as outputs_of_any
from ..engine.command_line.terminal import Progressbar
from ..engine.frozen import frozen_features
from ..engine.pipeline import Batch
from ..engine.training import order
from ..engine.training.wrapped import call
from .augment import centre_of, normalise
from .options import ReidOptions
from .pictures import Pictures, Size

Outputs = Mapping[str, np.ndarray]
CENTRING_PICTURES = 2000  # of the training part, by which vectors are centred


class Centres:
    """The pictures of a part as the model meets them: uint8 (3, *size)."""

    def __init__(self, part: Pictures, size: Size) -> None:
        self.part, self.size = part, size

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> Tensor:
        return centre_of(self.part.image(index), self.size)


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
    """`vectors` of normalised pictures (B, E), and `probability` (B, K) if the model names classes.

    condition: int64 (B,), for a model of attributes; without it vectors are of all conditions.
    """
    if isinstance(model, ConditionalEmbedder):
        return {"vectors": model(images) if condition is None else model.embed(images, condition)}
    return outputs_of_any(model, images)


def embed(model: nn.Module, batches: Iterable[Batch], size: Size) -> dict[str, np.ndarray]:
    """vectors (n, E), label, camera, condition and index (n,), and probability (n, K) of a model of
    classes; nothing for no batches."""
    return embed_each({"model": model}, batches, size)["model"]


@torch.no_grad()
def embed_each(
    models: Mapping[str, nn.Module],
    batches: Iterable[Batch],
    size: Size,
    features: np.ndarray | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """`embed` by each model; a blend of "model" and "simple" is made of their outputs, where both
    are among the models.

    features: (n, D) of the frozen encoder, by `index` of the batches; None: computed.
    """
    columns: dict[str, dict[str, list[Tensor]]] = {name: {} for name in models}
    for batch in batches:
        same = {name: batch[name] for name in ("label", "camera", "condition", "index")}
        images = normalise(batch["image"], size)
        results: dict[str, dict[str, Tensor]] = {}
        for name, model in models.items():
            if isinstance(model, BLENDS) and {"model", "simple"} <= results.keys():
                results[name] = model.join(results["model"], results["simple"])
            elif isinstance(model, FrozenLinear) and features is not None:
                rows = torch.from_numpy(features[batch["index"].cpu().numpy()])
                results[name] = frozen_outputs(model, rows.to(images.device))
            else:
                results[name] = call(model, outputs, images, batch["condition"])
            for column, value in {**same, **results[name]}.items():
                columns[name].setdefault(column, []).append(value.cpu())
    return {
        name: {column: torch.cat(values).numpy() for column, values in parts.items()}
        for name, parts in columns.items()
    }


def embed_part(
    model: nn.Module, part: Pictures, options: ReidOptions, device: torch.device
) -> dict[str, np.ndarray]:
    """`embed` over a part, with a progress bar."""
    if not isinstance(model, BLENDS):
        return embed_rungs({"model": model}, part, options, device)["model"]
    models = {"model": model.model, "simple": model.simple, "blend": model}
    return embed_rungs(models, part, options, device)["blend"]


@torch.no_grad()
def mean_vectors(
    model: DCAL, part: Pictures, options: ReidOptions, device: torch.device
) -> dict[Heads, Tensor]:
    """The mean vector of a part for each choice of heads, by pictures evenly spaced in it."""
    places = np.arange(len(part))
    if len(part) > CENTRING_PICTURES:
        places = np.linspace(0, len(part) - 1, CENTRING_PICTURES).astype(int)
    some = Pictures(part.source, part.rows[places], part.labels[places])
    trained, means = model.heads, dict[Heads, Tensor]()
    model.set_centres(dict.fromkeys(HEADS))  # of a model that had some already
    try:
        for model.heads in HEADS:
            vectors = embed_part(model, some, options, device)["vectors"]
            means[model.heads] = torch.from_numpy(vectors.mean(0))
    finally:
        model.heads = trained
    return means


def embed_rungs(
    models: Mapping[str, nn.Module], part: Pictures, options: ReidOptions, device: torch.device
) -> dict[str, dict[str, np.ndarray]]:
    """`embed_each` over a part; features of a frozen encoder are computed once for a picture, and
    kept on disk.
    """
    features = None
    for model in models.values():
        if isinstance(model, FrozenLinear):
            features = frozen_features(Centres(part, options.size), model.encoder, device=device)
    lists = order.sequential(len(part), options.batch_size)
    loader = order.loader(part, lists, device=device, workers=options.workers)

    def batches() -> Iterator[Batch]:
        with Progressbar(total=len(part), unit="picture", desc="embed") as bar:
            for batch in loader:
                yield batch
                bar.update(len(batch["index"]))

    return embed_each(models, batches(), options.size, features)
