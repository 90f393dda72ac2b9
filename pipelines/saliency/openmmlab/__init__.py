"""RGB-D saliency in mmsegmentation (extra `openmmlab`): data set, steps, preprocessor, model,
metric, stages.

In a config: `custom_imports = dict(imports=["headwise.pipelines.saliency.openmmlab"])`; a complete
config is the file CONFIG, which `python -m headwise.pipelines.saliency.openmmlab` prints.
"""

from pathlib import Path

from ....models.adapters.openmmlab.operators import use_torch_operators

use_torch_operators()  # before models of mmsegmentation

from .data import (  # noqa: E402
    LoadDepth,
    LoadPicture,
    LoadSaliencyMask,
    RGBDPreprocessor,
    RGBDSaliencyDataset,
    VaryScene,
)
from .model import GLDMNetSegmentor, SaliencyMetric, StagesHook  # noqa: E402

CONFIG = Path(__file__).with_name("gldmnet.py")

__all__ = [
    "CONFIG",
    "GLDMNetSegmentor",
    "LoadDepth",
    "LoadPicture",
    "LoadSaliencyMask",
    "RGBDPreprocessor",
    "RGBDSaliencyDataset",
    "SaliencyMetric",
    "StagesHook",
    "VaryScene",
]
