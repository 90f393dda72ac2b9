"""Train on every node of a Ray cluster: `RAY_ADDRESS=host:port python examples/train_on_ray.py
forecast train --data table.csv --run runs/shared`, one process a node.

Ray finds the nodes, torchrun starts the training on each of them. The run directory must lie on a
disk that all nodes see."""

import os
import socket
import subprocess
import sys

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


def free_port() -> int:
    """A port of this node that nobody listens on."""
    with socket.socket() as opened:
        opened.bind(("", 0))
        return opened.getsockname()[1]


def meeting_place() -> tuple[str, int]:
    """The address and a free port of the node that this runs on."""
    return ray.util.get_node_ip_address(), free_port()


def run_on_node(
    node: int, nodes: int, place: tuple[str, int], words: list[str], folder: str
) -> int:
    """Start torchrun on this node; returns its exit code."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"),
        *("--nnodes", str(nodes), "--node-rank", str(node)),
        *("--master-addr", place[0], "--master-port", str(place[1])),
        *("--local-addr", ray.util.get_node_ip_address()),
        *("-m", "headwise.pipelines.engine", "--", *words),
    ]
    return subprocess.run(command, cwd=folder, check=False).returncode


def main(words: list[str]) -> int:
    """Train on all nodes; returns the largest exit code."""
    if "RAY_ADDRESS" not in os.environ or not words:
        print("set RAY_ADDRESS to the cluster, and give the words of `headwise`")
        return 2 if words else 0
    ray.init(log_to_driver=False)
    nodes = sum(node["Alive"] for node in ray.nodes())
    print(f"{nodes} nodes")
    gpus = {"GPU": 1} if "GPU" in ray.cluster_resources() else {}
    group = placement_group([{"CPU": 1, **gpus}] * nodes, strategy="STRICT_SPREAD")
    ray.get(group.ready())

    def on(node: int, function, *arguments):  # type: ignore[no-untyped-def]
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
        remote = ray.remote(num_cpus=1, num_gpus=len(gpus), scheduling_strategy=where)(function)
        return remote.remote(*arguments)

    place = ray.get(on(0, meeting_place))
    codes = [on(node, run_on_node, node, nodes, place, words, os.getcwd()) for node in range(nodes)]
    return max(ray.get(codes), key=abs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
