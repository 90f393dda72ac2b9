"""Sets of pictures for the tests of re-identification."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("timm", reason="timm is optional (extra reid) and not installed")
pytest.importorskip("PIL", reason="Pillow is optional (extra vision) and not installed")

from headwise.data.persons.generate import TRAINED, write_sample_persons


@pytest.fixture(scope="session")
def persons(tmp_path_factory) -> Path:
    """A part of the generated persons: 6 identities to train with, 3 to search, 2 distractors and 2
    of junk.
    """
    sample = write_sample_persons(tmp_path_factory.mktemp("sample"))
    home = tmp_path_factory.mktemp("small") / "persons"
    identities = {f"{number + 1:04d}" for number in (*range(6), *range(TRAINED, TRAINED + 3))}
    for file in sorted(sample.rglob("*.jpg")):
        identity, _, rest = file.name.partition("_")
        few = identity in ("0000", "-1") and int(rest.split("_")[1]) % 1000 < 2
        if identity in identities or few:
            place = home / file.relative_to(sample)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return home
