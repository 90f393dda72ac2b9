"""Letters that figures can draw: other scripts need fonts that are installed beside the usual."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

USUAL = "DejaVu Sans"  # comes with matplotlib
BOX = "\N{WHITE VERTICAL RECTANGLE}"  # stands for a letter that no font has
_MOST_FONTS = 400  # looked at
_LAST_RESORT = ("Last Resort", ".LastResort")  # fonts of a sign for each script, no letters


def fonts_with(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Families of installed fonts that have the letters of some texts, the usual one first, and the
    letters that none has.
    """
    from matplotlib import font_manager

    missing = set().union(*texts) - _letters(font_manager.findfont(USUAL))
    families = [USUAL]
    if not missing:
        return families, missing
    entries = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    for name, file in sorted(entries.items())[:_MOST_FONTS]:
        if name.startswith(_LAST_RESORT):
            continue
        if missing and Path(file).is_file() and (has := missing & _letters(file)):
            families.append(name)
            missing -= has
    return families, missing


def boxed(text: str, missing: set[str]) -> str:
    """A text with boxes for the letters that no font has."""
    return "".join(BOX if letter in missing else letter for letter in text)


def _letters(file: str) -> set[str]:
    from matplotlib import font_manager

    return {chr(code) for code in font_manager.get_font(file).get_charmap()}
