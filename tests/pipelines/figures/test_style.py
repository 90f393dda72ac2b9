"""The figure style: it holds inside its context only, and reaches what is made when saving."""

import doctest
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from headwise.pipelines.figures import classifier, style
from headwise.pipelines.figures.training import expert_loads, learning_curve


def test_the_style_holds_inside_its_context_only() -> None:
    before = dict(mpl.rcParams)
    with style.styled_figure(4, 3) as figure:
        axes = figure.subplots()
        (line,) = axes.plot([1, 2])
        assert mpl.rcParams["font.size"] == style.STYLE["font.size"]
    assert dict(mpl.rcParams) == before
    assert to_hex(str(line.get_color())) == style.BLUE
    assert not axes.spines["top"].get_visible()
    assert figure.get_size_inches().tolist() == [4, 3]


def test_a_figure_of_images_has_no_grid() -> None:
    with style.styled_figure(4, 3, grid=False) as figure:
        axes = figure.subplots()
    assert not any(line.get_visible() for line in axes.get_xgridlines())


def test_bare_axes_keep_their_title() -> None:
    with style.styled_figure(4, 3) as figure:
        axes = figure.subplots()
        axes.set_title("picture", loc="left")
        style.bare(axes)
    assert not len(axes.get_xticks())
    assert not any(spine.get_visible() for spine in axes.spines.values())
    assert axes.get_title(loc="left") == "picture"


def test_the_style_reaches_ticks_that_are_made_when_saving(tmp_path: Path) -> None:
    with style.styled_figure(4, 3) as figure:
        axes = figure.subplots()
    style.save_png(figure, tmp_path / "figure.png")
    assert axes.get_xticklabels()[0].get_fontsize() == style.STYLE["font.size"]
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_a_learning_curve_has_both_scores() -> None:
    history = pl.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0], "val_auc": [0.5, 0.7]})
    (axes,) = learning_curve(history, "auc").axes
    curves = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
    assert curves == {"training loss": [2.0, 1.0], "validation auc": [0.5, 0.7]}
    assert expert_loads(history) is None


def test_each_layer_of_experts_has_its_plot() -> None:
    history = pl.DataFrame({"epoch": [1, 2]}).with_columns(
        pl.lit(0.5).alias(f"moe{layer}_{name}")
        for layer in (0, 2)
        for name in ("load0", "load1", "entropy")
    )
    figure = expert_loads(history)
    assert isinstance(figure, Figure)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_ylim() == (0, 1)] == [
        "layer 0",
        "layer 2",
    ]


def test_classes_without_samples_have_no_roc_curve() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]])
    with style.styled_figure(4, 3) as figure:
        axes = figure.subplots()
        classifier.draw_roc(axes, np.array([0, 1, 1]), probability, ["a", "b", "c"])
        classifier.finish_roc(axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]  # pyright: ignore[reportOptionalMemberAccess]


def test_a_confusion_counts_true_by_predicted_classes() -> None:
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    with style.styled_figure(4, 3) as figure:
        axes = figure.subplots()
        classifier.draw_confusion(axes, np.array([0, 1, 1]), probability, ["no", "yes"])
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "1", (1, 0): "0", (0, 1): "1", (1, 1): "1"}


def test_the_examples_run() -> None:
    assert doctest.testmod(style).failed == 0
    assert doctest.testmod(classifier).failed == 0


def test_names_with_dollar_signs_are_drawn_as_they_are(tmp_path: Path) -> None:
    with style.styled_figure(4, 3) as figure:
        axes = figure.subplots()
        axes.plot([1, 2], label=r"$\frac{$")
        axes.set(title="$^$", xlabel="US$_to_AU$", xticks=[0, 1], xticklabels=["$^$", "a$b$"])
        axes.legend()
    style.save_png(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert not axes.title.get_parse_math()


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    with style.styled_figure(4, 3) as figure:
        axes = figure.subplots()
        axes.plot([1, 1000], [0, 1])
        axes.set(xscale="log")
        style.plain_ticks(axes.xaxis)
        figure.draw_without_rendering()
        texts = [label.get_text() for label in axes.get_xticklabels(which="both")]
    assert {"1", "10", "100", "1000"} <= set(texts)
    assert not any("$" in text for text in texts)
