"""Bugs in encoders of text: states that depend on padding, offsets that leave their words, weights
in the wrong place.
"""

from mutant import Mutant

TOKENS = ("data/texts/test_tokens.py",)
ENCODERS = ("models/text/test_encoder.py", "-k", "padding or bits")
FILES = ("models/weights/test_text_weights.py",)

MUTANTS = [
    Mutant(
        "bert-attends-to-padding",
        "models",
        "models/text/encoder.py",
        """            x = layer(x, mask=mask)
        return x * mask""",
        """            x = layer(x)
        return x * mask""",
        ENCODERS,
    ),
    Mutant(
        "four-bits-in-turn",
        "models",
        "models/text/encoder.py",
        "torch.cat([bits & 15, bits >> 4], -1)",
        "torch.stack([bits & 15, bits >> 4], -1).flatten(-2)",
        ENCODERS,
    ),
    Mutant(
        "segment-of-the-second-text",
        "models",
        "models/weights/bert.py",
        'raw["embeddings.token_type_embeddings.weight"][0]',
        'raw["embeddings.token_type_embeddings.weight"][1]',
        FILES,
    ),
    Mutant(
        "offsets-of-the-replaced-text",
        "data",
        "data/texts/tokens.py",
        "places.append(place)",
        "places.append(len(places))",
        TOKENS,
    ),
    Mutant(
        "last-window-starts-anew",
        "data",
        "data/texts/tokens.py",
        "start = max(first, stop - room)",
        "start = min(start, stop)",
        TOKENS,
    ),
    Mutant(
        "special-tokens-in-a-text",
        "data",
        "data/texts/tokens.py",
        "self._library.encode_special_tokens = True",
        "self._library.encode_special_tokens = False",
        TOKENS,
    ),
]
