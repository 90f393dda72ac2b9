"""One call registers an operator: CPU form, Triton form, fake tensors, gradient, form for export.

    operator(
        "ragged_attention",              # torch.ops.headwise.ragged_attention
        cpu.forward,                     # its annotated signature is the operator's
        fake=empty,                      # the same arguments -> results without values
        results=("out", "lse"),
        fits=fits,                       # whether the Triton form takes the arguments
        export=naive.ragged_attention,   # what an exported program runs in its place
        backward=cpu.backward,           # torch.ops.headwise.ragged_attention_backward
        backward_fits=fits,
        gradients=("query", "key", "value"),
    )

Functions ask for arguments by name. `fits` names some parameters of its form. `backward` names
`grad`, the gradient of the first result, `grad_<result>` of another one, and the arguments and
results of the forward form that must be saved; results whose gradient it does not ask for are not
differentiable. It returns one gradient for each name in `gradients`; that of an argument that was
None is dropped.

The Triton form is the function of the same name in `triton.py` next to `cpu.py`. It is imported at
the first call with a CUDA tensor that fits, so nobody on a CPU pays for it; all launches pass
through `on_cuda`, which selects the device of the tensors. Where `triton_refused` has a reason (no
Triton, an old GPU) or `fits` says no, CUDA tensors take the CPU form, which is plain PyTorch."""

from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from inspect import signature

import torch
from torch import Tensor
from torch._library.autograd import make_autograd_impl
from torch._library.custom_ops import CustomOpDef
from torch.autograd.forward_ad import unpack_dual

from .forms import triton_refused
from .precision import outside_autocast

# What `torch.export` writes in place of an operator, where it has such a form.
EXPORT_FORMS: dict[torch._ops.OpOverload, Callable[..., object]] = {}

Function = Callable[..., object]

# Registers what custom operators of PyTorch lack: a refusal of derivatives that they do not have.
_REFUSALS = torch.library.Library("headwise", "IMPL")
_AUTOGRAD_KEYS = ("AutogradCPU", "AutogradCUDA", "AutogradMeta")


def operator(
    name: str,
    forward: Function,
    *,
    fake: Function,
    results: Sequence[str] = ("out",),
    fits: Callable[..., bool] | None = None,
    export: Function | None = None,
    backward: Function | None = None,
    backward_fake: Function | None = None,
    backward_fits: Callable[..., bool] | None = None,
    gradients: Sequence[str] = (),
) -> CustomOpDef:
    """Register `torch.ops.headwise.<name>` and, with `backward`, `<name>_backward`; see above.

    fits, backward_fits: None if there is no Triton form. backward_fake: by default, tensors like
    the arguments named in `gradients`, (0,) for None.
    """
    definition = _registered(name, forward, fake, fits)
    if export is not None:
        EXPORT_FORMS[_operator(name).default] = export
    if backward is not None:
        slopes = backward_fake or _like(backward, gradients)
        _registered(f"{name}_backward", backward, slopes, backward_fits)
        call = _operator(f"{name}_backward")
        differentiate(definition, forward, backward, gradients, results, call)
    return definition


def _operator(name: str) -> torch._ops.OpOverloadPacket:
    return getattr(torch.ops.headwise, name)


def _registered(
    name: str, form: Function, fake: Function, fits: Callable[..., bool] | None
) -> CustomOpDef:
    call = _outside_autocast(form)
    definition = torch.library.custom_op(f"headwise::{name}", call, mutates_args=())
    definition.register_fake(fake)
    definition.register_autograd(_refusal(name, form.__module__))
    autograd = _with_reverse_mode_only(name, form.__module__, definition)
    for key in _AUTOGRAD_KEYS:
        _REFUSALS.impl(name, autograd, key, with_keyset=True)
    if fits is not None:
        definition.register_kernel("cuda", _outside_autocast(on_cuda(form, fits)))
    return definition


def _outside_autocast(form: Function) -> Function:
    """A form whose steps autocast does not change: operands were cast before the operator."""

    @wraps(form)
    def call(*arguments: object) -> object:
        with outside_autocast(next(x for x in arguments if isinstance(x, Tensor))):
            return form(*arguments)

    return call


def _refusal(name: str, module: str) -> Function:
    """The derivative of an operator that has none, until `differentiate` gives it one: a line."""
    line = f"headwise.{name} cannot be differentiated"
    if name.endswith("_backward"):
        line = _only_formula(name, module, "twice")

    def refuse(ctx, *grads: Tensor | None):  # type: ignore[no-untyped-def]
        raise NotImplementedError(line)

    return refuse


