"""A network as steps that a page can take without PyTorch: the graph of `torch.export`, its constants computed.

Each value has a number: inputs, constants, and what each step gives. The batch has one row, so that every shape is
known beforehand. `static/decoder.js` takes the steps.
"""

from __future__ import annotations

import math
import operator
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export
from torch.fx import Node
from torch.fx.node import map_arg

from aevb.errors import AevbError

# What decoder.js knows: values that keep their numbers in another shape; elementwise steps; all others.
WORDS = """
same: _to_copy alias clone view reshape _unsafe_view unsqueeze squeeze detach contiguous
unary: abs ceil cos erf exp expm1 floor isfinite isnan log log1p logical_not neg reciprocal relu round rsqrt sigmoid
    sign silu sin softplus sqrt tan tanh trunc gelu leaky_relu elu clamp hardtanh bitwise_not
binary: add sub mul div minimum maximum pow atan2 gt lt ge le eq ne logical_and logical_or bitwise_and bitwise_or
other: addmm mm convolution upsample_nearest2d native_layer_norm native_group_norm where expand permute slice select
    _native_batch_norm_legit_no_training cat sum mean amax amin _softmax _log_softmax index_select cumsum gather
    searchsorted argmax index_put
"""
SAME, UNARY, BINARY, OTHER = (part.split() for part in re.split(r"\w+: ", WORDS)[1:])
KNOWN = {*UNARY, *BINARY, *OTHER}
LIKE = ("full_like", "zeros_like", "ones_like", "empty_like")  # of which only the shape of the argument counts


class UnknownStep(AevbError):
    """A network takes a step that a page cannot take."""


@dataclass
class Graph:
    """A network as steps.

    Attributes:
        inputs: number and shape by name.
        constants: by number.
        steps: (number, operation, arguments, shape); an argument is {"v": number} of a value, {"n": "Infinity"} or the
            like, or plain.
        outputs: numbers by name.
    """

    inputs: dict[str, tuple[int, list[int]]]
    constants: dict[int, Tensor] = field(default_factory=dict)
    steps: list[tuple[int, str, list[Any], list[int]]] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, all but the constants."""
        return {"inputs": self.inputs, "steps": self.steps, "outputs": self.outputs}


def graph_of(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Graph:
    """The steps of a module that maps inputs (1, ...) to a tuple of as many outputs.

    Raises:
        UnknownStep: PyTorch cannot follow the module, or it takes a step that no page knows.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch says of its own insides
        try:
            program = export(module, tuple(inputs.values()), strict=False).run_decompositions()
        except Exception as error:  # of any kind: the module may be a user's own
            reason = str(error).strip().partition("\n")[0]
            raise UnknownStep(f"PyTorch cannot export this network: {reason or type(error).__name__}") from error
        return _Reader(program, inputs).read(outputs)


