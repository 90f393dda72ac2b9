"""Bugs in how kernels are launched, what they promise to the compiler, and on which devices."""

from mutant import Mutant

LAUNCHES = ("kernels/test_launches.py",)

MUTANTS = [
    Mutant(
        "grid-limits",
        "kernels",
        "kernels/launching.py",
        "if any(programs > most for",
        "if any(programs < 0 for",
        LAUNCHES,
    ),
    Mutant(
        "heads-on-the-second-axis",
        "kernels",
        "kernels/attention_stats/triton.py",
        'by_key = (batch * heads * triton.cdiv(count, flags["KEYS"]),)',
        'by_key = (triton.cdiv(count, flags["KEYS"]), batch * heads)',
        LAUNCHES,
    ),
    Mutant(
        "compiled-for-each-batch",
        "kernels",
        "kernels/launching.py",
        '"tokens", "queries", "keys",',
        '"queries",',
        LAUNCHES,
    ),
    Mutant(
        "least-capability",
        "kernels",
        "kernels/forms.py",
        "LEAST_CAPABILITY = (8, 0)",
        "LEAST_CAPABILITY = (7, 0)",
        ("kernels/test_forms.py",),
    ),
    Mutant(
        "strides-of-gradients",
        "kernels",
        "kernels/attention_stats/cpu.py",
        "d_query, d_key = query.new_zeros(query.shape, dtype=kind), key.new_zeros",
        "d_query, d_key = torch.zeros_like(query, dtype=kind), key.new_zeros",
        ("kernels/test_layouts.py", "-k", "fake_forms and stats"),
    ),
    Mutant(
        "strided-log-sums",
        "kernels",
        "kernels/neighbourhood/triton.py",
        "grad, logits, value, lse = contiguous(grad, logits, value, lse)",
        "grad, logits, value = contiguous(grad, logits, value)",
        (
            "kernels/test_triton.py::test_in_the_interpreter_kernels_equal_the_plain_form"
            "[neighbourhood/interpreted.py]",
        ),
    ),
    Mutant(
        "columns-read-back",
        "kernels",
        "kernels/neighbourhood/cpu.py",
        "first = [min(max(0, column - shift), last) for column in range(where.width)]",
        "first = where.columns.tolist()",
        ("kernels/test_devices.py",),
    ),
    Mutant(
        "forms-without-the-limit",
        "kernels",
        "kernels/ragged_attention/__init__.py",
        "triton_refused(query, value) or kernel_refused(query, value),",
        "triton_refused(query, value),",
        ("kernels/test_explained.py",),
    ),
    Mutant(
        "maps-of-a-gradient",
        "kernels",
        "kernels/attention_maps/__init__.py",
        "return torch.is_grad_enabled() and any(",
        "return any(",
        ("kernels/test_explained.py",),
    ),
    Mutant(
        "many-heads-gathered-on-cuda",
        "kernels",
        "models/attention/moh.py",
        "if share <= SHARE_ON_CUDA:",
        "if share >= SHARE_ON_CUDA:",
        ("models/attention/test_moh.py", "-k", "on_a_gpu"),
    ),
    Mutant(
        "old-gpus-with-bf16",
        "kernels",
        "pipelines/engine/command_line/machine.py",
        "if capability < LEAST_CAPABILITY:",
        "if capability > LEAST_CAPABILITY:",
        ("pipelines/engine/test_doctor.py",),
    ),
    Mutant(
        "delta-of-a-fused-call",
        "kernels",
        "kernels/attention_stats/fused.py",
        "delta -= grad_entropy * (known - entropy)",
        "delta -= grad_entropy * known",
        ("kernels/attention_stats/test_fused.py", "-k", "alone"),
    ),
    Mutant(
        "hidden-keys-of-a-fused-call",
        "kernels",
        "kernels/fused_attention.py",
        "torch.cat([key.masked_fill(~shown, 0.0), marks], -1),",
        "torch.cat([key, marks], -1),",
        ("kernels/attention_stats/test_fused.py", "-k", "hidden"),
    ),
    Mutant(
        "few-tokens-in-two-calls",
        "kernels",
        "kernels/pair_attention/__init__.py",
        "LEAST_TOKENS, LEAST_TOKENS_BACKWARD = 512, 128",
        "LEAST_TOKENS, LEAST_TOKENS_BACKWARD = 1, 1",
        ("kernels/pair_attention/test_fused.py", "-k", "many_tokens"),
    ),
    Mutant(
        "torn-splits",
        "kernels",
        "kernels/ragged_attention/triton.py",
        "first = tl.minimum(split * size, count)",
        "first = split * size",
        (
            "kernels/test_triton.py::test_in_the_interpreter_kernels_equal_the_plain_form"
            "[ragged_attention/interpreted.py]",
        ),
    ),
    Mutant(
        "slope-of-roots-in-memory",
        "kernels",
        "kernels/signed_root_attention/triton.py",
        "tl.store(slopes + at, 0.5 * t / root, mask=inside)",
        "tl.store(slopes + at, t / root, mask=inside)",
        (
            "kernels/test_triton.py::test_in_the_interpreter_kernels_equal_the_plain_form"
            "[signed_root_attention/interpreted.py]",
        ),
    ),
    Mutant(
        "loss-of-another-device",
        "kernels",
        "tests/gpu/training.py",
        "near = math.isfinite(some) and abs(some - right) <=",
        "near = abs(some - right) >= 0 or abs(some - right) <=",
        ("gpu/test_check.py", "-k", "of_the_cpu"),
    ),
]
