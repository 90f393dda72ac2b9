"""Bugs in scores of topics and of their raters, and in what raters are given."""

from mutant import Mutant

AGREEMENT, TOPICS = ((f"pipelines/metrics/test_{name}.py",) for name in ("agreement", "topics"))
TASKS, ANSWERS = (f"data/texts/test_topic_{name}.py" for name in ("tasks", "answers"))
VERBS = ("pipelines/text/test_topics.py", "-k", "replaced or hand or blind")

MUTANTS = [
    Mutant(
        "alpha-without-small-sample-correction",
        "pipelines",
        "pipelines/metrics/agreement.py",
        "expected = (everything**2 - squares) / (everything - 1)",
        "expected = (everything**2 - squares) / everything",
        AGREEMENT,
    ),
    Mutant(
        "d-prime-of-raw-rates",
        "pipelines",
        "pipelines/metrics/agreement.py",
        "z_hit = ndtri((hits + 0.5) / (signals + 1))",
        "z_hit = ndtri(hits / signals)",
        AGREEMENT,
    ),
    Mutant(
        "criterion-of-the-other-sign",
        "pipelines",
        "pipelines/metrics/agreement.py",
        "-(z_hit + z_false) / 2",
        "(z_hit + z_false) / 2",
        AGREEMENT,
    ),
    Mutant(
        "words-count-as-often-as-they-occur-in-a-window",
        "pipelines",
        "pipelines/metrics/topics.py",
        "cells.data[:] = 1",
        "cells.data[:] = cells.data",
        TOPICS,
    ),
    Mutant(
        "within-with-a-word-and-itself",
        "pipelines",
        "pipelines/metrics/topics.py",
        "pairs = np.triu(np.ones((size, size), bool), 1)",
        "pairs = np.triu(np.ones((size, size), bool), 0)",
        TOPICS,
    ),
    Mutant(
        "intruder-of-the-topic-itself",
        "data",
        "data/texts/topic_tasks.py",
        "max(OUTSIDE, -(-len(topic.words) // 2))",
        "SIZE",
        (TASKS,),
    ),
    Mutant(
        "published-controls-are-tasks",
        "data",
        "data/texts/topic_answers.py",
        '"control": quartile in _CONTROLS,',
        '"control": row.get("control"),',
        (ANSWERS,),
    ),
    Mutant(
        "controls-in-the-agreement",
        "data",
        "pipelines/text/topics/raters.py",
        "names = [name for name, task in ratings.tasks.items() if not task.control]",
        "names = [name for name, task in ratings.tasks.items()]",
        VERBS,
    ),
    Mutant(
        "filled-sheets-are-replaced",
        "data",
        "pipelines/text/verbs/topics_tasks.py",
        "    _keep_answers(options)\n",
        "",
        VERBS,
    ),
]
