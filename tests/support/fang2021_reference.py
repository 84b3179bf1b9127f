"""Fang & Lin's losses once more, slow: loops over scalars, straight from their equations 4 to 10.

Nothing is shared with the library, on purpose. A number is a float64 tensor without dimensions where a gradient is
wanted, so that autograd differentiates the loops themselves; a target that is a constant is computed in plain floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

Scalar = Tensor | float


def number(value: Scalar) -> float:
    return value.item() if isinstance(value, Tensor) else value


def scalars(values: Tensor) -> list:
    """Nested lists of the scalars of a tensor; gradients flow back into it."""
    return list(values.unbind()) if values.ndim == 1 else [scalars(part) for part in values.unbind()]


def numbers(values: list) -> list:
    """The same nested lists as plain floats: constants."""
    return [numbers(value) if isinstance(value, list) else number(value) for value in values]


def root(value: Scalar) -> Scalar:
    """The square root; 0 and without gradient at 0, where the derivative is infinite."""
    if number(value) == 0:
        return 0.0
    return value.sqrt() if isinstance(value, Tensor) else math.sqrt(value)


# ------------------------------------------------------------------------------------------------ cross entropies


def log_softmax(z: Sequence[Tensor], temperature: float) -> list[Tensor]:
    largest = max(number(value) / temperature for value in z)
    total = 0.0
    for value in z:
        total = total + (value / temperature - largest).exp()
    return [value / temperature - largest - total.log() for value in z]


def softmax_of_mean(
    logits: Sequence[Sequence[Scalar]], divisor: float, temperature: float, constant: bool = True
) -> list:
    """softmax(1/divisor sum_j z^(j); T) of one image."""
    if not constant:
        return [
            value.exp() for value in log_softmax([sum(one) / divisor for one in zip(*logits, strict=True)], temperature)
        ]
    mean = [sum(number(z[k]) for z in logits) / divisor for k in range(len(logits[0]))]
    largest = max(value / temperature for value in mean)
    exponentials = [math.exp(value / temperature - largest) for value in mean]
    return [e / sum(exponentials) for e in exponentials]


def cross_entropy(q: Sequence[Scalar], z: Sequence[Tensor], temperature: float) -> Tensor:
    """-sum_k q_k log softmax(z; T)_k of one image."""
    logs, total = log_softmax(z, temperature), 0.0
    for k in range(len(z)):
        total = total - q[k] * logs[k]
    return total


def one_hot(label: int, classes: int, smoothing: float = 0.0) -> list[float]:
    return [(1 - smoothing) * (k == label) + smoothing / classes for k in range(classes)]


def mean_cross_entropy(z: list, labels: list[int], smoothing: float = 0.0) -> Tensor:
    """The task's cross entropy of logits z[image][class]."""
    total = 0.0
    for b, label in enumerate(labels):
        total = total + cross_entropy(one_hot(label, len(z[b]), smoothing), z[b], 1.0)
    return total / len(labels)


# --------------------------------------------------------------------------------------------------------- L_out


def out_loss(
    z: list,
    labels: list[int],
    alpha: float,
    temperature: float,
    squared: bool = False,
    smoothing: float = 0.0,
    constant_targets: bool = True,
) -> Tensor:
    """Eq. 4 of predictions z[i][image][class]; with one prediction there is no soft part, and alpha is 1."""
    predictions, images, total = len(z), len(labels), 0.0
    for i in range(predictions):
        for b in range(images):
            hard = cross_entropy(one_hot(labels[b], len(z[i][b]), smoothing), z[i][b], 1.0)
            if predictions == 1:
                total = total + hard / images
                continue
            others = [z[j][b] for j in range(predictions) if j != i]
            q = softmax_of_mean(others, predictions - 1, temperature, constant_targets)
            soft = cross_entropy(q, z[i][b], temperature)
            factor = temperature * temperature if squared else 1.0
            total = total + (alpha * hard + (1 - alpha) * factor * soft) / images / predictions
    return total


def linear(weight: list, bias: list, x: list) -> list:
    """W x + b of one image."""
    out = []
    for row, shift in zip(weight, bias, strict=True):
        value = shift
        for w, component in zip(row, x, strict=True):
            value = value + w * component
        out.append(value)
    return out


def rectified(value: Scalar) -> Scalar:
    return value if number(value) > 0 else 0.0 * value


