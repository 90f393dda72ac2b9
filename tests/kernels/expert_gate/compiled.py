"""Calls of the gate of experts that are compiled; see `compiling`."""

import torch

from headwise.kernels.expert_gate import triton as gpu


def calls():
    for experts, active in ((8, 2), (1024, 8)):
        for score in gpu.SCORES:
            scores = torch.empty(512, experts, device="meta")
            bias = torch.empty(experts, device="meta")
            mask = torch.empty(512, dtype=torch.bool, device="meta")

            def call(scores=scores, bias=bias, mask=mask, active=active, score=score):
                weights, chosen, _, mean, logs, _, tokens, lse = gpu.forward(
                    scores, bias, mask, active, score, True, 1.0
                )
                slopes = weights, mean, logs
                gpu.backward(*slopes, scores, chosen, lse, tokens, score, True, 1.0)

            yield f"{experts} experts, {active} chosen by {score}", call
