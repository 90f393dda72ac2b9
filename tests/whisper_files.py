"""Files of weights in Whisper's shape, as others store them."""

import struct

import numpy as np


def ctranslate2(model, kind=np.float16):
    """A model.bin of version 6."""
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    variables = {"decoder/num_heads": np.array(2, np.int16)}
    for side, block in (("encoder", "mixer"), ("decoder", "own")):
        for number in range(2):
            at, to = f"{side}.layers.{number}.", f"{side}/layer_{number}/"
            for kind_of in ("weight", "bias"):
                fused = np.concatenate(
                    [
                        state[f"{at}{block}.query.{kind_of}"],
                        state[f"{at}{block}.key_value.{kind_of}"],
                    ]
                )
                variables[f"{to}self_attention/linear_0/{kind_of}"] = fused
                variables[f"{to}self_attention/linear_1/{kind_of}"] = state[
                    f"{at}{block}.out.{kind_of}"
                ]
                for k, part in enumerate(("up", "down")):
                    variables[f"{to}ffn/linear_{k}/{kind_of}"] = state[
                        f"{at}feedforward.{part}.{kind_of}"
                    ]
                if side == "decoder":
                    for k, part in enumerate(("query", "key_value", "out")):
                        variables[f"{to}attention/linear_{k}/{kind_of}"] = state[
                            f"{at}cross.{part}.{kind_of}"
                        ]
            norms = (
                ["self_attention", "attention", "ffn"]
                if side == "decoder"
                else ["self_attention", "ffn"]
            )
            for k, part in enumerate(norms, 1):
                variables[f"{to}{part}/layer_norm/gamma"] = state[f"{at}norm{k}.weight"]
                variables[f"{to}{part}/layer_norm/beta"] = state[f"{at}norm{k}.bias"]
        variables[f"{side}/layer_norm/gamma"] = state[f"{side}.norm.weight"]
        variables[f"{side}/layer_norm/beta"] = state[f"{side}.norm.bias"]
        variables[f"{side}/position_encodings/encodings"] = state[f"{side}.positions"]
    for k in (1, 2):
        for kind_of in ("weight", "bias"):
            variables[f"encoder/conv{k}/{kind_of}"] = state[f"encoder.conv{k}.{kind_of}"]
    variables["decoder/embeddings/weight"] = state["decoder.tokens.weight"]
    number = {np.float32: 0, np.float16: 4}[kind]
    text = lambda s: struct.pack("<H", len(s) + 1) + s.encode() + b"\0"  # noqa: E731
    out = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        is_integer = value.dtype == np.int16
        data = value if is_integer else np.ascontiguousarray(value, kind)
        out += (
            text(name)
            + struct.pack("<B", data.ndim)
            + b"".join(struct.pack("<I", n) for n in data.shape)
        )
        out += struct.pack("<BI", 2 if is_integer else number, data.nbytes) + data.tobytes()
    return (
        out
        + struct.pack("<I", 1)
        + text("decoder/projection/weight")
        + text("decoder/embeddings/weight")
    )
