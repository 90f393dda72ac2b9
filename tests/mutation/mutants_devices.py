"""Bugs of what runs on a GPU that a CPU can show: waits, layouts in memory, what is left over."""

from mutant import Mutant

STAR = "kernels/star_core/cpu.py"
STAR_TESTS = ("kernels/star_core",)
GROUPED = "kernels/grouped_linear/native.py"
GROUPED_TESTS = ("kernels/grouped_linear", "-k", "grouped_mm or gpu")
LAYOUTS = ("kernels/test_layouts.py",)

MUTANTS = [
    Mutant("star-counts-on-gpu", "kernels", STAR, "return x.is_cpu\n", "return True\n", STAR_TESTS),
    Mutant(
        "star-unused-places",
        "kernels",
        STAR,
        "x.index_select(0, rows.clamp_max(x.shape[0] - 1)).masked_fill_(unused, 0.0)",
        "x.index_select(0, rows % x.shape[0])",
        STAR_TESTS,
    ),
    Mutant(
        "grouped-rows-of-none",
        "kernels",
        GROUPED,
        "return out.masked_fill_((expert == weight.shape[0])[:, None], 0.0)",
        "return out",
        GROUPED_TESTS,
    ),
    Mutant(
        "grouped-idle-experts",
        "kernels",
        GROUPED,
        "return out.masked_fill_(idle[..., None], 0.0)",
        "return out",
        GROUPED_TESTS,
    ),
    Mutant(
        "moments-keep-strides",
        "kernels",
        "kernels/attention_moments/cpu.py",
        "query.new_zeros(query.shape, dtype=lse.dtype)",
        "torch.zeros_like(query, dtype=lse.dtype)",
        LAYOUTS,
    ),
    Mutant(
        "draws-equal-in-bags",
        "kernels",
        "kernels/softmax_pool/triton_kernels.py",
        "tl.zeros_like(place) + bag, ",
        "tl.zeros_like(place), ",
        ("kernels/test_triton.py", "-k", "interpreter and softmax_pool"),
    ),
    Mutant(
        "same-expert-twice",
        "kernels",
        "kernels/expert_gate/triton.py",
        'remaining = tl.where(remaining == remaining, remaining, float("inf"))',
        'remaining = tl.where(remaining == remaining, remaining, float("-inf"))',
        ("kernels/test_triton.py", "-k", "interpreter and expert_gate"),
    ),
    Mutant(
        "sizes-in-steps",
        "kernels",
        "kernels/time_warping/triton.py",
        "x, columns = contiguous(x, columns)",
        "x = x.contiguous()",
        ("kernels/test_triton.py", "-k", "interpreter and time_warping"),
    ),
    Mutant(
        "masked-by-rank-of-all",
        "kernels",
        "models/bags/acmil.py",
        "order = order.gather(0, bag[order].argsort(stable=True, dim=0))",
        "order = order.sort(0).values",
        ("models/bags/test_acmil.py", "-k", "alike"),
    ),
    Mutant(
        "third-order-no-tokens",
        "kernels",
        "kernels/tensor_attention/cpu.py",
        "for start in range(0, tokens, max(1, rows)):",
        "for start in range(0, tokens, rows):",
        (*LAYOUTS, "-k", "third_order"),
    ),
    Mutant(
        "windows-no-cells",
        "kernels",
        "kernels/neighbourhood/cpu.py",
        "mask.view(len(mask), where.height, where.width)",
        "mask.view(-1, where.height, where.width)",
        (*LAYOUTS, "-k", "windows"),
    ),
    Mutant(
        "sizes-read-while-compiling",
        "kernels",
        "kernels/time_warping/__init__.py",
        "elif size.is_cuda or torch.compiler.is_compiling():",
        "elif size.is_cuda:",
        ("kernels/time_warping", "-k", "compiled"),
    ),
    Mutant(
        "norm-over-the-tile",
        "kernels",
        "kernels/differential_combine/triton.py",
        "r = tl.rsqrt(tl.sum(y * y, 1) / width + eps)",
        "r = tl.rsqrt(tl.sum(y * y, 1) / WIDTH + eps)",
        ("gpu", "-k", "one_operator"),
    ),
]
