"""Bugs in models that join a text with a table or with other sources: attention to the wrong side,
sources that read themselves or are taken for another, what is padded and counts."""

from mutant import Mutant

CROSS, SOURCES = (("models/text/test_cross.py",), ("models/text/test_sources.py",))
_CROSS, _SOURCES = "models/text/cross.py", "models/text/sources.py"

MUTANTS = [
    Mutant("cross-pads-counted", "models", _CROSS,
           'None if self.direction == "table" else x.mask)', "None)", CROSS),
    Mutant("cross-attends-to-pads", "models", _CROSS,
           "z = self.layer(asking, answering, mask=present)",
           "z = self.layer(asking, answering)", CROSS),
    Mutant("cross-one-query", "models", _CROSS, "unflatten(1, (self.count, -1))",
           "unflatten(1, (self.count, -1))[:, :1]", CROSS),
    Mutant("source-reads-itself", "models", _SOURCES, "return gates.sigmoid() * others",
           "return gates.sigmoid()", SOURCES),
    Mutant("source-unknown-is-last", "models", _SOURCES,
           "return values[source.clamp(max=values.shape[0] - 1)] * known.to(values.dtype)",
           "return values[source.clamp(max=values.shape[0] - 1)]", SOURCES),
    Mutant("source-hidden-in-evaluation", "models", _SOURCES,
           "if self.training and self.hide_source:", "if self.hide_source:", SOURCES),
    Mutant("source-deviation-of-another", "models", _SOURCES,
           "x.features + place[:, None] * self.features,\n            self.deviation,",
           "x.features,\n            self.deviation,", SOURCES),
    Mutant("source-topics-blunt", "models", _SOURCES, "sharp = shares.detach().square() /",
           "sharp = shares.detach() /", SOURCES),
]  # fmt: skip
