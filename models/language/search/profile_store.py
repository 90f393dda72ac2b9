"""Running sums of influence over prompts, which a file holds between any two batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ....base.errors import one_line, reason
from ....base.files import write_aside
from ..plans.facts import ModelFacts
from .influence import AnsweredPrompt, Rows

METADATA = "headwise_profile"


class ProfileStore:
    """Block sums of influence of a model, by length, and which prompts they are of.

    L layers, K heads of keys, m blocks of `block` tokens: sums are float64 (L, K, m, m). Prompts of
    a length are added in their order; a stored sum goes on after the last of them.
    """

    def __init__(
        self,
        facts: ModelFacts,
        *,
        block: int = 16,
        rows: Rows = "answer",
        signed: bool = False,
        path: str | Path | None = None,
    ) -> None:
        """path: the file that `save` writes; None: nothing is written."""
        self.facts = facts
        self.block, self.rows, self.signed = block, rows, signed
        self.path = None if path is None else Path(path)
        self.sums: dict[int, Tensor] = {}
        self.prompts: dict[int, int] = {}
        self.digests: dict[int, str] = {}

    @classmethod
    def resume(
        cls,
        path: str | Path,
        facts: ModelFacts,
        *,
        block: int = 16,
        rows: Rows = "answer",
        signed: bool = False,
    ) -> ProfileStore:
        """The sums of a file, or empty ones where it is not there yet; `save` writes to it.

        Raises ValueError, in a line, for a damaged file and for sums of another model or of other
        settings.
        """
        store = cls(facts, block=block, rows=rows, signed=signed, path=path)
        if Path(path).exists():
            store._read(Path(path))
        return store

    def remaining(self, length: int, prompts: Sequence[AnsweredPrompt]) -> list[AnsweredPrompt]:
        """Prompts of a length that are not in the sums yet. ValueError where the sums are of other
        prompts than the first of these.
        """
        count = self.prompts.get(length, 0)
        if count > len(prompts) or _digest("", prompts[:count]) != self.digests.get(length, ""):
            raise ValueError(
                f"{self.path or 'profile'}: its {count} prompts of {length} tokens are not the "
                "first of these; remove it to start again"
            )
        return list(prompts[count:])

    def add(self, length: int, prompts: Sequence[AnsweredPrompt], sums: Tensor) -> None:
        """Add the sums of further prompts."""
        blocks = length // self.block
        shape = (self.facts.layers, self.facts.kv_heads, blocks, blocks)
        if sums.shape != shape:
            raise ValueError(f"sums at {length} tokens must be {shape}, not {tuple(sums.shape)}")
        total = self.sums.get(length)
        self.sums[length] = sums.double().cpu() if total is None else total + sums.double().cpu()
        self.prompts[length] = self.prompts.get(length, 0) + len(prompts)
        self.digests[length] = _digest(self.digests.get(length, ""), prompts)

    def mean(self, length: int) -> Tensor:
        """Mean over the prompts of a length: float64 (L, K, m, m). ValueError where none is."""
        if not self.prompts.get(length):
            raise ValueError(f"no prompt of {length} tokens was profiled")
        return self.sums[length] / self.prompts[length]

    def save(self) -> None:
        """Write the file aside and rename it; nothing without a path."""
        if self.path is None:
            return
        from safetensors.torch import save_file

        facts = {**self._settings(), "prompts": self.prompts, "digests": self.digests}
        metadata = {METADATA: json.dumps(facts, sort_keys=True)}
        tensors = {str(length): sums.contiguous() for length, sums in self.sums.items()}
        write_aside(self.path, lambda path: save_file(tensors, path, metadata))

    def _settings(self) -> dict[str, object]:
        return {
            "model": self.facts.sha256,
            "block": self.block,
            "rows": self.rows,
            "signed": self.signed,
        }

    def _read(self, path: Path) -> None:
        from safetensors import safe_open

        try:
            with safe_open(str(path), "pt") as file:
                stored = json.loads((file.metadata() or {})[METADATA])
                tensors = {int(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            prompts = {int(length): int(count) for length, count in stored["prompts"].items()}
            digests = {int(length): str(digest) for length, digest in stored["digests"].items()}
        except KeyError as error:
            raise ValueError(f"{path}: is no profile of influence ({one_line(error)})") from None
        except Exception as error:  # of safetensors, JSON, or the system
            raise ValueError(
                f"{path}: cannot be read as a profile of influence ({reason(error, 120)})"
            ) from None
        for name, value in self._settings().items():
            if stored.get(name) != value:
                raise ValueError(
                    f"{path}: is a profile with {name} {stored.get(name)}, not {value}; remove it "
                    "or name another file"
                )
        if not set(tensors) == set(prompts) == set(digests):
            raise ValueError(f"{path}: is a damaged profile: its lengths do not agree")
        for length, sums in tensors.items():
            # The sums only have to fit: `add` refuses other shapes.
            self.add(length, (), sums)
        self.prompts, self.digests = prompts, digests


def _digest(before: str, prompts: Sequence[AnsweredPrompt]) -> str:
    """SHA-256 of prompts in their order, which goes on from that of earlier ones; "" for none."""
    for tokens, answer in prompts:
        sha = hashlib.sha256(before.encode())
        sha.update(tokens.cpu().to(torch.int64).contiguous().numpy().tobytes())
        sha.update(answer.cpu().contiguous().numpy().tobytes())
        before = sha.hexdigest()
    return before
