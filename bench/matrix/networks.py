"""Subjects of networks: digits, images, and an embedding. Graphs are written by hand, unlearned weights are seeded."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits, load_sample_images  # type: ignore[import-untyped]
from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]

from bench.matrix.subject import OPSET, SEED, Subject

SIDE = 224
IMAGES = 128
FILTERS = (3, 16, 32, 64, 128, 256, 512)
"""Of each 3 x 3 convolution. All but the last halve height and width: 224, 112, ... 7."""

CLASSES = 1_000
CHECKED_IMAGES = 2
"""A convolution in numpy takes a second."""

TOKENS, VOCABULARY, WIDTH = 32, 2_000, 384


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    source: onnx.ValueInfoProto,
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
) -> bytes:
    tensors = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, [source], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    return bytes(model.SerializeToString())


@cache
def digits() -> Subject:
    """A perceptron on 8 x 8 pixels, ink from 0 to 16, float32[rows, 64]."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels.astype(np.float32)
    network = MLPClassifier((64,), alpha=1e-3, max_iter=300, early_stopping=True, random_state=SEED)
    network.fit(pixels / 16, labels)
    (hidden, output), (hidden_bias, output_bias) = network.coefs_, network.intercepts_
    nodes = [
        helper.make_node("Div", ["pixels", "ink"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "hidden", "hidden_bias"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["active"]),
        helper.make_node("Gemm", ["active", "output", "output_bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    weights = {"ink": np.array(16, np.float32), "hidden": hidden, "hidden_bias": hidden_bias}
    weights |= {"output": output, "output_bias": output_bias}
    graph = _model(
        "digits",
        nodes,
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["rows", 64]),
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 10]),
        ],
        {key: value.astype(np.float32) for key, value in weights.items()},
    )
    truth = {"label": network.predict(pixels / 16), "probabilities": network.predict_proba(pixels / 16)}
    return Subject("digits", "8 x 8 digits, MLP", graph, {"pixels": pixels}, truth)


@cache
def images() -> Subject:
    """A convolutional network on float32[rows, 3, 224, 224], 120 million multiplications a row, 8.4 MB of weights."""
    random = np.random.default_rng(SEED)
    nodes, weights, last = [], {}, "images"
    for layer, (before, after) in enumerate(pairwise(FILTERS)):
        weights[f"w{layer}"] = random.normal(0, (2 / (9 * before)) ** 0.5, (after, before, 3, 3)).astype(np.float32)
        weights[f"b{layer}"] = random.normal(0, 0.1, after).astype(np.float32)
        nodes += [
            helper.make_node(
                "Conv",
                [last, f"w{layer}", f"b{layer}"],
                [f"sum{layer}"],
                pads=[1, 1, 1, 1],
                strides=[_stride(layer)] * 2,
            ),
            helper.make_node("Relu", [f"sum{layer}"], [f"active{layer}"]),
        ]
        last = f"active{layer}"
    weights["head"] = random.normal(0, FILTERS[-1] ** -0.5, (FILTERS[-1], CLASSES)).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "head"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = _model(
        "images",
        nodes,
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 3, SIDE, SIDE]),
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", CLASSES])],
        weights,
    )
    rows = _cuttings(random)
    return Subject(
        "images",
        "224 x 224 x 3 images",
        graph,
        {"images": rows},
        {"probabilities": _convolved(rows, weights)},
        profile=False,
    )


def _stride(layer: int) -> int:
    return 1 if layer == len(FILTERS) - 2 else 2


def _cuttings(random: np.random.Generator) -> np.ndarray:
    """float32[IMAGES, 3, SIDE, SIDE] from 0 to 1, out of scikit-learn's two photographs."""
    photographs = load_sample_images().images
    cut = np.empty((IMAGES, 3, SIDE, SIDE), np.float32)
    for index in range(IMAGES):
        photograph = photographs[index % len(photographs)]
        top, left = (random.integers(size - SIDE) for size in photograph.shape[:2])
        cut[index] = photograph[top : top + SIDE, left : left + SIDE].transpose(2, 0, 1) / np.float32(255)
    return cut


def _convolved(rows: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """What numpy says of the first rows: float32[CHECKED_IMAGES, CLASSES]."""
    active = rows[:CHECKED_IMAGES]
    for layer in range(len(FILTERS) - 1):
        step = _stride(layer)
        padded = np.pad(active, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::step, ::step]
        sums = np.tensordot(patches, weights[f"w{layer}"], axes=((1, 4, 5), (1, 2, 3)))
        active = np.maximum(sums + weights[f"b{layer}"], 0).transpose(0, 3, 1, 2)
    scores = active.mean(axis=(2, 3)) @ weights["head"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@cache
def embedding() -> Subject:
    """Token ids int64[rows, 32] to float32[rows, 384] of length 1: the mean of their vectors, through a dense layer."""
    random = np.random.default_rng(SEED)
    vectors = random.normal(0, 1, (VOCABULARY, WIDTH)).astype(np.float32)
    dense = random.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["vectors", "tokens"], ["found"], axis=0),
        helper.make_node("ReduceMean", ["found", "token_axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "dense"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["turned"]),
        helper.make_node("LpNormalization", ["turned"], ["embedding"], axis=1, p=2),
    ]
    graph = _model(
        "embedding",
        nodes,
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["rows", TOKENS]),
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["rows", WIDTH])],
        {"vectors": vectors, "dense": dense, "token_axis": np.array([1])},
    )
    # Words of a text: the nth most frequent comes a share of 1/n.
    tokens = np.minimum(random.zipf(1.2, (1_000, TOKENS)), VOCABULARY) - 1
    turned = np.tanh(vectors[tokens].mean(axis=1) @ dense)
    truth = {"embedding": turned / np.linalg.norm(turned, axis=1, keepdims=True)}
    return Subject("embedding", "embedding, 384 floats out", graph, {"tokens": tokens}, truth)