def predictions_under_masks(
    features: list, layers: list[tuple[list, list]], masks: list, probability: float = 0.5
) -> list:
    """Logits [prediction][image][class] of the tree of dropout masks.

    ``layers``: (weight, bias) of the hidden layers and of the classifier. ``masks[level][branch][k][image][unit]``:
    whether the k-th mask that the branch draws at that level keeps a unit.
    """
    branches = [features]
    for (weight, bias), masks_of_branches in zip(layers[:-1], masks, strict=True):
        grown = []
        for branch, own_masks in zip(branches, masks_of_branches, strict=True):
            for mask in own_masks:
                images = []
                for b, image in enumerate(branch):
                    units = []
                    for unit, value in enumerate(linear(weight, bias, image)):
                        units.append(rectified(value) / (1 - probability) if mask[b][unit] else 0.0 * value)
                    images.append(units)
                grown.append(images)
        branches = grown
    return [[linear(*layers[-1], image) for image in branch] for branch in branches]


# --------------------------------------------------------------------------------------------------------- L_mid


def mid_target(
    z: list, layer: int, image: int, temperature: float, include_own: bool, printed: bool, output: list | None
) -> list[float] | None:
    """q of eq. 6 of a layer, counted from 0; None for the last one."""
    every = [*z, output] if output is not None else z
    number, last = layer + 1, len(every)  # i and N of the equation
    if number == last:
        return None
    summed = [every[j - 1][image] for j in range(number if include_own else number + 1, last + 1)]
    divisor = last - number if printed or not include_own else last - number + 1
    return softmax_of_mean(summed, divisor, temperature)


