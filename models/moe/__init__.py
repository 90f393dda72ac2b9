"""Mixture-of-experts modules: router, experts, layer, losses, upcycling, gates of several tasks."""

# name -> (module, class or function, one line); `headwise list moe` prints it.
MOE: dict[str, tuple[str, str, str]] = {
    "moe": (
        "layer",
        "MoE",
        "a router and its experts in place of a feed-forward network (1701.06538, 2101.03961)",
    ),
    "moe-2d": ("layer", "MoE2d", "the same on feature maps, experts of 1 x 1 convolutions"),
    "router": (
        "router",
        "Router",
        "K of E experts a token; noise, capacity, bias, mixing over tokens (2505.00792)",
    ),
    "experts": (
        "experts",
        "Experts",
        "E feed-forward networks in one set of weights, K of them for each token",
    ),
    "upcycle": (
        "upcycle",
        "upcycle",
        "a trained network as E equal experts, the same function at first (2212.05055)",
    ),
    "assemble": (
        "upcycle",
        "assemble",
        "several trained networks as experts (2409.19291, 2403.07816)",
    ),
    "decompose": (
        "upcycle",
        "decompose",
        "a trained network cut into finer experts, the same at first (2507.17436)",
    ),
    "alike-batches": (
        "contrastive",
        "alike_batches",
        "batches that earlier stages cannot tell apart (2409.19291)",
    ),
    "merge": ("upcycle", "merge", "experts back into one dense network (2203.05482)"),
    "attention-experts": (
        "attention",
        "AttentionExperts",
        "attention layers weighed by each token (2408.08274)",
    ),
    "mix-branches": (
        "branches",
        "mix_branches",
        "models trained apart as one with experts (2408.08274, 2403.07816)",
    ),
    "multi-gate": (
        "multi_gate",
        "MultiGate",
        "one gate a task over shared experts (MMoE, KDD 2018)",
    ),
    "layered-extraction": (
        "multi_gate",
        "LayeredExtraction",
        "own and shared experts of tasks (PLE, RecSys 2020)",
    ),
    "task-experts": (
        "multi_gate",
        "TaskExpertLayer",
        "experts by task and token with a memory of tasks (2307.15324)",
    ),
    "diverse": (
        "diverse",
        "DiverseHead",
        "three experts for frequent, even and rare classes (MDCS, 2308.09922)",
    ),
    "moe-lora": (
        "lora",
        "MoELoRA",
        "low-rank experts beside a frozen layer (2106.09685, 2404.15159)",
    ),
}
