"""Custom operators, one folder for each: public function with maths and checks (`__init__`), the
formula (`naive`), the form for the CPU (`cpu`) and, where it pays, for the GPU (`triton`).

    from headwise.kernels.softmax_pool import softmax_pool

`register` says how an operator is registered. Nothing here imports torch.
"""

from typing import NamedTuple


class Kernel(NamedTuple):
    """A row of `headwise list kernels`: the module here that defines the function of that name."""

    module: str
    summary: str


KERNELS = {
    "differential_combine": Kernel(
        "differential_combine", "signal minus noise heads, RMS norm and scale, one pass"
    ),
    "softmax_pool": Kernel(
        "softmax_pool", "softmax-weighted mean over a padded or ragged axis, one pass"
    ),
    "softmax_draw": Kernel("softmax_pool", "one row drawn from that softmax, in the same pass"),
    "gelu_linear": Kernel("gelu_linear", "linear(gelu(h)) that keeps only h for the backward pass"),
    "gated_scores": Kernel("gated_scores", "scores of gated attention; keeps neither gate"),
    "star_core": Kernel(
        "star_core", "STAR's stochastic core; its backward touches the drawn rows only"
    ),
    "attention_stats": Kernel(
        "attention_stats", "entropy, masses, top weights of attention, no N x M matrix"
    ),
    "rollout_row": Kernel(
        "attention_stats", "one row of attention rollout, a vector-matrix product a layer"
    ),
    "attention_maps": Kernel(
        "attention_maps", "attention that gives out the weights of chosen heads"
    ),
    "time_warp": Kernel("time_warping", "dynamic time warping of a batch of ragged matrices"),
    "median_filter": Kernel("time_warping", "median along ragged rows, mirrored at their ends"),
    "cosine_moments": Kernel(
        "attention_moments", "cosines of attention rows with their mean, no matrix"
    ),
    "neighbourhood_attention": Kernel("neighbourhood", "softmax over a window from given scores"),
    "neighbourhood_scores": Kernel("neighbourhood", "q . k within a window"),
    "neighbourhood_sum": Kernel("neighbourhood", "weighted sum within a window, weights as given"),
    "attend_with_lse": Kernel(
        "partial_softmax", "attention over a part of the keys with its log-sum-exp"
    ),
    "merge_partials": Kernel(
        "partial_softmax", "softmaxes over parts of the keys joined by log-sum-exp"
    ),
    "ragged_attention": Kernel(
        "ragged_attention", "few queries a sample to its own keys, unpadded"
    ),
    "decode_attention": Kernel(
        "ragged_decode", "new queries to caches of another length for each head, log-sum-exp"
    ),
    "select_keys": Kernel(
        "key_selection", "top keys of a head for each query, with its sink and recent keys"
    ),
    "label_attention": Kernel(
        "label_attention", "logits of labels that weigh the tokens, no vector a label, O(N L)"
    ),
    "label_contributions": Kernel(
        "label_attention", "the same logits as sums over tokens, with the weights"
    ),
    "pair_attention": Kernel(
        "pair_attention", "attention to own keys and a partner's, no copy of keys"
    ),
    "signed_root_attention": Kernel(
        "signed_root_attention", "signed square roots of q k^T times v in tiles, no N x M map"
    ),
    "tensor_attention": Kernel("tensor_attention", "attention to pairs of keys, in tiles, exact"),
    "expert_gate": Kernel(
        "expert_gate", "top-k choice of experts, weights and statistics, one pass"
    ),
    "dispatch": Kernel(
        "dispatch", "pairs of token and expert sorted by expert, nothing read by the host"
    ),
    "grouped_linear": Kernel(
        "grouped_linear", "linear layers of many experts; gather, activation, bias"
    ),
    "expert_combine": Kernel(
        "expert_combine", "weighted sum over a token's experts in one fixed order"
    ),
    "gathered_heads": Kernel(
        "gathered_heads", "attention of the tokens that use a head, head by head"
    ),
}
