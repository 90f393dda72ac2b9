"""Checks of option values that no data can make right. Nothing here imports torch."""

from ...base.errors import InputError
from ..engine.command_line.checks import check_least, check_shares, check_unread, flag, is_of_a_run
from ..engine.mechanisms import check_mixing
from .options import OF_STAGES, VARIANTS, BodyOptions, CompareOptions, MedicalOptions


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    if isinstance(options, MedicalOptions | BodyOptions):
        sizes = {"body_size": (16, 1024)}
        if isinstance(options, MedicalOptions):
            sizes = {"size": (32, 2048), **sizes}
        for name, (least, most) in sizes.items():
            _check_size(name, getattr(options, name), least, most)
        at_least_one = ("body_width", "head_width", "epochs", "batch_size")
        check_least(options, {**dict.fromkeys(at_least_one, 1), "folds": 2})
    if isinstance(options, CompareOptions):
        _check_comparison(options)
    if isinstance(options, MedicalOptions):
        _check_training(options)
        _check_attention(options)


def _check_size(name: str, size: tuple[int, ...], least: int, most: int) -> None:
    if len(size) != 2 or not all(least <= side <= most for side in size):
        raise InputError(
            f"{flag(name)} {' '.join(map(str, size))}: needs height and width, {least} to {most} "
            "pixels"
        )


def _check_comparison(options: CompareOptions) -> None:
    check_least(options, {"seeds": 1})
    check_unread(options, ("choose",), "train; compare scores the attention models by themselves")
    if unknown := [name for name in options.models if name not in VARIANTS]:
        raise InputError(f"--models {unknown[0]}: unknown; there are {', '.join(VARIANTS)}")
    if not options.models or len(set(options.models)) < len(options.models):
        raise InputError("--models: give at least one, and none twice")
    if (options.attention, options.sees, options.form) != ("medusa", "both", "residual"):
        raise InputError(
            "compare: --models say the attention; leave out --attention, --sees and --form"
        )


def _check_training(options: MedicalOptions) -> None:
    shares = ("dropout", "validation_share", "test_share", "zoom", "aspect", "brightness", "shift")
    check_shares(options, shares)
    if not options.validation_share:
        raise InputError(
            "--validation-share 0: temperature and operating point are chosen on the validation "
            "part"
        )
    if not 0 <= options.turn <= 180:
        raise InputError(f"--turn {options.turn}: must be in [0, 180] degrees")
    if options.sensitivity is not None and not 0 < options.sensitivity <= 1:
        raise InputError(f"--sensitivity {options.sensitivity}: must be in (0, 1]")
    if not 0 < options.body_share <= 100:
        raise InputError(f"--body-share {options.body_share}: must be in (0, 100]")
    if len(set(options.classes)) < len(options.classes) or len(options.classes) == 1:
        raise InputError("--classes: give at least two, and none twice")
    _check_finding(options)
    _check_imbalance(options)
    if options.positive is not None and options.classes and options.positive not in options.classes:
        raise InputError(f"--positive {options.positive}: is none of --classes")
    if options.box_frame is not None and (options.boxes is None or min(options.box_frame) < 1):
        raise InputError("--box-frame: needs --boxes, and a width and a height in pixels")


def _check_finding(options: MedicalOptions) -> None:
    if options.uncertain is not None and options.finding is None and not options.findings:
        raise InputError(f"--uncertain {options.uncertain}: needs --finding or --findings")
    if options.finding is not None and (options.classes or options.positive is not None):
        raise InputError(
            "--finding: makes two classes of its own, of which the finding is the positive one; "
            "leave out --classes and --positive"
        )
    if not options.findings:
        return
    for name in ("finding", "classes", "positive"):
        if getattr(options, name):
            raise InputError(f"--findings: learns each finding by itself; leave out {flag(name)}")
    if options.data is None:
        raise InputError("--findings: the generated sample has one label a picture; give --data")
    if len(options.findings) == 1 and options.findings != ("all",):
        name = options.findings[0]
        raise InputError(f"--findings {name}: give at least two, or all; of one: --finding {name}")
    repeated = len(set(options.findings)) < len(options.findings)
    if repeated or ("all" in options.findings and len(options.findings) > 1):
        raise InputError("--findings: give each once, or all alone")
    check_unread(options, ("balanced",), "a training of classes or of one finding")


def _check_imbalance(options: MedicalOptions) -> None:
    if is_of_a_run():
        return
    if options.class_weights:
        raise InputError("--class-weights: say --imbalance pos-weight, which took its place")
    kind = options.imbalance
    if options.findings:
        if kind == "diverse":
            raise InputError(
                "--imbalance diverse: is for classes that exclude each other, not for --findings"
            )
        return
    if kind == "asymmetric":
        raise InputError("--imbalance asymmetric: is for --findings, not for one class a picture")
    if options.balanced and kind not in ("none", "focal"):
        raise InputError(
            f"--imbalance {kind}: goes by how frequent classes are, and batches hold all alike; "
            "add --no-balanced"
        )


def _check_attention(options: MedicalOptions) -> None:
    has_heads = options.attention == "medusa"
    if not has_heads:
        check_unread(options, ("sees", "form"), "the heads of --attention medusa")
    check_mixing(
        options,
        fits=("any tokens", "grid"),
        why="the tokens are the cells of a map",
        others=OF_STAGES,
    )
    unread = ()
    if options.attention in OF_STAGES:
        reader = (
            f"the layer of a mechanism, such as --attention softmax, not by {options.attention}"
        )
        check_unread(options, ("ffn",), reader)
    if options.attention == "none" or options.attention not in OF_STAGES:
        unread = ("body_width", "head_width", "body_size")
    if options.sees == "local":
        unread = ("body_width", "body_size")
    check_unread(options, unread, "attention with a body, which this has not")
    if options.body is None:
        check_unread(options, ("body_share",), "a training that starts from --body")
    if options.body is not None and (not has_heads or options.sees == "local"):
        raise InputError("--body: this attention has no body; leave it out")
