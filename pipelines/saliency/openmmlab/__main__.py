"""Print the config that ships: `python -m headwise.pipelines.saliency.openmmlab > gldmnet.py`."""

from . import CONFIG

print(CONFIG.read_text(encoding="utf-8"), end="")
