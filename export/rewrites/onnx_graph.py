"""An ONNX graph that can be edited: who makes a value, who reads it, what is constant, what shape it has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.rewrites.dimensions import Shape
from export.rewrites.symbolic_shapes import infer

Array = npt.NDArray[Any]


class OnnxGraph:
    """The graph of the file `model`. Constants are initializers, and each value is made by one node."""

    def __init__(self, model: Path) -> None:
        import onnx
        from onnx import numpy_helper

        self._proto = onnx.load(str(model))
        graph = self._proto.graph
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.input_shapes: dict[str, Shape] = {
            value.name: tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in graph.input
        }
        self.opset: int = next(entry.version for entry in self._proto.opset_import if entry.domain in {"", "ai.onnx"})
        self._added = 0
        self._names = {name for node in self.nodes for name in (*node.output, *node.input)} | set(self.constants)

    def producers(self) -> dict[str, Any]:
        """Value to the node that makes it."""
        return {output: node for node in self.nodes for output in node.output}

    def readers(self) -> dict[str, list[tuple[Any, int]]]:
        """Value to the nodes that read it, each with the number of the input."""
        readers: dict[str, list[tuple[Any, int]]] = {}
        for node in self.nodes:
            for number, name in enumerate(node.input):
                readers.setdefault(name, []).append((node, number))
        return readers

    def shapes(self) -> dict[str, Shape]:
        """Value to its shape, as far as it is known; see `symbolic_shapes`."""
        self.prune()
        return infer(self.nodes, self.constants, self.input_shapes).shapes

    def add_constant(self, value: Array, hint: str) -> str:
        """A new constant, under a name that begins with `hint`."""
        name = self._new_name(hint)
        self.constants[name] = value
        return name

    def add_node(self, operator: str, inputs: Sequence[str], hint: str, *, outputs: int = 1, **attributes: Any) -> Any:
        """A new node at the end (the order is mended on saving), with `outputs` new values."""
        from onnx import helper

        names = [self._new_name(hint) for _ in range(outputs)]
        node = helper.make_node(operator, list(inputs), names, name=names[0], **attributes)
        self.nodes.append(node)
        return node

    def replace(self, old: str, new: str) -> None:
        """Let everything that reads the value `old` read `new`; an output of the graph keeps its name."""
        if old in self.outputs:
            producer = self.producers()[old]
            producer.output[list(producer.output).index(old)] = self._new_name(old)
            self.nodes.append(_identity(new, old))
        for node in self.nodes:
            for number, name in enumerate(node.input):
                if name == old and not (node.op_type == "Identity" and old in node.output):
                    node.input[number] = new

    def remove_input(self, name: str) -> None:
        """Take the input `name`, which nothing reads any more, from the graph's signature."""
        kept = [value for value in self._proto.graph.input if value.name != name]
        del self._proto.graph.input[:]
        self._proto.graph.input.extend(kept)
        self.inputs.remove(name)
        del self.input_shapes[name]

    def prune(self) -> int:
        """Drop nodes and constants that no output needs, and put the nodes in order; how many nodes went."""
        producers = self.producers()
        ordered: list[Any] = []
        done: set[int] = set()
        # Depth first, without recursion: a graph may be deeper than Python's stack.
        for output in self.outputs:
            stack = [(producers[output], False)]
            while stack:
                node, inputs_done = stack.pop()
                if id(node) in done:
                    continue
                if inputs_done:
                    done.add(id(node))
                    ordered.append(node)
                    continue
                stack.append((node, True))
                stack.extend((producers[name], False) for name in node.input if name in producers)
        dropped = len(self.nodes) - len(ordered)
        self.nodes = ordered
        used = {name for node in ordered for name in node.input}
        self.constants = {name: value for name, value in self.constants.items() if name in used}
        return dropped

    def save(self, out: Path) -> Path:
        """Write the graph to `out`, after checking it."""
        import onnx
        from onnx import numpy_helper

        self.prune()
        graph = self._proto.graph
        for field in (graph.node, graph.initializer, graph.value_info):
            del field[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            for name, value in self.constants.items()
        )
        onnx.checker.check_model(self._proto)
        onnx.save(self._proto, str(out))
        return out

    def _new_name(self, hint: str) -> str:
        while True:
            self._added += 1
            name = f"{hint}_{self._added}"
            if name not in self._names:
                self._names.add(name)
                return name


def _identity(source: str, output: str) -> Any:
    from onnx import helper

    return helper.make_node("Identity", [source], [output], name=output)
