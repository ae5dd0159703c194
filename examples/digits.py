"""Handwritten digits as images: a perceptron and a convolutional network, their weights written into graphs by hand.

Both graphs take images float32[rows, 1, 8, 8] with ink from 0 to 16 and scale it themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from export import OPSETS, Version, classifier_version
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from rows import SEED, digits
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

MANIFEST: dict[str, Any] = {
    "description": "Handwritten digits, images of 8 x 8 pixels with ink from 0 to 16",
    "versions": "all",
    "labels": {"stable": 1, "convolutional": 2},
    "default": "2",
    "batching": {"max_batch_size": 64, "max_queue_delay_seconds": 0},
    "metadata": {"task": "classification", "dataset": "sklearn.load_digits"},
}

INK = 16.0
CLASSES = 10
FILTERS = 32


def build() -> Iterator[Version]:
    split = digits()
    train, held_out = split.train["images"] / INK, split.held_out["images"] / INK

    perceptron = MLPClassifier(hidden_layer_sizes=(64,), alpha=1e-3, max_iter=150, random_state=SEED)
    perceptron.set_params(early_stopping=True, n_iter_no_change=10)
    perceptron.fit(_flat(train), split.train_truth)
    answers = perceptron.predict(_flat(held_out)), perceptron.predict_proba(_flat(held_out))
    yield classifier_version(1, "multilayer perceptron", _perceptron_graph(perceptron), split, *answers)

    filters, bias = _learn_filters(train)
    classifier = LogisticRegression(C=0.1, max_iter=300).fit(_features(train, filters, bias), split.train_truth)
    features = _features(held_out, filters, bias)
    answers = classifier.predict(features), classifier.predict_proba(features)
    model = _convolutional_graph(filters, bias, classifier)
    yield classifier_version(2, "convolutional network", model, split, *answers)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _patches(images: np.ndarray) -> np.ndarray:
    """float32[rows, 8, 8, 9]: around each pixel its 3 x 3 neighbours, with no ink beyond the edge."""
    padded = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (3, 3), axis=(1, 2)).reshape(*images[:, 0].shape, 9)


def _learn_filters(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Filters float32[9, FILTERS] and their bias float32[FILTERS]: what the training images' strokes look like.

    The patches are whitened and clustered without labels; a filter answers as far as a patch points to its cluster.
    Whitening is linear, so it is folded into the filter and the bias.
    """
    patches = _patches(images).reshape(-1, 9)
    patches = patches[patches.std(axis=1) > 0.1]
    whitening = PCA(whiten=True, random_state=SEED).fit(patches)
    clusters = KMeans(FILTERS, n_init=1, random_state=SEED).fit(whitening.transform(patches)).cluster_centers_
    directions = clusters / np.linalg.norm(clusters, axis=1, keepdims=True)
    filters = (directions / np.sqrt(whitening.explained_variance_)) @ whitening.components_
    return filters.T.astype(np.float32), (-filters @ whitening.mean_).astype(np.float32)


def _features(images: np.ndarray, filters: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """float32[rows, FILTERS * 16]: filtered, rectified, and the greatest of each 2 x 2 pixels; the graph's order."""
    active = np.maximum(_patches(images) @ filters + bias, 0.0).transpose(0, 3, 1, 2)
    pooled = active.reshape(len(images), FILTERS, 4, 2, 4, 2).max(axis=(3, 5))
    return _flat(pooled)


def _perceptron_graph(perceptron: MLPClassifier) -> onnx.ModelProto:
    hidden, output = zip(perceptron.coefs_, perceptron.intercepts_, strict=True)
    nodes = [
        helper.make_node("Reshape", ["scaled", "flat_shape"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "hidden_weights", "hidden_bias"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["features"]),
    ]
    weights = {"flat_shape": np.array([-1, 64]), "hidden_weights": hidden[0], "hidden_bias": hidden[1]}
    return _graph("perceptron", nodes, weights, *output)


def _convolutional_graph(filters: np.ndarray, bias: np.ndarray, classifier: LogisticRegression) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["scaled", "filters", "filters_bias"], ["filtered"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["filtered"], ["active"]),
        helper.make_node("MaxPool", ["active"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    weights = {"filters": filters.T.reshape(FILTERS, 1, 3, 3), "filters_bias": bias}
    return _graph("convolutional", nodes, weights, classifier.coef_.T, classifier.intercept_)


def _graph(
    name: str, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], head: np.ndarray, head_bias: np.ndarray
) -> onnx.ModelProto:
    """The graph images → scaled → `nodes` → features → label int64[rows], probabilities float32[rows, CLASSES]."""
    weights = {**weights, "ink": np.array(INK), "head_weights": head, "head_bias": head_bias}
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["images", "ink"], ["scaled"]),
            *nodes,
            helper.make_node("Gemm", ["features", "head_weights", "head_bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            # The classes are the digits themselves, in order: the place of the greatest is the label.
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        name,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["rows", 1, 8, 8])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", CLASSES]),
        ],
        [
            numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), key)
            for key, value in weights.items()
        ],
    )
    opset = helper.make_opsetid("", OPSETS[""])
    return helper.make_model(graph, opset_imports=[opset], producer_name="driftgate-examples")
