"""The models of texts, built from options and spec, and the weights that they begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from ...base.errors import InputError
from ...data.texts.tokens import Tokenizer
from ...data.texts.words import WordTokenizer
from ...models.text.attention import AttentionTexts, HybridTexts, ScaledTexts
from ...models.text.cross import CrossTexts
from ...models.text.encoder import StaticEncoder, TextEncoder, build_text_encoder
from ...models.text.frozen import FrozenEncoder
from ...models.text.label_attention import DiverseLabelAttention, LabelAttention
from ...models.text.linear import LinearTexts
from ...models.text.losses import TextLoss
from ...models.text.sources import SourceLinearTexts, SourcesTexts
from ..engine.mechanisms import mechanism_options
from .coding import description_texts
from .encoders import OpenedEncoder, mean_vectors, open_encoder
from .linear import LinearFit
from .options import TextOptions
from .spec import EncoderFacts, TextSpec

NONE = "none"
HIDE_SOURCE = 0.1  # share of texts whose source is hidden in training


def encoder_of(options: TextOptions, texts: Sequence[str]) -> tuple[EncoderFacts, Tokenizer]:
    """How the encoder of a new run is built, and its tokenizer; texts: of the training part."""
    opened = _opened(options.weights)
    if opened is None:
        tokenizer = WordTokenizer.learn(texts)
        facts = EncoderFacts(
            weights=NONE,
            form="tokens",
            options={"vocabulary": tokenizer.size, "width": options.width},
            window=options.window,
        )
        return facts, tokenizer
    window = min(options.window, opened.most_tokens or options.window)
    if isinstance(opened.encoder, StaticEncoder):
        chosen: dict[str, object] = {"vocabulary": opened.tokenizer.size, "width": opened.width}
        facts = EncoderFacts(weights=opened.name, form="tokens", options=chosen, window=window)
    else:
        chosen = {**opened.encoder.options, "dropout": options.dropout}
        facts = EncoderFacts(
            weights=opened.name, form=opened.encoder.form, options=chosen, window=window
        )
    return facts, opened.tokenizer


def _opened(weights: str) -> OpenedEncoder | None:
    """The pretrained encoder; None for one from scratch."""
    if weights == NONE:
        return None
    return open_encoder(weights, option="--weights")


def _encoder(options: TextOptions, facts: EncoderFacts) -> TextEncoder:
    """The encoder of a spec; layers that are trained from scratch are those of the options."""
    chosen: dict[str, object] = facts["options"]
    if facts["form"] == "tokens":
        chosen = {
            **chosen,
            "heads": options.heads,
            "layers": options.layers,
            "positions": facts["window"],
            "attention": options.attention,
            "options": mechanism_options(options),
            "ffn": options.ffn,
            "dropout": options.dropout,
        }
    return build_text_encoder(facts["form"], chosen)


def build(options: TextOptions, spec: TextSpec) -> nn.Module:
    """The untrained model, which holds its loss. Raises ValueError for options that do not fit
    together.
    """
    model = _built(options, spec)
    counts = torch.tensor(spec.counts)
    model.objective = TextLoss(spec.goal, options.imbalance, counts, spec.input["training_texts"])
    return model


def _built(options: TextOptions, spec: TextSpec) -> nn.Module:
    if options.model == "sparse":
        return ScaledTexts(empty_linear(spec, by_source=spec.by_source), spec.outputs)
    assert spec.encoder is not None
    encoder: TextEncoder | FrozenEncoder
    encoder = _encoder(options, spec.encoder)
    if is_frozen(options, spec.encoder):
        encoder = FrozenEncoder(encoder)
    window = spec.encoder["window"]
    if options.model == "cross":
        return CrossTexts(
            encoder,
            outputs=spec.outputs,
            table=spec.table_width,
            queries=options.queries,
            heads=options.heads,
            attention=options.attention,
            attention_options=mechanism_options(options),
            direction=options.direction,
            dropout=options.dropout,
            window=window,
            linear=empty_linear(spec, by_source=spec.by_source),
            diverse=options.imbalance == "diverse",
        )
    if options.model == "sources":
        return SourcesTexts(
            encoder,
            outputs=spec.outputs,
            sources=len(spec.sources),
            table=spec.table_width,
            prototypes=options.prototypes,
            heads=options.heads,
            attention=options.attention,
            attention_options=mechanism_options(options),
            quality=spec.own_table_width,
            dropout=options.dropout,
            hide_source=HIDE_SOURCE,
            window=window,
            linear=empty_linear(spec, by_source=spec.by_source),
            diverse=options.imbalance == "diverse",
        )
    described = encoder.width if options.label_texts is not None else None
    known = None if spec.knowledge_column is None else encoder.width
    kind = DiverseLabelAttention if options.imbalance == "diverse" else LabelAttention
    head = kind(encoder.width, spec.outputs, descriptions=described, knowledge_width=known)
    network = AttentionTexts(encoder, head, window=window, dropout=options.dropout)
    if options.model == "hybrid":
        for weight in (head.weight, head.knowledge_weight):
            if weight is not None:
                nn.init.zeros_(weight)  # it begins as the linear model
        return HybridTexts(empty_linear(spec, by_source=spec.by_source), network)
    return network


def is_frozen(options: TextOptions, facts: EncoderFacts) -> bool:
    """Whether an encoder stays as it came. Vectors of words are a part of one that is trained."""
    return facts["weights"] != NONE and facts["form"] != "tokens" and options.tune == "none"


def empty_linear(spec: TextSpec, *, by_source: bool) -> LinearTexts:
    """A linear model, not fitted. by_source: whether sources have weights of their own."""
    sizes = spec.terms, spec.outputs, spec.table_width
    if by_source:
        return SourceLinearTexts(*sizes, sources=len(spec.sources))
    return LinearTexts(*sizes)


def set_linear(model: LinearTexts, fitted: LinearFit) -> LinearTexts:
    """A linear model with fitted tensors."""
    model.weight = torch.from_numpy(fitted.weight)
    model.table_weight = torch.from_numpy(fitted.table_weight)
    model.bias = torch.from_numpy(fitted.bias)
    if isinstance(model, SourceLinearTexts):
        assert fitted.sources is not None
        deviation, of_table, scale, bias = map(torch.from_numpy, fitted.sources)
        model.deviation, model.table_deviation = deviation, of_table
        model.scale, model.source_bias = scale, bias
    return model


def load_initial(model: nn.Module, options: TextOptions, spec: TextSpec) -> None:
    """The weights of the encoder, the linear model, and the descriptions of the labels."""
    linear = getattr(model, "linear", None)
    if isinstance(linear, LinearTexts):
        assert spec.fitted is not None
        set_linear(linear, spec.fitted)
    if isinstance(model, SourcesTexts) and isinstance(linear, SourceLinearTexts):
        model.scale.copy_(linear.scale)
    network = model.network if isinstance(model, HybridTexts) else model
    encoder = getattr(network, "encoder", None)
    if isinstance(encoder, FrozenEncoder):
        encoder = encoder.encoder
    if not isinstance(encoder, TextEncoder) or spec.encoder is None:
        return
    opened = None
    if spec.encoder["weights"] != NONE:
        opened = open_encoder(spec.encoder["weights"], option="--weights")
        _load_encoder(encoder, opened.encoder)
        if isinstance(opened.encoder, StaticEncoder):
            encoder.get_submodule("words").requires_grad_(options.tune != "none")
        else:
            encoder.tune(options.tune)
    if options.label_texts is not None and isinstance(network, AttentionTexts):
        if opened is None:
            raise InputError("--label-texts: needs an encoder with --weights to read them")
        vectors = mean_vectors(opened, description_texts(options.label_texts, spec.labels))
        network.head.set_descriptions(torch.from_numpy(vectors))


def _load_encoder(encoder: TextEncoder, pretrained: TextEncoder) -> None:
    """Weights of the same network, or the vectors of words alone, about as large as those of a
    new network.
    """
    if not isinstance(pretrained, StaticEncoder):
        encoder.load_state_dict(pretrained.state_dict())
        return
    words = cast(nn.Embedding, encoder.words)
    vectors = pretrained.words.weight.detach().float()
    vectors = vectors - vectors.mean(0)
    size = vectors.norm(dim=1).mean().clamp_min(1e-12)
    with torch.no_grad():
        words.weight.copy_(vectors / size)
