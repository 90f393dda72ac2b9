"""Language models with long contexts: plans of attention and caches that are really cut.

    headwise.longcontext.train(model="smollm2-135m", data="texts/")

    with attach(model, plan) as attached:
        model.generate(**prompts, cache=attached.cache())

The mechanisms are in `models.language`, the verbs in `pipelines.longcontext`.
"""

from .models.language.plans.facts import ModelFacts
from .models.language.plans.formats import (
    read_duo_attention,
    read_moa,
    write_duo_attention,
    write_moa,
)
from .models.language.plans.plan import Plan
from .models.language.plans.rules import Budget, Rule
from .models.language.running.attach import Attached, attach
from .models.language.running.cache import PlanCache
from .models.language.running.cache_file import load_cache, save_cache
from .pipelines.longcontext import TASK, compare, compress, evaluate, export, predict, train, tune

__all__ = [
    "TASK",
    "compare",
    "compress",
    "evaluate",
    "export",
    "predict",
    "train",
    "tune",
    "Attached",
    "Budget",
    "ModelFacts",
    "Plan",
    "PlanCache",
    "Rule",
    "attach",
    "load_cache",
    "read_duo_attention",
    "read_moa",
    "save_cache",
    "write_duo_attention",
    "write_moa",
]
