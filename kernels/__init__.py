"""Custom operators: one operator a file, with its maths, its PyTorch reference and its Triton
kernel.

`from headwise.kernels.softmax_pool import softmax_pool`: a file bears the name of its operator.
"""

# name -> (module, function, one line); `headwise list kernels` prints it.
KERNELS: dict[str, tuple[str, str, str]] = {
    "differential_combine": (
        "differential_combine",
        "differential_combine",
        "signal minus noise heads, RMS norm and scale, one pass",
    ),
    "softmax_pool": (
        "softmax_pool",
        "softmax_pool",
        "softmax-weighted mean over a padded or ragged axis, one pass",
    ),
    "softmax_draw": (
        "softmax_pool",
        "softmax_draw",
        "one row drawn from that softmax, in the same pass",
    ),
    "gelu_linear": (
        "gelu_linear",
        "gelu_linear",
        "linear(gelu(h)) that keeps only h for the backward pass",
    ),
    "gated_scores": (
        "gated_scores",
        "gated_scores",
        "scores of gated attention; keeps neither gate",
    ),
    "star_core": (
        "star_core",
        "star_core",
        "STAR's stochastic core; its backward touches the drawn rows only",
    ),
    "attention_stats": (
        "attention_stats",
        "attention_stats",
        "entropy, masses, top weights of attention, no N x M matrix",
    ),
    "rollout_row": (
        "attention_stats",
        "rollout_row",
        "one row of attention rollout, a vector-matrix product a layer",
    ),
    "attention_maps": (
        "attention_maps",
        "attention_maps",
        "attention that gives out the weights of chosen heads",
    ),
    "time_warp": (
        "time_warping",
        "time_warp",
        "dynamic time warping of a batch of ragged matrices",
    ),
    "median_filter": (
        "time_warping",
        "median_filter",
        "median along ragged rows, mirrored at their ends",
    ),
    "cosine_moments": (
        "attention_moments",
        "cosine_moments",
        "cosines of attention rows with their mean, no matrix",
    ),
    "neighbourhood_attention": (
        "neighbourhood",
        "neighbourhood_attention",
        "softmax over a window from given scores",
    ),
    "neighbourhood_scores": ("neighbourhood", "neighbourhood_scores", "q . k within a window"),
    "neighbourhood_sum": (
        "neighbourhood",
        "neighbourhood_sum",
        "weighted sum within a window, weights as given",
    ),
    "attend_with_lse": (
        "partial_softmax",
        "attend_with_lse",
        "attention over a part of the keys with its log-sum-exp",
    ),
    "merge_partials": (
        "partial_softmax",
        "merge_partials",
        "softmaxes over parts of the keys joined by log-sum-exp",
    ),
    "ragged_attention": (
        "ragged_attention",
        "ragged_attention",
        "few queries a sample to its own keys, unpadded",
    ),
    "pair_attention": (
        "pair_attention",
        "pair_attention",
        "attention to own keys and a partner's, no copy of keys",
    ),
    "signed_root_attention": (
        "signed_root_attention",
        "signed_root_attention",
        "signed square roots of q k^T times v in tiles, no N x M map",
    ),
    "tensor_attention": (
        "tensor_attention",
        "tensor_attention",
        "attention to pairs of keys, in tiles, exact",
    ),
    "expert_gate": (
        "expert_gate",
        "expert_gate",
        "top-k choice of experts, weights and statistics, one pass",
    ),
    "dispatch": (
        "dispatch",
        "dispatch",
        "pairs of token and expert sorted by expert, nothing read by the host",
    ),
    "grouped_linear": (
        "grouped_linear",
        "grouped_linear",
        "linear layers of many experts; gather, activation, bias",
    ),
    "expert_combine": (
        "expert_combine",
        "expert_combine",
        "weighted sum over a token's experts in one fixed order",
    ),
    "gathered_heads": (
        "gathered_heads",
        "gathered_heads",
        "attention of the tokens that use a head, head by head",
    ),
}