class _Reader:
    """Reads an exported program; what depends on no input is computed now."""

    def __init__(self, program: ExportedProgram, inputs: Mapping[str, Tensor]) -> None:
        self.program = program
        self.graph = Graph({name: (i, list(x.shape)) for i, (name, x) in enumerate(inputs.items())})
        self.count = len(inputs)
        self.known: dict[Node, Any] = {}  # constants
        self.numbers: dict[Node, int] = {}  # of values that are not

    def read(self, outputs: Sequence[str]) -> Graph:
        self._read_placeholders()
        for node in self._alive():
            self._read_call(node)
        found = next(n for n in self.program.graph.nodes if n.op == "output").args[0]
        self.graph.outputs = {name: self._number(node) for name, node in zip(outputs, found, strict=True)}
        return self.graph

    def _read_placeholders(self) -> None:
        signature = self.program.graph_signature
        held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        held |= signature.inputs_to_lifted_tensor_constants
        states = {**self.program.constants, **self.program.state_dict}
        nodes = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        self.known = {node: states[held[node.name]].detach() for node in nodes if node.name in held}
        self.numbers = {node: i for i, node in enumerate(node for node in nodes if node.name not in held)}

    def _alive(self) -> list[Node]:
        """The calls on which the outputs depend, in order."""
        nodes, needed = list(self.program.graph.nodes), set[Node]()
        for node in reversed(nodes):
            if node.op == "output" or node in needed:
                needed.update(node.all_input_nodes)
        return [node for node in nodes if node.op == "call_function" and node in needed]

    def _read_call(self, node: Node) -> None:
        name = name_of(node)
        if name in LIKE:
            self.known[node] = _called(node, _zeros)
        elif all(a in self.known for a in node.all_input_nodes):
            self.known[node] = _called(node, self.known.__getitem__)
        elif node.target is operator.getitem:
            self._read_part(node)
        elif name in SAME:
            kept = [{"v": self.numbers[node.all_input_nodes[0]]}]
            self._add(node, "trunc" if _becomes_whole(node) else "same", kept)
        elif name != "split_with_sizes":
            self._read_step(node, name)

    def _read_part(self, node: Node) -> None:
        """One of several results: a slice of a split, or the first of a norm."""
        source, which = node.all_input_nodes[0], int(node.args[1])  # type: ignore[arg-type]
        if name_of(source) != "split_with_sizes":
            self.numbers[node] = self.numbers[source]
            return
        x, sizes, dim = arguments_of(source)
        start = sum(sizes[:which])
        self._add(node, "slice", [self._written(x), dim, start, start + sizes[which], 1])

    def _read_step(self, node: Node, name: str) -> None:
        if name not in KNOWN or not _fits(node, name):
            raise UnknownStep(f"The network has an operation that pages do not support: {name}.")
        self._add(node, name, [self._written(a) for a in arguments_of(node)])

    def _add(self, node: Node, name: str, arguments: list[Any]) -> None:
        value = node.meta["val"]
        shape = list((value[0] if isinstance(value, tuple | list) else value).shape)
        self.numbers[node] = self._next()
        self.graph.steps.append((self.numbers[node], name, arguments, shape))

    def _next(self) -> int:
        self.count += 1
        return self.count - 1

    def _written(self, argument: Any) -> Any:
        """An argument for JSON."""
        if isinstance(argument, Node):
            return {"v": self._number(argument)}
        if isinstance(argument, list | tuple):
            return [self._written(a) for a in argument]
        if isinstance(argument, float) and not math.isfinite(argument):
            return {"n": str(argument).replace("inf", "Infinity").replace("nan", "NaN")}
        return argument if isinstance(argument, int | float | str | None) else None  # types and places of tensors

    def _number(self, node: Node) -> int:
        if node not in self.numbers:
            self.numbers[node] = self._next()
            self.graph.constants[self.numbers[node]] = self.known[node]
        return self.numbers[node]


def name_of(node: Node) -> str:
    """addmm of aten.addmm.default."""
    packet = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else str(packet).rpartition(".")[2]


def arguments_of(node: Node) -> list[Any]:
    """All arguments in the order of the operation, with its defaults."""
    taken = node.target._schema.arguments  # type: ignore[union-attr]
    given = {a.name: value for a, value in zip(taken, node.args, strict=False)} | node.kwargs
    usual = [a.default_value if a.has_default_value() else None for a in taken]
    return [given.get(a.name, value) for a, value in zip(taken, usual, strict=True)]


def _fits(node: Node, name: str) -> bool:
    """Whether the arguments are of the form that decoder.js reads."""
    if name == "index_put":  # along the last axis, by one list
        x, at, _, accumulate = arguments_of(node)
        along = [i for i, index in enumerate(at) if index is not None]
        return along == [x.meta["val"].ndim - 1] and at[-1].meta["val"].ndim == 1 and not accumulate
    return name not in UNARY or len(node.all_input_nodes) == 1


def _called(node: Node, value_of: Any) -> Any:
    args, kwargs = map_arg(node.args, value_of), map_arg(node.kwargs, value_of)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _zeros(node: Node) -> Tensor:
    """Numbers of the shape and type of a value."""
    value = node.meta["val"]
    return torch.zeros(tuple(value.shape), dtype=value.dtype)


def _becomes_whole(node: Node) -> bool:
    """Whether it turns numbers into integers."""
    return name_of(node) == "_to_copy" and node.meta["val"].dtype in (torch.int64, torch.int32)