def mid_loss(
    z: list,
    labels: list[int],
    alpha: float,
    beta: float,
    temperature: float,
    include_own: bool = False,
    printed: bool = False,
    output: list | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Eqs. 5 and 7: mean over the images, summed over the layers, of the layers' logits z[layer][image][class]."""
    total = 0.0
    for layer in range(len(z)):
        for b in range(len(labels)):
            own = z[layer][b]
            total = total + alpha * cross_entropy(one_hot(labels[b], len(own), smoothing), own, temperature) / len(
                labels
            )
            q = mid_target(z, layer, b, temperature, include_own, printed, output)
            if q is not None:
                total = total + beta * cross_entropy(q, own, temperature) / len(labels)
    return total


# --------------------------------------------------------------------------------------------------- L_pull_push


def deviation(channel: list) -> Scalar:
    """Deviation of a channel's map, rows of pixels; 0 where all pixels are equal."""
    pixels = [pixel for row in channel for pixel in row]
    if all(number(pixel) == number(pixels[0]) for pixel in pixels):
        return 0.0
    mean = sum(pixels) / len(pixels)
    return root(sum((pixel - mean) * (pixel - mean) for pixel in pixels) / len(pixels))


def described(maps: list, by: str = "std") -> list:
    """One vector per sample: deviations of its channels, or all its pixels."""
    if by == "std":
        return [[deviation(channel) for channel in sample] for sample in maps]
    return [[pixel for channel in sample for row in channel for pixel in row] for sample in maps]


def centred(vectors: list, over: str) -> list:
    """A vector that centring leaves empty, by rational arithmetic, is a row of exact zeros."""
    count, width = len(vectors), len(vectors[0])
    exact = [[Fraction(number(value)) for value in vector] for vector in vectors]
    out = []
    for a, vector in enumerate(vectors):
        means, exact_means = [], []
        for k in range(width):
            if over == "batch":
                means.append(sum(vectors[b][k] for b in range(count)) / count)
                exact_means.append(sum(exact[b][k] for b in range(count)) / count)
            else:
                means.append(sum(vector) / width)
                exact_means.append(sum(exact[a]) / width)
        empty = exact[a] == exact_means
        out.append([0.0 if empty else value - mean for value, mean in zip(vector, means, strict=True)])
    return out


def similarity_matrix(vectors: list, over: str = "batch") -> list:
    """Eq. 8, with 0 where a vector is zero."""
    vectors = centred(vectors, over)
    lengths = [root(sum(value * value for value in vector)) for vector in vectors]
    rows = []
    for a, first in enumerate(vectors):
        row: list[Scalar] = []
        for b, second in enumerate(vectors):
            if number(lengths[a]) == 0 or number(lengths[b]) == 0:
                row.append(0.0)
            else:
                product = sum(x * y for x, y in zip(first, second, strict=True))
                row.append(product / lengths[a] / lengths[b])
        rows.append(row)
    return rows


def distance(first: list, second: list) -> Scalar:
    """Frobenius norm of the difference of two matrices."""
    total = 0.0
    for one, other in zip(first, second, strict=True):
        for x, y in zip(one, other, strict=True):
            total = total + (x - y) * (x - y)
    return root(total)


def weight_of_layer(first: float, last: float, layer: int, layers: int) -> float:
    """Linear over the layers 0, 1 …; a network's only layer is its last."""
    return last if layers == 1 else first + (last - first) * layer / (layers - 1)


def pull_push_loss(
    layers: list,
    images: list,
    labels: list[int],
    classes: int,
    pull: tuple[float, float],
    push: tuple[float, float],
    over: str = "batch",
    by: str = "std",
) -> tuple[Scalar, Scalar]:
    """Both parts of eq. 9, summed over the layers, whose projections g_i(h) are layers[i][image][channel][row][column].

    ``pull``, ``push``: weights of the first and the last layer.
    """
    of_labels = similarity_matrix([one_hot(label, classes) for label in labels], over)
    of_images = similarity_matrix(described(images, by), over)
    pulled: Scalar = 0.0
    pushed: Scalar = 0.0
    for i, maps in enumerate(layers):
        own = similarity_matrix(described(maps), over)
        pulled = pulled + weight_of_layer(*pull, i, len(layers)) * distance(own, of_labels)
        pushed = pushed - weight_of_layer(*push, i, len(layers)) * distance(own, of_images)
    return pulled, pushed


# ------------------------------------------------------------------------------------------------------ L_kernel


def kernel_loss(weight: list) -> Scalar:
    """Eq. 10 of the weight [filter][channel][row][column] of one convolution."""
    matrix = [[w for channel in filter_ for row in channel for w in row] for filter_ in weight]
    length, standardised = len(matrix[0]), []
    for row in matrix:
        if all(number(w) == number(row[0]) for w in row):
            standardised.append([0.0] * length)
            continue
        mean = sum(row) / length
        spread = root(sum((w - mean) * (w - mean) for w in row) / length)
        standardised.append([(w - mean) / spread for w in row])
    total: Scalar = 0.0
    for i, first in enumerate(standardised):
        for j, second in enumerate(standardised):
            if i != j:
                covariance = sum(x * y for x, y in zip(first, second, strict=True)) / length
                total = total + covariance * covariance
    return root(total)


# --------------------------------------------------------------------------------------- parts of a small network


def convolution(x: list, weight: list, stride: int = 1, padding: int = 0, bias: list | None = None) -> list:
    """[image][filter][row][column] of a zero-padded convolution of x[image][channel][row][column]."""
    height, width, side = len(x[0][0]), len(x[0][0][0]), len(weight[0][0])
    rows = range(-padding, height + padding - side + 1, stride)
    columns = range(-padding, width + padding - side + 1, stride)
    out = []
    for image in x:
        filters = []
        for f, kernel in enumerate(weight):
            out_map = []
            for top in rows:
                out_row = []
                for left in columns:
                    value = bias[f] if bias is not None else 0.0
                    for c, channel in enumerate(image):
                        for i in range(side):
                            for j in range(side):
                                if 0 <= top + i < height and 0 <= left + j < width:
                                    value = value + kernel[c][i][j] * channel[top + i][left + j]
                    out_row.append(value)
                out_map.append(out_row)
            filters.append(out_map)
        out.append(filters)
    return out


def batch_norm(x: list, scale: list, shift: list, epsilon: float = 1e-5) -> list:
    """Batch normalisation in training: by the mean and the population variance of the batch."""
    out = [[[list(row) for row in channel] for channel in image] for image in x]
    for c in range(len(scale)):
        values = [value for image in x for row in image[c] for value in row]
        mean = sum(values) / len(values)
        variance = sum((value - mean) * (value - mean) for value in values) / len(values)
        for b, image in enumerate(x):
            for i, row in enumerate(image[c]):
                for j, value in enumerate(row):
                    out[b][c][i][j] = scale[c] * (value - mean) / (variance + epsilon).sqrt() + shift[c]
    return out


def added(first: list, second: list) -> list:
    """Sum of two nested lists."""
    if isinstance(first, list):
        return [added(a, b) for a, b in zip(first, second, strict=True)]
    return first + second


def rectified_maps(x: list) -> list:
    return [rectified_maps(value) if isinstance(value, list) else rectified(value) for value in x]


def max_pool(x: list, side: int) -> list:
    """Non-overlapping maxima; what does not fill a window is left out."""
    return [
        [
            [
                [
                    max((channel[side * i + a][side * j + b] for a in range(side) for b in range(side)), key=number)
                    for j in range(len(channel[0]) // side)
                ]
                for i in range(len(channel) // side)
            ]
            for channel in image
        ]
        for image in x
    ]


def averages(x: list) -> list:
    """[image][channel]: the mean of each map."""
    return [
        [sum(v for row in channel for v in row) / len(channel) / len(channel[0]) for channel in image] for image in x
    ]


def flattened(x: list) -> list:
    """[image][channel, row, column]."""
    return [[value for channel in image for row in channel for value in row] for image in x]
