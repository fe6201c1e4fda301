"""An exported program and its encoder as one ONNX graph: raw values in, scores out.

Inputs: of a token field its texts (B,), empty where missing; of a number field float32 (B,), NaN where missing; of a
list its texts (V,), ``<name>.offsets`` (B + 1,) int64, row b owning the texts from offsets[b] to offsets[b + 1], and
its weights float32 (V,) under their column's name; of the domain, where the model reads it, its texts (B,). Outputs:
float32 (B,) under the name of each task.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_dtn.schema import ABSENT, FIRST_TOKEN, UNKNOWN

__all__ = ["session_of", "write_onnx"]

BATCH = "B"
CORE = "core/"
"""Prefix of the names of the model's own part."""


def write_onnx(program: torch.export.ExportedProgram, description: Mapping[str, Any], path: Path) -> None:
    """Write the graph: the encoder's nodes, then the program's."""
    import onnx
    from onnx import compose

    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.repeat_interleave.Tensor: _repeated_places},
        )
    assert made is not None
    core = made.model_proto
    encoder = _Nodes(description)
    names = [node.name for node in core.graph.input]
    graph = onnx.helper.make_graph(encoder.nodes, "encoder", encoder.inputs, encoder.outputs, encoder.constants)
    opsets = [*core.opset_import, onnx.helper.make_opsetid("ai.onnx.ml", 4)]
    front = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=core.ir_version)
    core = compose.add_prefix(core, CORE)
    core.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 4))
    pairs = [(own.name, CORE + name) for own, name in zip(encoder.outputs, names, strict=True)]
    whole = compose.merge_models(front, core, io_map=pairs)
    # The outputs get the names of the tasks.
    for value, task in zip(whole.graph.output, description["tasks"], strict=True):
        node = onnx.helper.make_node("Identity", [value.name], [_output(task)], name=f"output/{task}")
        whole.graph.node.append(node)
        value.name = _output(task)
    onnx.checker.check_model(whole)
    onnx.save(whole, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence notes that concern no user: packages that torch could also translate, its own deprecations."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        registration.setLevel(level)


def _output(task: str) -> str:
    """A task's output; a field may have the same name."""
    return f"{task}.score"


def _repeated_places(repeats: Any, output_size: Any = None) -> Any:
    """``repeat_interleave(repeats)``: place r, ``repeats[r]`` times, without a (B, V) comparison."""
    from onnxscript import opset18 as op

    ends = op.CumSum(repeats, op.Constant(value_int=0))
    total = op.Gather(ends, op.Constant(value_ints=[-1]))
    zeros = op.Expand(op.Constant(value_int=0), op.Add(total, op.Constant(value_ints=[1])))
    ones = op.Expand(op.Constant(value_int=1), op.Shape(ends))
    # How many rows end at each place; the sum up to a value is the number of rows that end before it.
    marks = op.ScatterElements(zeros, ends, ones, axis=0, reduction="add")
    return op.Slice(op.CumSum(marks, op.Constant(value_int=0)), op.Constant(value_ints=[0]), total)


class _Nodes:
    """The nodes that turn raw inputs into ids, dense values and lists."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        import onnx

        self.onnx = onnx
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: list[Any] = []
        kinds = onnx.TensorProto
        ids: list[str] = []
        dense: list[str] = []
        lists: list[tuple[str, int]] = []
        for field in description["fields"]:
            name = field["name"]
            if field["kind"] == "float":
                values = self.input(name, kinds.FLOAT, BATCH)
                if field["edges"]:
                    ids.append(self.bins(field, values))
                else:
                    ids.append("")
                    dense.append(self.standardised(field, values))
            elif field["kind"] == "token":
                ids.append(self.looked_up(field, self.input(name, kinds.STRING, BATCH)))
            else:
                ids.append("")
                lists.append((self.looked_up(field, self.input(name, kinds.STRING, f"V of {name}")), kinds.INT64))
                lists.append((self.input(f"{name}.offsets", kinds.INT64, "B + 1"), kinds.INT64))
                if field["weights"] is not None:
                    lists.append((self.input(field["weights"], kinds.FLOAT, f"V of {name}"), kinds.FLOAT))
        if "domain" in description:
            lists.append((self.domains(description["domain"]), kinds.INT64))
        rows = self.rows(description["fields"][0])
        self.output("ids", self.joined(ids, rows, np.int64(-1)), kinds.INT64)
        self.output("dense", self.joined(dense, rows, np.float32(0)), kinds.FLOAT)
        for place, (value, kind) in enumerate(lists):
            self.output(f"list{place}", value, kind)

    def input(self, name: str, kind: int, size: str) -> str:
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, [size]))
        return name

    def output(self, name: str, value: str, kind: int) -> None:
        # Untyped in its sizes: the model's own part has them.
        self.node("Identity", [value], f"encoded/{name}")
        rank = 2 if name in ("ids", "dense") else 1
        self.outputs.append(self.onnx.helper.make_tensor_value_info(f"encoded/{name}", kind, [None] * rank))

    def node(self, kind: str, inputs: list[str], name: str = "", **options: Any) -> str:
        name = name or f"encoder/{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name=f"{name}/node", **options))
        return name

    def constant(self, value: Any) -> str:
        name = f"encoder/constant{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def rows(self, field: Mapping[str, Any]) -> str:
        """The number of rows, (1,)."""
        name = field["name"]
        if field["kind"] == "token_seq":
            return self.node("Sub", [self.node("Shape", [f"{name}.offsets"]), self.constant(np.array([1]))])
        return self.node("Shape", [name])

    def joined(self, columns: list[str], rows: str, filler: Any) -> str:
        """(B, N) of N columns; ``filler`` where one has no name."""
        if not columns:
            shape = self.node("Concat", [rows, self.constant(np.array([0]))], axis=0)
            return self.node("Expand", [self.constant(np.full((1, 1), filler)[:, :0]), shape])
        axis = self.constant(np.array([1]))
        made = [column or self.node("Expand", [self.constant(filler), rows]) for column in columns]
        return self.node("Concat", [self.node("Unsqueeze", [column, axis]) for column in made], axis=1)

    def looked_up(self, field: Mapping[str, Any], texts: str) -> str:
        """Rows of the joint table, of the shape of the texts."""
        offset, tokens = field["offset"], field["tokens"]
        return self.node(
            "LabelEncoder",
            [texts],
            domain="ai.onnx.ml",
            keys_strings=["", *tokens],
            values_int64s=[offset + ABSENT, *range(offset + FIRST_TOKEN, offset + FIRST_TOKEN + len(tokens))],
            default_int64=offset + UNKNOWN,
        )

    def domains(self, domain: Mapping[str, Any]) -> str:
        """Numbers of domains; of an unknown one, a number beyond all, at which the run of the graph ends."""
        name, tokens = domain["name"], domain["tokens"]
        if all(own.name != name for own in self.inputs):
            self.input(name, self.onnx.TensorProto.STRING, BATCH)
        return self.node(
            "LabelEncoder",
            [name],
            domain="ai.onnx.ml",
            keys_strings=tokens,
            values_int64s=list(range(len(tokens))),
            default_int64=len(tokens),
        )

    def bins(self, field: Mapping[str, Any], values: str) -> str:
        """The offset, plus 2 and the number of edges at or below each value; plus 0 where it is missing."""
        column = self.node("Unsqueeze", [values, self.constant(np.array([1]))])
        above = self.node("GreaterOrEqual", [column, self.constant(np.array([field["edges"]], np.float32))])
        count = self.node("ReduceSum", [self.node("Cast", [above], to=self.onnx.TensorProto.INT64),
                                        self.constant(np.array([1]))], keepdims=0)  # fmt: skip
        ids = self.node("Add", [count, self.constant(np.int64(field["offset"] + FIRST_TOKEN))])
        absent = self.constant(np.int64(field["offset"] + ABSENT))
        return self.node("Where", [self.node("IsNaN", [values]), absent, ids])

    def standardised(self, field: Mapping[str, Any], values: str) -> str:
        """As :meth:`recbole_dtn.data.floats.FloatStatistics.standardise`, in float64."""
        missing = self.node("IsNaN", [values])
        filled = self.node("Where", [missing, self.constant(np.float32(field["mean"])), values])
        wide = self.node("Cast", [filled], to=self.onnx.TensorProto.DOUBLE)
        if field["log1p"]:
            large = self.node("Log", [self.node("Add", [self.node("Abs", [wide]), self.constant(np.float64(1))])])
            wide = self.node("Mul", [self.node("Sign", [wide]), large])
        found = self.node("Sub", [wide, self.constant(np.float64(field["mean"]))])
        found = self.node("Div", [found, self.constant(np.float64(field["std"]))])
        if field["clip"] is not None:
            limits = [self.constant(np.float64(sign * field["clip"])) for sign in (-1, 1)]
            found = self.node("Clip", [found, *limits])
        narrow = self.node("Cast", [found], to=self.onnx.TensorProto.FLOAT)
        return self.node("Where", [missing, self.constant(np.float32(np.nan)), narrow])


def session_of(path: Path, description: Mapping[str, Any]) -> Callable[[dict[str, list[Any]]], np.ndarray[Any, Any]]:
    """A function of raw rows to (B, T) scores by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def score(rows: dict[str, list[Any]]) -> np.ndarray[Any, Any]:
        given: dict[str, Any] = {}
        for field in description["fields"]:
            name, column = field["name"], rows[field["name"]]
            if field["kind"] == "float":
                given[name] = np.array([np.nan if value is None else value for value in column], np.float32)
            elif field["kind"] == "token":
                given[name] = np.array([value or "" for value in column], object)
            else:
                given[name] = np.array([value for values in column for value in values], object)
                given[f"{name}.offsets"] = np.cumsum([0, *map(len, column)]).astype(np.int64)
                if field["weights"] is not None:
                    flat = [weight for values in rows[field["weights"]] for weight in values]
                    given[field["weights"]] = np.array(flat, np.float32)
        if "domain" in description:
            name = description["domain"]["name"]
            given[name] = np.array(rows[name], object)
        # A model may read no list or number: what it does not read is no input.
        names = {each.name for each in session.get_inputs()}
        found = session.run(None, {name: value for name, value in given.items() if name in names})
        return np.stack(found, 1)

    return score
