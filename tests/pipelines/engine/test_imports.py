"""What a prediction must not wait for: packages that training and drawing need."""

import subprocess
import sys

# Each takes as long to import as a third of torch, or longer.
HEAVY = ("torch._dynamo", "lightning_fabric", "matplotlib", "scipy.stats", "sklearn")


def test_pipelines_are_opened_without_what_training_and_drawing_need() -> None:
    code = (
        "import sys\nimport headwise.pipelines.engine.inference.shards\n"
        "from headwise.pipelines import TASKS, load_task\n"
        "for name in TASKS:\n"
        "    load_task(name).load()\n"
        f"    heavy = [package for package in {HEAVY!r} if package in sys.modules]\n"
        "    assert not heavy, (name, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
