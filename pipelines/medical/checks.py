"""Option values that no data can make right."""

from typing import Any

from ...base.errors import InputError
from ..engine.command_line.checks import check_least
from .options import VARIANTS, BodyOptions, CompareOptions, MedicalOptions


def check(options: Any) -> None:
    """Raise `InputError` for the first of them."""
    sides = ("size", "body_size") if isinstance(options, MedicalOptions) else ("body_size",)
    if isinstance(options, MedicalOptions | BodyOptions):
        for name in sides:
            least, most = (32, 2048) if name == "size" else (16, 1024)
            value = getattr(options, name)
            if len(value) != 2 or not all(least <= side <= most for side in value):
                raise InputError(
                    f"--{name.replace('_', '-')} {' '.join(map(str, value))}: needs height and width, "
                    f"{least} to {most} pixels"
                )
        check_least(
            options, {"body_width": 1, "head_width": 1, "folds": 2, "epochs": 1, "batch_size": 1}
        )
    if not isinstance(options, MedicalOptions):
        return
    if isinstance(options, CompareOptions):
        check_least(options, {"seeds": 1})
        if unknown := [name for name in options.models if name not in VARIANTS]:
            raise InputError(f"--models {unknown[0]}: unknown; there are {', '.join(VARIANTS)}")
        if not options.models or len(set(options.models)) < len(options.models):
            raise InputError("--models: give at least one, and none twice")
        if (options.attention, options.sees, options.form) != ("medusa", "both", "residual"):
            raise InputError(
                "compare: --models say the attention; leave out --attention, --sees and --form"
            )
    for name in (
        "dropout",
        "validation_share",
        "test_share",
        "zoom",
        "aspect",
        "brightness",
        "shift",
    ):
        if not 0 <= getattr(options, name) < 1:
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: must be in [0, 1)"
            )
    if not options.validation_share:
        raise InputError(
            "--validation-share 0: temperature and operating point are chosen on the validation part"
        )
    if not 0 <= options.turn <= 180:
        raise InputError(f"--turn {options.turn}: must be in [0, 180] degrees")
    if options.sensitivity is not None and not 0 < options.sensitivity <= 1:
        raise InputError(f"--sensitivity {options.sensitivity}: must be in (0, 1]")
    if not 0 < options.body_share <= 100:
        raise InputError(f"--body-share {options.body_share}: must be in (0, 100]")
    if len(set(options.classes)) < len(options.classes) or len(options.classes) == 1:
        raise InputError("--classes: give at least two, and none twice")
    if options.positive is not None and options.classes and options.positive not in options.classes:
        raise InputError(f"--positive {options.positive}: is none of --classes")
    heads = options.attention == "medusa"
    for name, plain in (("sees", "both"), ("form", "residual")):
        if not heads and getattr(options, name) != plain:
            raise InputError(
                f"--{name} {getattr(options, name)}: is of the heads of --attention medusa"
            )
    if options.body is not None and (not heads or options.sees == "local"):
        raise InputError("--body: this attention has no body; leave it out")
    if options.box_frame is not None and (options.boxes is None or min(options.box_frame) < 1):
        raise InputError("--box-frame: needs --boxes, and a width and a height in pixels")
