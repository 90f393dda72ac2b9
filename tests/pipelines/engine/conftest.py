"""What the tests of the engine share: the tiny task, found by its name as the tasks of the package
are.
"""

import pytest


@pytest.fixture
def averages(monkeypatch):
    """`averages(scores)` makes the task of `averages.py`, and lets the engine find it by its
    name.
    """
    from headwise.pipelines.engine.inference import shards as inference
    from headwise.tests.pipelines.engine.averages import Averages

    def make(scores=None):
        task = Averages(scores)
        monkeypatch.setattr(inference, "load_task", lambda name: task.task)
        return task

    return make
