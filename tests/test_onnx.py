"""Other people's tests: what the onnx package has for the operators that the library has too, on every backend."""

import collections
import dataclasses
import functools
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
from applying import compiled
from onnx_adapter import evaluate

from xpconv.testing import assert_close

onnx = pytest.importorskip("onnx")

# How many cases onnx has for each operator: a model of one node, and PyTorch's, stored.
NODE_CASES = {
    "Conv": 6,
    "ConvTranspose": 11,
    "MaxPool": 19,
    "AveragePool": 20,
    "LpPool": 8,
    "GlobalAveragePool": 2,
    "GlobalMaxPool": 2,
    "MaxUnpool": 2,
    "Col2Im": 5,
    "Pad": 6,
    "BatchNormalization": 4,
    "InstanceNormalization": 2,
    "GroupNormalization": 2,
    "LRN": 2,
    "SoftmaxCrossEntropyLoss": 34,
    "NegativeLogLikelihoodLoss": 18,
    "Momentum": 3,
    "Adam": 2,
    "Adagrad": 2,
}
STORED_CASES = {
    "Conv": 26,
    "ConvTranspose": 2,
    "MaxPool": 8,
    "AveragePool": 7,
    "BatchNormalization": 5,
    "Pad": 4,
}
# Models of many nodes, one of which is ours: other operators, and one of these, written out in simpler ones to see
# whether a runtime puts functions in place rightly. All that they ask of ours is asked by the cases above.
WRITTEN_OUT = {
    ("Conv", "causal_conv_with_state"): 13,
    ("Pad", "attention"): 13,
    ("Pad", "center_crop_pad"): 6,
    ("NegativeLogLikelihoodLoss", "sce"): 34,
}
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-4}  # what is wanted has four decimals


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    operator: str
    name: str
    graph: Any
    inputs: dict[str, np.ndarray]
    outputs: list[np.ndarray]


@functools.cache
def models():
    """Every node test, with its data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those that onnx gives about its own making of the data
        from onnx.backend.test.case.node import collect_testcases

        return [case for case in collect_testcases() if case.model and case.data_sets]


def node_cases():
    for case in models():
        graph = case.model.graph
        if len(graph.node) == 1 and graph.node[0].op_type in NODE_CASES:
            inputs, outputs = case.data_sets[0]
            named = dict(zip([value.name for value in graph.input], inputs, strict=True))
            yield Case(graph.node[0].op_type, case.name, graph, named, outputs)


def stored_cases():
    for folder in sorted(pathlib.Path(onnx.__file__).parent.glob("backend/test/data/pytorch-converted/*")):
        graph = onnx.load(folder / "model.onnx").graph
        operators = [node.op_type for node in graph.node if node.op_type not in ("Unsqueeze", "Squeeze")]
        if len(operators) == 1 and operators[0] in STORED_CASES:
            weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
            names = [value.name for value in graph.input if value.name not in weights]
            inputs = weights | dict(zip(names, tensors(folder, "input"), strict=True))
            yield Case(operators[0], folder.name, graph, inputs, tensors(folder, "output"))


def tensors(folder, kind):
    return [onnx.numpy_helper.to_array(onnx.load_tensor(path)) for path in sorted(folder.glob(f"*/{kind}_*.pb"))]


CASES = [*node_cases(), *stored_cases()]


def check(case, backend):
    """Carry a case out on a backend, and hold every output to what onnx has."""
    arrays = {name: backend.asarray(host) for name, host in case.inputs.items()}
    run = compiled(backend, functools.partial(evaluate, case.graph, hosts=case.inputs))
    found, like = run(arrays), next(iter(arrays.values()))
    assert len(found) == len(case.outputs)
    for output, expected in zip(found, case.outputs, strict=True):
        assert_close(output, expected, like=like, atol=ROUNDED.get(case.name, 0))


def test_every_case_is_collected():
    assert collections.Counter(case.operator for case in node_cases()) == NODE_CASES
    assert collections.Counter(case.operator for case in stored_cases()) == STORED_CASES
    assert len({case.name for case in CASES}) == len(CASES)


def test_what_is_left_out_is_written_out_in_other_operators():
    families = {family for _, family in WRITTEN_OUT}
    found = collections.Counter()
    for case in models():
        operators = {node.op_type for node in case.model.graph.node}
        if len(case.model.graph.node) > 1:
            assert not operators & NODE_CASES.keys() or "_expanded" in case.name, case.name
            family = next((family for family in families if case.name.startswith(f"test_{family}_")), case.name)
            found.update((operator, family) for operator in operators & NODE_CASES.keys())
    assert found == WRITTEN_OUT


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operator}-{case.name}")
def test_onnx(backend, case):
    check(case, backend)
