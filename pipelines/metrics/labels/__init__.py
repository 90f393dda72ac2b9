"""Texts (or other samples) with several labels each: how well labels are ranked, which of them to
give, how true their probabilities are, and sets that hold the truth.

Shapes in all files: N texts, L labels, R draws of a bootstrap. truth: bool (N, L); scores, logits
and probabilities: finite floats (N, L); groups: any values (N,) that sort, such as sources, of
which the texts of one rise and fall together."""
