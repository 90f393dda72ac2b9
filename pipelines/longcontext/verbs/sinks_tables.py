"""What `sinks` shows: tables by text and by kind, pictures, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from ....models.language.analysis.sink_kinds import KINDS, OFFICIAL_MARGIN, OFFICIAL_SHORTEST
from ....models.language.analysis.sinks import rank_correlation
from ...engine.pipeline import ReportFigure
from ..attention_figures import mass_against_norm, sinks_by_layer

SINK_SCHEMA: Mapping[str, pl.DataType] = {
    "text": pl.String(),
    "place": pl.Int64(),
    "token": pl.String(),
    "kind": pl.String(),
    "mass": pl.Float64(),
    "first_layer": pl.Int64(),
    "last_layer": pl.Int64(),
    "layers": pl.Int64(),
    "norm": pl.Float64(),
    "first_carrying": pl.Int64(),
    "last_carrying": pl.Int64(),
    "cosine": pl.Float64(),
    "writer": pl.Int64(),
    "mlp_norm": pl.Float64(),
    "mlp_cosine": pl.Float64(),
    "mlp_share": pl.Float64(),
    "mass_tested": pl.Float64(),
    "mass_removed": pl.Float64(),
    "order_of_others": pl.Float64(),
    "layers_removed": pl.List(pl.Int64()),
}
"""place: of the token in the piece, from 0. mass: largest share of later tokens' attention that a
layer gives it. first_layer to last_layer: layers that give it much, as many as layers. norm:
largest, over the median of the layer. first_carrying, last_carrying: layers whose state has the
primary's direction; cosine: largest, centred. writer: the layer whose MLP wrote it; mlp_norm: of
what that adds, over the median; mlp_cosine: with what it adds to the primary; mlp_share: of the
layer's change. mass_tested: mean mass over the layers that it draws in while it carries; and
mass_removed: the same once what was written is taken out after layers_removed; order_of_others: the
rank correlation of all other masses before and after; null where that was not tested."""
LAYER_SCHEMA: Mapping[str, pl.DataType] = {
    "text": pl.String(),
    "layer": pl.Int64(),
    "mass_primary": pl.Float64(),
    "mass_secondary": pl.Float64(),
    "mass_companion": pl.Float64(),
    "mass_early": pl.Float64(),
    "mass_other": pl.Float64(),
    "norm_primary": pl.Float64(),
    "norm_early": pl.Float64(),
    "mlp_share_primary": pl.Float64(),
    "value_primary": pl.Float64(),
    "cosine_median": pl.Float64(),
    "centred_median": pl.Float64(),
    "tokens": pl.Int64(),
    "official_start": pl.Int64(),
    "official_end": pl.Int64(),
    "official_secondary": pl.Int64(),
    "official_like_primary": pl.Int64(),
    "official_can_fire": pl.Boolean(),
}


def sink_counts(sinks: pl.DataFrame) -> pl.DataFrame:
    """A row for each kind that occurs."""
    table = sinks.group_by("kind").agg(
        pl.len().alias("sinks"),
        pl.col("text").n_unique().alias("texts"),
        pl.col("mass").median().alias("median mass"),
        pl.col("mass").max().alias("largest mass"),
        pl.col("first_layer").median().alias("first layer, median"),
        pl.col("last_layer").median().alias("last layer, median"),
        pl.col("cosine").median().alias("centred cosine, median"),
        pl.col("writer").mode().sort().first().alias("writing layer, most often"),
        pl.col("mlp_cosine").median().alias("cosine of the MLPs, median"),
        pl.col("token").value_counts(sort=True).struct.field("token").head(3).alias("tokens"),
    )
    order = pl.Series("kind", KINDS, dtype=pl.String)
    names = table.with_columns(
        pl.col("tokens").list.eval(pl.concat_str(pl.lit("'"), pl.element(), pl.lit("'")))
        .list.join(" ").str.replace_all("\n", "\\n", literal=True)
    )  # fmt: skip
    return pl.DataFrame({"kind": order}).join(names, on="kind", maintain_order="left")


def text_table(sinks: pl.DataFrame, layers: pl.DataFrame) -> pl.DataFrame:
    """A row for each text: what the published rule counts, and what ours does."""
    ours = sinks.group_by("text", maintain_order=True).agg(
        pl.col("first_carrying").filter(pl.col("kind") == "primary").first().alias("takes over"),
        *(
            (pl.col("kind") == kind).sum().alias(kind)
            for kind in ("secondary", "companion", "early", "other")
        ),
    )
    rule = layers.group_by("text", maintain_order=True).agg(
        pl.col("tokens").first(),
        pl.col("official_start").first().alias("its window from"),
        pl.col("official_end").first().alias("to"),
        pl.col("official_secondary").first().alias("secondary by the published rule"),
        pl.col("official_like_primary").first().alias("like the primary by it"),
    )
    counts = pl.col("secondary", "companion", "early", "other").fill_null(0)
    return rule.join(ours, on="text", how="left", maintain_order="left").with_columns(counts)


def headline(sinks: pl.DataFrame, layers: pl.DataFrame, texts: int) -> str:
    """What was learnt, in words."""
    depth = int(layers["layer"].max()) + 1  # pyright: ignore[reportArgumentType]
    parts = [_of_primary(sinks, layers, texts, depth)]
    for kind, words in (
        ("secondary", "secondary sinks (born later, in the primary's direction)"),
        ("companion", "companions (born with the primary)"),
        ("early", "early sinks"),
    ):
        rows = sinks.filter(pl.col("kind") == kind)
        if rows.height:
            parts.append(
                f"{rows.height} {words} in {rows['text'].n_unique()} texts, up to "
                f"{rows['mass'].max():.0%} of later attention"
            )
        else:
            parts.append(f"no {words}")
    parts += [part for part in (_of_order(sinks), _of_removals(sinks)) if part]
    return "; ".join([*parts, _of_rule(layers, texts, depth)]) + "."


def _of_primary(sinks: pl.DataFrame, layers: pl.DataFrame, texts: int, depth: int) -> str:
    primary = sinks.filter(pl.col("kind") == "primary")
    if not primary.height:
        return f"{texts} texts: no first token has a long state that draws attention"
    begin = primary["first_carrying"].to_list()
    usual = max(set(begin), key=begin.count)
    after = layers.filter(pl.col("layer") > usual)["mass_primary"]
    norm = primary["norm"].median()
    return (
        f"{texts} texts: a first token takes over at layer {usual} of {depth} in "
        f"{begin.count(usual)} of them, {norm:.0f} times as long as the median state, and draws "
        f"{after.mean():.0%} of the attention after it"
    )


def _of_order(sinks: pl.DataFrame) -> str:
    """Whether a longer state draws more, over all sinks but the primary ones."""
    rows = sinks.filter((pl.col("kind") != "primary") & pl.col("mlp_norm").is_not_null())
    if rows.height < 5:
        return ""
    both = [rows[name].to_torch()[None] for name in ("mlp_norm", "mass")]
    correlation = float(rank_correlation(*both)[0])
    return (
        f"in {rows.height} sinks that an MLP wrote, the norm of what it wrote orders the mass with "
        f"a rank correlation of {correlation:.2f}"
    )


def _of_removals(sinks: pl.DataFrame) -> str:
    rows = sinks.filter(pl.col("mass_removed").is_not_null())
    if not rows.height:
        return ""
    return (
        f"with what was written taken out, {rows.height} sinks draw "
        f"{rows['mass_removed'].mean():.0%} in place of {rows['mass_tested'].mean():.0%} in these "
        "layers, mean, and the order of the others stays (rank correlation "
        f"{rows['order_of_others'].mean():.2f})"
    )


def _of_rule(layers: pl.DataFrame, texts: int, depth: int) -> str:
    per_text = layers.group_by("text", maintain_order=True).first()
    secondary = int(per_text["official_secondary"].sum())
    alike = int(per_text["official_like_primary"].sum())
    words = (
        f"the published rule finds {secondary} secondary sinks and takes {alike:,} of "
        f"{int(per_text['tokens'].sum() - texts):,} later tokens for primary ones"
    )
    if not per_text["official_can_fire"].all():
        words += (
            f" (it asks for more than {OFFICIAL_SHORTEST} and fewer than {depth} - "
            f"{OFFICIAL_MARGIN} layers, which is impossible below 21 layers)"
        )
    return words


def pictures(sinks: pl.DataFrame, layers: pl.DataFrame) -> list[ReportFigure]:
    """Mass and norm by layer, and mass against what the MLP wrote."""
    means = layers.drop("text").group_by("layer").mean().sort("layer")
    masses = {
        name: means[f"mass_{name}"].to_numpy()
        for name in ("primary", "secondary", "companion", "early", "other")
        if name == "primary" or (means[f"mass_{name}"] > 0).any()
    }
    norms = {"primary": means["norm_primary"].to_numpy()}
    if means["norm_early"].is_not_null().any():
        norms["longest early"] = means["norm_early"].cast(pl.Float64).to_numpy()
    begin = sinks.filter(pl.col("kind") == "primary")["first_carrying"].drop_nulls()
    takeover = int(np.median(begin.to_numpy())) if len(begin) else None
    figures = [
        ReportFigure(
            "layers",
            "By layer, mean over texts: the attention that the sinks of each kind draw together, "
            "and the length of their states; the line is where the first token takes over.",
            sinks_by_layer(masses, norms, takeover),
            is_answer=True,
        )
    ]
    written = sinks.filter(pl.col("mlp_norm").is_not_null())
    if written.height:
        groups = {
            kind: (rows["mlp_norm"].to_numpy(), rows["mass"].to_numpy())
            for kind in KINDS
            if (rows := written.filter(pl.col("kind") == kind)).height
        }
        figures.append(
            ReportFigure(
                "written",
                "Sinks: the attention that they draw against the norm of what an MLP wrote into "
                "them, over the median of its layer.",
                mass_against_norm(groups),
            )
        )
    return figures