def _only_formula(name: str, module: str, how: str) -> str:
    """What is said of a derivative that only the formula has."""
    operator, formula = name.removesuffix("_backward"), f"{module.removesuffix('.cpu')}.naive"
    return f"headwise.{operator} cannot be differentiated {how}; the formula in {formula} can"


def _with_reverse_mode_only(name: str, module: str, definition: CustomOpDef) -> Function:
    """The operator under autograd, which refuses tangents and torch.func.

    Custom operators of PyTorch take tensors with a tangent for constants without a word.
    """
    reverse_mode = make_autograd_impl(_operator(name).default, definition)
    twice = name.endswith("_backward")

    def call(keyset: object, *arguments: object, **named: object) -> object:
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        if any(unpack_dual(x).tangent is not None for x in tensors):
            raise NotImplementedError(
                _only_formula(name, module, "twice" if twice else "in forward mode")
            )
        transformed = torch._C._are_functorch_transforms_active() and torch.is_grad_enabled()
        if transformed and any(x.requires_grad for x in tensors):
            how = "by torch.func, only by backward()"
            raise NotImplementedError(_only_formula(name, module, how))
        return reverse_mode(keyset, *arguments, **named)

    return call


def on_cuda(form: Function, fits: Callable[..., bool]) -> Function:
    """What runs for CUDA tensors: the Triton form on their device if it fits, else `form`."""
    package = form.__module__.removesuffix(".cpu")
    names = list(signature(form).parameters)
    asked = [names.index(name) for name in signature(fits).parameters]

    def launch(*arguments: object) -> object:
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        if triton_refused(*tensors) or not fits(*(arguments[place] for place in asked)):
            return form(*arguments)
        triton_form = getattr(import_module(f"{package}.triton"), form.__name__)
        with torch.cuda.device(tensors[0].device):
            return triton_form(*arguments)

    return launch


def _like(backward: Function, gradients: Sequence[str]) -> Function:
    """Fake gradients: contiguous tensors like the arguments of these names."""
    names = list(signature(backward).parameters)
    places = [names.index(name) for name in gradients]

    def fake(*arguments: Tensor | None) -> object:
        first = arguments[places[0]]
        assert first is not None
        inputs = [arguments[place] for place in places]
        empty = [first.new_empty((0,)) if x is None else x.new_empty(x.shape) for x in inputs]
        return tuple(empty) if len(empty) > 1 else empty[0]

    return fake


def differentiate(
    definition: CustomOpDef,
    forward: Function,
    backward: Function,
    gradients: Sequence[str],
    results: Sequence[str] = ("out",),
    call: Function | None = None,
) -> None:
    """Make an operator differentiable. backward: its signature decides what is saved, see above;
    call: what runs, by default `backward` itself, which then is a function of operators.
    """
    run = call or backward
    names = list(signature(forward).parameters)
    asked = signature(backward).parameters
    slopes = {"grad": 0} | {f"grad_{result}": place for place, result in enumerate(results)}
    slopes = {name: place for name, place in slopes.items() if name in asked}
    saved = [name for name in asked if name not in slopes]
    tensors = [name for name in saved if asked[name].annotation in (Tensor, Tensor | None)]
    required = [name for name in slopes if asked[name].annotation is Tensor]
    known, expected = {*names, *results}, {*saved, *gradients}
    assert len(known) == len(names) + len(results), (
        f"an argument and a result share a name: {known}"
    )
    assert expected <= known, f"unknown names: {expected - known}"

    def save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        outputs = output if isinstance(output, tuple) else (output,)
        values = dict(zip(names, inputs)) | dict(zip(results, outputs))
        ctx.save_for_backward(*(values[name] for name in tensors))
        ctx.constants = {name: values[name] for name in saved if name not in tensors}
        ctx.used = [value is not None for value in inputs]
        fixed = [x for place, x in enumerate(outputs) if place not in slopes.values()]
        ctx.mark_non_differentiable(*fixed)
        ctx.set_materialize_grads(bool(required) and len(slopes) > 1)

    def gradient(ctx, *grads: Tensor | None):  # type: ignore[no-untyped-def]
        towards = {name: grads[place] for name, place in slopes.items()}
        if all(grad is None for grad in towards.values()):
            return (None,) * len(names)
        values = towards | dict(zip(tensors, ctx.saved_tensors)) | ctx.constants
        computed = run(*(values[name] for name in asked))
        parts = computed if isinstance(computed, (tuple, list)) else (computed,)
        by_name = dict(zip(gradients, parts, strict=True))
        return tuple(by_name.get(name) if used else None for name, used in zip(names, ctx.used))

    definition.register_autograd(gradient, setup_context=save)
