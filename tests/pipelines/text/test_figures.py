"""Figures of the report of texts can be read."""

import numpy as np
import pytest

from headwise.pipelines.text.figures import label_figure


@pytest.mark.parametrize("counts", [(103, 105, 121), (3, 40, 2500), (7, 7, 7), (5,)])
def test_counts_of_labels_stand_on_the_axis_as_plain_numbers(counts: tuple[int, ...]) -> None:
    names = [f"label {k}" for k in range(len(counts))]
    figure = label_figure(names, np.linspace(0.2, 0.9, len(counts)), counts).figure
    figure.canvas.draw()
    axis = figure.axes[0].xaxis
    texts = [tick.get_text() for tick in axis.get_ticklabels() + axis.get_ticklabels(minor=True)]
    plain = [text for text in texts if text]
    assert 1 <= len(plain) <= 12
    assert all(float(text.replace("−", "-")).is_integer() for text in plain)
