"""Language models with long contexts: plans of attention and caches that are really cut.

    with attach(model, plan) as attached:
        model.generate(**prompts, cache=attached.cache())

Everything is in `models.language`.
"""

from .models.language.attach import Attached, attach
from .models.language.cache import PlanCache
from .models.language.cache_file import load_cache, save_cache
from .models.language.facts import ModelFacts
from .models.language.formats import read_duo_attention, read_moa, write_duo_attention, write_moa
from .models.language.plan import Plan
from .models.language.rules import Budget, Rule

__all__ = [
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
