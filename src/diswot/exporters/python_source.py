"""Python source of a network: one class with its layers and forward pass, which needs only torch.

`torch.fx` traces the forward pass through every module that is not torch's own. Torch's layers are
written as their `repr`. Dots in layer names become underscores.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized

from diswot.errors import UserError, first_line
from diswot.utils.compat import TRACED_FUNCTIONS, has_hooks, traced_assert

# Names in traced code, and their spelling in a module that imports torch alone.
_SPELLING = {"inf": 'float("inf")', "nan": 'float("nan")', "device": "torch.device"}
_FREED = re.compile(r";  (\w+ = )+None")
_INSTEAD = "use --format onnx or torch"

State = dict[str, Tensor]


def source(model: nn.Module) -> tuple[str, State]:
    """Return the source of a class `Student` without arguments that computes the same as `model`.

    Args:
        model: Network in evaluation mode; its forward pass must not depend on the batch size.

    Returns:
        Source for a module that imports torch and nn, and the state dict of the class.

    Raises:
        UserError: The forward pass cannot be traced, or uses functions that are not torch's.
    """
    graph = _traced(model)
    lines: dict[str, str] = {}
    state: State = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            path, flat = str(node.target), _flat(str(node.target))
            line, tensors = _constructor(model, path)
            if lines.setdefault(flat, line) != line:
                raise UserError(f"two layers of the network would be named {flat}; {_INSTEAD}")
            state |= {f"{flat}{inner}": tensor for inner, tensor in tensors.items()}
            node.target = flat
    built = [f"        {_statement(flat, line)}" for flat, line in lines.items()]
    start = ["class Student(nn.Module):", "    def __init__(self) -> None:"]
    head = [*start, "        super().__init__()", *built, ""]
    return "\n".join([*head, *_forward(graph)]) + "\n", state


class _Tracer(fx.Tracer):
    """Tracer that enters every module except torch's layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        return type(m).__module__.startswith("torch.nn.") and not isinstance(m, containers)


def _traced(model: nn.Module) -> fx.Graph:
    try:
        graph = fx.GraphModule(model, _Tracer().trace(model)).graph
    except Exception as error:  # a tracer may raise anything for a network it cannot follow
        raise UserError(
            f"the network cannot be written as source ({first_line(error)}); {_INSTEAD}"
        ) from error
    for node in graph.nodes:
        node.type = None
        if node.op == "call_function" and node.target is traced_assert:  # a check of shapes
            graph.erase_node(node)
        elif node.op == "call_module" and _does_nothing(model.get_submodule(str(node.target))):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    return graph


def _does_nothing(module: nn.Module) -> bool:
    return type(module) is nn.Identity or (type(module) is nn.Dropout and module.p == 0)


def _flat(path: str) -> str:
    flat = re.sub(r"\W", "_", path)
    return flat if flat.isidentifier() else f"layer_{flat}"


def _constructor(model: nn.Module, path: str) -> tuple[str, State]:
    """Return the code that makes a layer or a tensor, and its tensors by the end of their names."""
    parent, _, last = path.rpartition(".")
    thing = getattr(model.get_submodule(parent), last)
    if isinstance(thing, nn.Module):
        tensors = {f".{name}": value for name, value in thing.state_dict().items()}
        return _layer(thing, path), tensors
    if isinstance(thing, Tensor):
        empty = f"torch.empty({tuple(thing.shape)}, dtype={thing.dtype})"
        kept = f"nn.Parameter({empty})" if isinstance(thing, nn.Parameter) else empty
        return kept, {"": thing.detach()}
    raise UserError(f"{path} of the network is a {type(thing).__name__}; {_INSTEAD}")


def _statement(flat: str, line: str) -> str:
    """Return the statement of `__init__` that registers a layer or a tensor."""
    if line.startswith("torch.empty"):
        return f'self.register_buffer("{flat}", {line})'
    return f"self.{flat} = {line}"


def _layer(module: nn.Module, path: str) -> str:
    """Return the call that makes one of torch's layers, and check that it makes the same layer."""
    kind = type(module).__name__
    text = f"nn.{_WRITTEN[type(module)](module) if type(module) in _WRITTEN else repr(module)}"
    if "Norm" in kind:  # older versions of torch have no such argument; True is its default
        text = text.replace(", bias=True", "")
    try:
        again = eval(text, {"nn": nn, "__builtins__": {"True": True, "False": False}})
        same = repr(again) == repr(module) and _shapes(again) == _shapes(module)
    except Exception:  # the repr is not a valid call
        same = False
    if not same or "\n" in text:
        raise UserError(
            f"{path} is a {kind}{_special(module)}, which cannot be written as source; {_INSTEAD}"
        )
    return text


def _special(module: nn.Module) -> str:
    """Say what makes a layer other than its kind; nothing if it is not known."""
    if is_parametrized(module):
        return " with a parametrization, such as weight norm"
    if has_hooks(module):
        return " with hooks, such as weight norm's"
    return ""


def _convolution(module: nn.Module) -> str:
    return re.sub(r"padding_mode=(\w+)", r'padding_mode="\1"', repr(module))


def _pool(module: Any) -> str:
    sides = f"{module.kernel_size}, {module.stride}, {module.padding}"
    rest = f"{module.ceil_mode}, {module.count_include_pad}, {module.divisor_override}"
    return f"AvgPool2d({sides}, {rest})"


# Layers whose repr lacks arguments, or is no call.
_WRITTEN: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.AvgPool2d: _pool,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
}


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _forward(graph: fx.Graph) -> list[str]:
    """Return the source of `forward`; it refers to torch alone."""
    code = graph.python_code("self")
    text = _FREED.sub("", code.src).replace(TRACED_FUNCTIONS, "torch.nn.functional.")
    for name, value in code.globals.items():
        if not re.search(rf"\b{re.escape(name)}\b", text):
            continue
        if name in _SPELLING:
            text = re.sub(rf"(?<!\.)\b{name}\b", _SPELLING[name], text)
        elif value is not torch and not _is_torch(value):
            raise UserError(f"the network calls {name}, which is not torch's; {_INSTEAD}")
    lines = [line for line in text.splitlines() if line.strip()]
    signature = re.sub(r"\) ->.*:$|\):$", ") -> torch.Tensor:", lines[0].strip())
    return [f"    {signature}", *(f"    {line.rstrip()}" for line in lines[1:])]


def _is_torch(value: object) -> bool:
    home = getattr(value, "__module__", None)
    return str(home).split(".")[0] in ("torch", "operator", "_operator", "math", "builtins")
