"""Headwise's mechanisms in models of mmdetection and mmsegmentation (extra `openmmlab`).

In a config: `custom_imports = dict(imports=["headwise.models.adapters.openmmlab.moe_tune"])`.
"""
