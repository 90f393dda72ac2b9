"""Files of weights in Whisper's shape, as others store them."""

import struct

import numpy as np


def ctranslate2(model, kind=np.float16):
    """A model.bin of version 6."""
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    found = {"decoder/num_heads": np.array(2, np.int16)}
    for side, own in (("encoder", "mixer"), ("decoder", "own")):
        for number in range(2):
            at, to = f"{side}.layers.{number}.", f"{side}/layer_{number}/"
            for kind_of in ("weight", "bias"):
                fused = np.concatenate(
                    [state[f"{at}{own}.query.{kind_of}"], state[f"{at}{own}.key_value.{kind_of}"]]
                )
                found[f"{to}self_attention/linear_0/{kind_of}"] = fused
                found[f"{to}self_attention/linear_1/{kind_of}"] = state[f"{at}{own}.out.{kind_of}"]
                for k, part in enumerate(("up", "down")):
                    found[f"{to}ffn/linear_{k}/{kind_of}"] = state[
                        f"{at}feedforward.{part}.{kind_of}"
                    ]
                if side == "decoder":
                    for k, part in enumerate(("query", "key_value", "out")):
                        found[f"{to}attention/linear_{k}/{kind_of}"] = state[
                            f"{at}cross.{part}.{kind_of}"
                        ]
            norms = (
                ["self_attention", "attention", "ffn"]
                if side == "decoder"
                else ["self_attention", "ffn"]
            )
            for k, part in enumerate(norms, 1):
                found[f"{to}{part}/layer_norm/gamma"] = state[f"{at}norm{k}.weight"]
                found[f"{to}{part}/layer_norm/beta"] = state[f"{at}norm{k}.bias"]
        found[f"{side}/layer_norm/gamma"] = state[f"{side}.norm.weight"]
        found[f"{side}/layer_norm/beta"] = state[f"{side}.norm.bias"]
        found[f"{side}/position_encodings/encodings"] = state[f"{side}.positions"]
    for k in (1, 2):
        for kind_of in ("weight", "bias"):
            found[f"encoder/conv{k}/{kind_of}"] = state[f"encoder.conv{k}.{kind_of}"]
    found["decoder/embeddings/weight"] = state["decoder.tokens.weight"]
    number = {np.float32: 0, np.float16: 4}[kind]
    text = lambda s: struct.pack("<H", len(s) + 1) + s.encode() + b"\0"  # noqa: E731
    out = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(found))
    for name, value in found.items():
        whole = value.dtype == np.int16
        data = value if whole else np.ascontiguousarray(value, kind)
        out += (
            text(name)
            + struct.pack("<B", data.ndim)
            + b"".join(struct.pack("<I", n) for n in data.shape)
        )
        out += struct.pack("<BI", 2 if whole else number, data.nbytes) + data.tobytes()
    return (
        out
        + struct.pack("<I", 1)
        + text("decoder/projection/weight")
        + text("decoder/embeddings/weight")
    )
