"""A Ray cluster of two nodes with one processor each, on this machine.

`python ray_nodes.py "WORDS" "WORDS"`: trains with the first words on both nodes, and runs the
second ones as a command of its own, which finds the cluster by RAY_ADDRESS."""

import os
import subprocess
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_on_ray.py"
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


def main(train: str, predict: str) -> None:
    """Start the cluster, do both, stop the cluster."""
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        for command in (
            [sys.executable, str(EXAMPLE), *train.split()],
            [sys.executable, "-m", "headwise.pipelines.engine", *predict.split()],
        ):
            subprocess.run(command, env=environment, check=True, timeout=300)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
