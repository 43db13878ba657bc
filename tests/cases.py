"""One table of operators, arrays and options, which the tests of every operator run over.

An operator of the library must have a case here; the first case of each also stands for it wherever one is enough.
Arrays are drawn on the host in float64; `Case.on` moves them to a backend.
"""

import dataclasses
import operator
from typing import Any

import numpy as np

import xpconv
from xpconv.shards import Shard


def normal(*shape, seed=0):
    """Normally distributed numbers, the same for the same shape and seed."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def spread(*shape, seed=0):
    """Numbers of either sign, in random order, none near zero and none near another: no kink is close by."""
    count = int(np.prod(shape))
    order = np.random.default_rng((seed, *shape)).permutation(count)
    return ((order - count // 2) / count + 0.25 / count).reshape(shape) * 4


def positive(*shape, seed=0):
    """Numbers from 0.5 to 2."""
    return np.random.default_rng((seed, *shape)).uniform(0.5, 2, shape)


def integers(high, *shape, seed=0):
    """Whole numbers from 0 to high - 1."""
    return np.random.default_rng((seed, *shape)).integers(high, size=shape)


@dataclasses.dataclass(frozen=True, eq=False)  # each case is itself: arrays have no one truth
class Case:
    name: str
    arrays: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def op(self):
        return getattr(xpconv, self.name)

    def on(self, backend, dtype="float64"):
        """The arrays on a backend, the floating ones in this dtype."""
        return [None if a is None else backend.asarray(a, dtype if a.dtype.kind == "f" else None) for a in self.arrays]

    def __str__(self):
        options = "-".join(f"{k}={v}" for k, v in self.options.items() if k != "rng")
        return "-".join(filter(None, [self.name, options.replace(" ", "")]))


def case(name, *arrays, **options):
    return Case(name, arrays, options)


CASES = [
    # patches
    case("im2col", normal(2, 3, 5, 6), filter_h=3, filter_w=2, stride=2, pad=1),
    case("col2im", normal(24, 18), input_shape=(2, 3, 5, 6), filter_h=3, filter_w=2, stride=2, pad=1),
    case("unfold", normal(2, 3, 6, 5), kernel=(2, 3), stride=(2, 1), pad=((1, 0), (0, 2)), dilation=(2, 1)),
    case("fold", normal(2, 18, 15), output_size=(6, 5), kernel=(2, 3), stride=(2, 1), pad=((1, 0), (0, 2))),
    case("fold", normal(2, 12, 3), output_size=(5, 4), kernel=(3, 2), stride=1, pad=(0, 1), dilation=(2, 3)),
    # convolution
    case("conv", normal(2, 4, 7, 6), normal(6, 2, 3, 3), normal(6), stride=(2, 1), pad=((1, 2), (0, 1)), groups=2),
    case("conv", normal(2, 3, 9), normal(4, 3, 3), None, stride=4, dilation=2, pad="same"),
    case("conv", normal(1, 2, 4, 5, 4), normal(3, 2, 2, 3, 2), normal(3), pad=1),
    case("conv", normal(2, 3, 6, 5), normal(6, 1, 3, 2), normal(6), groups=3, stride=2),
    case("conv", normal(2, 2, 6, 5), normal(3, 2, 3, 3), normal(3), pad=1, algorithm="winograd", precision="tf32"),
    case("conv", normal(2, 2, 6, 5), normal(3, 2, 3, 3), None, pad=1, algorithm="direct", workspace=1),
    case("conv", normal(1, 2, 6, 7), normal(2, 1, 3, 2), normal(2), stride=(1, 2), groups=2, algorithm="fft"),
    case(
        "conv_transpose",
        normal(2, 4, 3, 4),
        normal(4, 3, 3, 2),
        normal(6),
        stride=(2, 3),
        pad=1,
        output_pad=1,
        groups=2,
    ),
    case("conv_transpose", normal(2, 3, 5), normal(3, 4, 3), None, stride=2, dilation=2, pad="same"),
    case("conv_transpose", normal(2, 3, 5, 4), normal(3, 4, 3, 2), normal(4), workspace=1, precision="tf32"),
    case("conv_transpose", normal(1, 2, 2, 3, 2), normal(2, 3, 2, 1, 3), normal(3), pad=((1, 0), (0, 0), (2, 1))),
    # pooling
    case("max_pool", spread(2, 3, 7, 6), kernel=(3, 2), stride=2, pad=1),
    case("max_pool", spread(2, 3, 7, 6), kernel=3, stride=2, pad=1, dilation=2, ceil_mode=True, return_indices=True),
    case("max_pool", spread(2, 3, 9), kernel=3),
    case("avg_pool", normal(2, 3, 7, 6), kernel=(2, 3), stride=2, pad=1),
    case("avg_pool", normal(2, 3, 7, 6), kernel=3, stride=2, pad=1, ceil_mode=True, count_include_pad=False),
    case("avg_pool", normal(1, 2, 4, 5, 4), kernel=2, stride=1, divisor=3),
    case("avg_pool", normal(2, 3, 8, 7), kernel=(3, 2), stride=2, pad=1, dilation=(2, 3)),
    case("lp_pool", spread(2, 3, 7, 6), kernel=(2, 3), stride=2, pad=1),
    case("lp_pool", spread(2, 3, 9), kernel=3, p=1, stride=2, dilation=2, ceil_mode=True),
    case("lp_pool", spread(1, 2, 4, 5, 4), kernel=2, p=3.5, stride=1),
    case("adaptive_max_pool", spread(2, 3, 7, 6), output_size=(3, 2)),
    case("adaptive_max_pool", spread(2, 3, 5), output_size=7, return_indices=True),
    case("adaptive_avg_pool", normal(2, 3, 7, 6), output_size=(3, 2)),
    case("adaptive_avg_pool", normal(2, 3, 5), output_size=7),
    case("global_max_pool", spread(2, 3, 5, 4)),
    case("global_avg_pool", normal(2, 3, 5, 4)),
    case("max_unpool", normal(2, 3, 2, 2), integers(25, 2, 3, 2, 2), kernel=2, output_size=(5, 5)),
    case("max_unpool", normal(2, 3, 4), integers(12, 2, 3, 4), kernel=3),
    case("max_unpool", normal(2, 3, 3, 2), integers(12, 2, 3, 3, 2), kernel=3, stride=2, pad=(1, 1)),
    # padding, interpolation
    case("pad", normal(2, 3, 4, 5), pad=((2, 1), (0, 3))),
    case("pad", normal(2, 3, 4, 5), pad=((2, 1), (0, 3)), mode="constant", value=1.5),
    case("pad", normal(2, 3, 4, 3), pad=((2, 1), (0, 5)), mode="reflect"),
    case("pad", normal(2, 3, 4, 5), pad=2, mode="replicate"),
    case("pad", normal(2, 3, 2, 4, 3), pad=((3, 1), (0, 0), (1, 4)), mode="circular"),
    case("interpolate", normal(2, 3, 4, 5), output_size=(7, 3)),
    case("interpolate", normal(2, 3, 4, 5), output_size=(7, 3), mode="linear"),
    case("interpolate", normal(2, 3, 4), output_size=9, mode="linear", align_corners=True),
    # affine, activations, regularization
    case("affine", normal(3, 2, 2, 2), normal(8, 5), normal(5)),
    case("affine", normal(3, 4), normal(4, 2), precision="tf32"),
    case("relu", spread(3, 4, 5)),
    case("leaky_relu", spread(3, 4, 5), slope=0.2),
    case("prelu", spread(3, 4, 5), normal(4)),
    case("prelu", spread(3, 4), normal(1)),
    case("elu", spread(3, 4, 5), alpha=1.5),
    case("gelu", 2 * normal(3, 4, 5)),
    case("gelu", 2 * normal(3, 4, 5), approximate="tanh"),
    case("silu", 2 * normal(3, 4, 5)),
    case("sigmoid", 2 * normal(3, 4, 5)),
    case("tanh", normal(3, 4, 5)),
    case("softmax", normal(3, 4, 5)),
    case("softmax", normal(3, 4, 5), axis=-1),
    case("log_softmax", normal(3, 4, 5)),
    case("log_softmax", normal(3, 4, 5), axis=0),
    case("dropout", normal(3, 4, 5), ratio=0.3, rng=np.random.default_rng(0)),
    case("dropout", normal(3, 4, 5), ratio=0.3),
    case("dropout", normal(3, 4), rng=np.random.default_rng(0), shard=Shard(2, 5, 8, operator.pos)),
    # normalization
    case("batch_norm", normal(4, 3, 5), positive(3), normal(3)),
    case("batch_norm", normal(6, 3), None, normal(3), return_statistics=True),
    case("batch_norm", normal(6, 3), positive(3), None, eps=0.1),
    case("batch_norm", normal(5, 3), positive(3), normal(3), shard=Shard(0, 5, 5, operator.pos)),
    case("batch_norm", normal(2, 3, 2, 2), positive(3), normal(3), normal(3, seed=1), positive(3, seed=1)),
    case("layer_norm", normal(3, 4, 5), positive(4, 5), normal(4, 5)),
    case("layer_norm", normal(3, 4, 5), positive(5), None, axis=-1, eps=0.1),
    case("group_norm", normal(3, 6, 5, 2), positive(6), normal(6), groups=2),
    case("group_norm", normal(3, 6), None, normal(6), groups=3),
    case("group_norm", normal(3, 6, 4), positive(6), None, groups=2, eps=0.1),
    case("instance_norm", normal(2, 3, 4, 5), positive(3), normal(3)),
    case("instance_norm", normal(2, 3, 4, 2, 3)),
    case("instance_norm", normal(2, 3, 4), None, normal(3), eps=0.1),
    case("local_response_norm", normal(2, 7, 3), size=3, alpha=0.5),
    case("local_response_norm", normal(2, 3, 2, 2), size=6, alpha=0.5, beta=0.6, k=2.0),
    # losses
    case("softmax_cross_entropy", normal(4, 5), integers(5, 4)),
    case("softmax_cross_entropy", normal(4, 5), positive(4, 5)),
    case("softmax_cross_entropy", normal(3, 4, 2), positive(3, 4, 2), positive(4), label_smoothing=0.2),
    case("softmax_cross_entropy", normal(3, 4, 2, 3), integers(4, 3, 2, 3), positive(4), ignore_index=2),
    case("softmax_cross_entropy", normal(9, 4), integers(4, 9), positive(4), label_smoothing=0.2, reduction="none"),
    case("softmax_cross_entropy", normal(9, 4), integers(4, 9), ignore_index=0, label_smoothing=0.2, reduction="sum"),
    case("nll_loss", normal(4, 5), integers(5, 4)),
    case("nll_loss", normal(4, 5, 3), integers(5, 4, 3), positive(5), ignore_index=1),
    case("nll_loss", normal(4, 5, 3), integers(5, 4, 3), positive(5), reduction="none"),
    case("mean_squared_error", normal(3, 4), normal(3, 4, seed=1)),
    case("mean_squared_error", normal(3, 4), normal(3, 4, seed=1), reduction="none"),
    case("binary_cross_entropy_with_logits", normal(3, 4), positive(3, 4) / 2),
    case("binary_cross_entropy_with_logits", normal(3, 4), positive(3, 4) / 2, positive(3, 1), positive(4)),
    case("binary_cross_entropy_with_logits", normal(3, 4), positive(3, 4) / 2, None, positive(1), reduction="sum"),
]

FIRST = list({case.name: case for case in reversed(CASES)}.values())[::-1]
