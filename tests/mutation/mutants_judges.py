"""Bugs in judges and summaries: orders that are not the other way round, pairs of one order only,
budgets that are passed, places that are not those of the sentence, answers that steer the choice.
"""

from mutant import Mutant

SENTENCES = ("data/texts/test_sentences.py",)
STORIES = ("data/texts/test_stories.py",)
TABLES = ("data/texts/test_judgements.py",)
SELECTION = ("pipelines/metrics/test_selection.py",)
JUDGING = ("pipelines/metrics/test_judging.py",)
SUMMARISE = ("pipelines/text/test_summarise.py",)
JUDGE = ("pipelines/text/test_judge.py",)

MUTANTS = [
    Mutant(
        "judge-same-order-consistent",
        "pipelines",
        "pipelines/metrics/judging.py",
        "(orders.plain * orders.swapped[:, ::-1]).sum(1)",
        "(orders.plain * orders.swapped).sum(1)",
        JUDGING,
    ),
    Mutant(
        "judge-incomplete-pairs",
        "pipelines",
        "pipelines/metrics/judging.py",
        "complete = (counts.sum(2) > 0).all(0)",
        "complete = (counts.sum(2) > 0).any(0)",
        JUDGING,
    ),
    Mutant(
        "judge-rows-drawn",
        "pipelines",
        "pipelines/metrics/judging.py",
        "bootstrap_intervals(statistics, known.pair, draws=draws, seed=seed)",
        "bootstrap_intervals(statistics, len(known.pair), draws=draws, seed=seed)",
        JUDGING,
    ),
    Mutant(
        "judge-padding-side",
        "pipelines",
        "pipelines/metrics/judging.py",
        "gain = padded.preference * padded.padded / 2",
        "gain = padded.preference * abs(padded.padded) / 2",
        JUDGING,
    ),
    Mutant(
        "judge-human-not-turned",
        "pipelines",
        "pipelines/metrics/judging.py",
        "both = np.stack([known.preference, known.human]) * sign",
        "both = np.stack([known.preference * sign, known.human])",
        JUDGING,
    ),
    Mutant(
        "judge-zero-second",
        "data",
        "data/texts/judgements.py",
        "{1: 1, 2: -1, -1: -1, 0: 0, 0.5: 0}",
        "{1: 1, 2: -1, -1: -1, 0: -1, 0.5: 0}",
        TABLES,
    ),
    Mutant(
        "judge-prompt-forgotten",
        "data",
        "data/texts/judgements.py",
        "name = (row.judge, row.prompt, row.pair if by_id else tuple(sorted(sides)))",
        "name = (row.judge, row.pair if by_id else tuple(sorted(sides)))",
        TABLES,
    ),
    Mutant(
        "judge-half-a-pair",
        "pipelines",
        "pipelines/text/verbs/judge.py",
        "fitting = order[np.cumsum(sizes[order]) <= options.budget]",
        "fitting = order[: options.budget]",
        JUDGE,
    ),
    Mutant(
        "summary-stale-gain",
        "pipelines",
        "pipelines/metrics/selection.py",
        "if waiting and entry > waiting[0]:",
        "if False:",
        SELECTION,
    ),
    Mutant(
        "summary-budget-passed",
        "pipelines",
        "pipelines/metrics/selection.py",
        'budget + _TINY, side="right"))]',
        'budget + _TINY, side="right")) + 1]',
        SELECTION,
    ),
    Mutant(
        "summary-by-place",
        "pipelines",
        "pipelines/text/verbs/summaries.py",
        "key=lambda s: (s.text, texts[s.article], s.start)",
        "key=lambda s: 0",
        SUMMARISE,
    ),
    Mutant(
        "summary-sees-answers",
        "pipelines",
        "pipelines/text/verbs/summaries.py",
        "choice = _chosen(candidates, text_vectors(texts, vectors_of), story, options)",
        "told = [a for q in story.questions for a in q.answers]\n"
        "    all_vectors = text_vectors([*texts, *told], vectors_of)[: len(texts)]\n"
        "    choice = _chosen(candidates, all_vectors, story, options)",
        SUMMARISE,
    ),
    Mutant(
        "story-stops-others",
        "data",
        "data/texts/stories.py",
        '        return UnusableStory(name, f"story {name}: {error}")',
        "        raise",
        STORIES,
    ),
    Mutant(
        "sentence-places-of-stripped",
        "data",
        "data/texts/sentences.py",
        "first = start + len(piece) - len(piece.lstrip())",
        "first = start",
        SENTENCES,
    ),
]
