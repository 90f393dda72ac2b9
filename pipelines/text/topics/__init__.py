"""Topics of texts: models, scores, raters, and how results are shown."""
