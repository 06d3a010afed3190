"""Models as exporters write them: the folder given gets NAME.onnx, NAME.in and NAME.out.

Images (.in) are raw float32 of the model's input shape, scores (.out) what onnxruntime makes of them. Names
go to standard output, one a line.
"""
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper as h, numpy_helper

IMAGES = 3
rng = np.random.default_rng(11)


class Net:
    def __init__(self, name, shape, opset=17):
        self.name, self.shape, self.opset = name, shape, opset
        self.nodes, self.weights = [], []

    def weight(self, *shape, scale=0.5):
        return self.value((scale * rng.standard_normal(shape)).astype(np.float32))

    def value(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values):
        return self.value(np.array(values, np.int64))

    def constant(self, array):
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(array)))

    def op(self, kind, *inputs, **attributes):
        out = f"v{len(self.nodes)}"
        self.nodes.append(h.make_node(kind, list(inputs), [out], name=f"{kind}_{len(self.nodes)}", **attributes))
        return out

    def norm(self, x, c):
        mean, var = self.weight(c), self.value(rng.uniform(0.5, 2, c).astype(np.float32))
        return self.op("BatchNormalization", x, self.weight(c), self.weight(c), mean, var, epsilon=1e-3)

    def conv(self, x, c_in, c_out, k=3, **attributes):
        return self.op("Conv", x, self.weight(c_out, c_in, k, k, scale=0.3), self.weight(c_out), **attributes)

    def head(self, x, c):
        """Logits from maps of c channels and one position."""
        return self.op("Gemm", self.op("Flatten", x), self.weight(4, c), self.weight(4), transB=1)

    def write(self, folder, y):
        info = lambda name, dims: h.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *dims])
        ir = 8 if self.opset < 19 else 10
        out = h.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 4])
        graph = h.make_graph(self.nodes, self.name, [info("x", self.shape)], [out], self.weights)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", self.opset)], ir_version=ir)
        onnx.checker.check_model(model)
        images = rng.uniform(-1, 1, (IMAGES, *self.shape)).astype(np.float32)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        scores = session.run(None, {"x": images})[0]
        onnx.save(model, f"{folder}/{self.name}.onnx")
        images.tofile(f"{folder}/{self.name}.in")
        scores.astype("<f4").tofile(f"{folder}/{self.name}.out")
        print(self.name)


def heads():
    """Ways from maps to logits."""
    gap = lambda n, x: n.op("GlobalAveragePool", x)
    shape = lambda n, x: n.op("Shape", x)

    def view(n, x):
        batch = n.op("Gather", shape(n, x), n.constant(np.int64(0)), axis=0)
        batch = n.op("Unsqueeze", batch, n.ints(0))
        return n.op("Reshape", x, n.op("Concat", batch, n.ints(-1), axis=0))

    def view_by_slice(n, x):
        batch = n.op("Slice", shape(n, x), n.ints(0), n.ints(1), n.ints(0))
        return n.op("Reshape", x, n.op("Concat", batch, n.ints(-1), axis=0))

    squeeze = lambda n, x, *axes: n.op("Squeeze", x, n.ints(*axes))
    reshape = lambda n, x, *dims: n.op("Reshape", x, n.ints(*dims))
    fc = lambda n, x: n.op("Gemm", x, n.weight(4, 6), n.weight(4), transB=1)
    yield "flatten", lambda n, x: fc(n, n.op("Flatten", gap(n, x), axis=1))
    yield "flatten_negative", lambda n, x: fc(n, n.op("Flatten", gap(n, x), axis=-3))
    yield "view", lambda n, x: fc(n, view(n, gap(n, x)))
    yield "view_by_slice", lambda n, x: fc(n, view_by_slice(n, gap(n, x)))
    yield "reshape_minus", lambda n, x: fc(n, reshape(n, gap(n, x), -1, 6))
    yield "reshape_zero", lambda n, x: fc(n, reshape(n, gap(n, x), 0, -1))
    yield "squeeze", lambda n, x: fc(n, squeeze(n, gap(n, x), 2, 3))
    yield "squeeze_twice", lambda n, x: fc(n, squeeze(n, squeeze(n, gap(n, x), -1), -1))
    yield "squeeze_all", lambda n, x: fc(n, n.op("Squeeze", gap(n, x)))
    yield "there_and_back", lambda n, x: n.head(gap(n, reshape(n, reshape(n, x, 0, -1), -1, 6, 8, 8)), 6)
    yield "mean_dropped", lambda n, x: fc(n, n.op("ReduceMean", x, axes=[2, 3], keepdims=0))
    yield "mean_kept", lambda n, x: n.head(n.op("ReduceMean", x, axes=[-1, -2], keepdims=1), 6)
    yield "mean_twice", lambda n, x: fc(
        n, n.op("ReduceMean", n.op("ReduceMean", x, axes=[3], keepdims=0), axes=[2], keepdims=0))
    yield "mean_twice_kept", lambda n, x: n.head(n.op("ReduceMean", n.op("ReduceMean", x, axes=[2]), axes=[3]), 6)
    yield "mean_of_positions", lambda n, x: fc(
        n, n.op("ReduceMean", reshape(n, x, 0, 6, -1), axes=[2], keepdims=0))
    yield "whole_map", lambda n, x: n.head(n.op("AveragePool", x, kernel_shape=[8, 8]), 6)
    yield "gemm_upright", lambda n, x: n.op(
        "Gemm", n.op("Flatten", gap(n, x)), n.weight(6, 4), n.weight(4), transB=0, alpha=0.5, beta=2.0)
    yield "gemm_scalar_bias", lambda n, x: n.op(
        "Gemm", n.op("Flatten", gap(n, x)), n.weight(4, 6), n.weight(1), transB=1)
    yield "matmul_add", lambda n, x: n.op(
        "Add", n.op("MatMul", n.op("Flatten", gap(n, x)), n.weight(6, 4)), n.weight(4))
    yield "add_matmul_transposed", lambda n, x: n.op(
        "Add", n.weight(4),
        n.op("MatMul", n.op("Flatten", gap(n, x)), n.op("Transpose", n.weight(4, 6), perm=[1, 0])))
    # A fully convolutional end, as SqueezeNet's.
    yield "conv_pool", lambda n, x: n.op("Flatten", gap(n, n.conv(x, 6, 4, 1)))


def bodies():
    """Ways of writing the layers before."""
    def identity(n, x):
        x = n.op("Identity", n.conv(x, 3, 6, pads=[1, 1, 1, 1]))
        x = n.op("Dropout", n.op("Relu", x), n.constant(np.float32(0.3)), n.constant(np.bool_(False)))
        return n.op("Dropout", x)

    def padded(n, x):
        x = n.op("Pad", x, n.ints(0, 0, 1, 1, 0, 0, 1, 1), n.constant(np.float32(0)), mode="constant")
        return n.op("Relu", n.norm(n.conv(x, 3, 6), 6))

    def padded_pool(n, x):
        x = n.op("Relu", n.conv(x, 3, 6, pads=[1] * 4))
        x = n.op("Pad", x, n.ints(0, 0, 0, 0, 0, 0, 1, 1))
        x = n.op("AveragePool", x, kernel_shape=[2, 2], strides=[1, 1])
        x = n.op("Pad", n.op("Relu", x), n.ints(0, 0, 1, 0, 0, 0, 0, 1))
        return n.op("MaxPool", x, kernel_shape=[2, 2], strides=[1, 1])

    def residual(n, x):
        x = n.op("Relu", n.norm(n.conv(x, 3, 6, pads=[1] * 4), 6))
        return n.op("Relu", n.op("Add", x, n.norm(n.conv(x, 6, 6, pads=[1] * 4), 6)))

    def folded_norm(n, x):
        x = n.conv(x, 3, 6, auto_pad="SAME_UPPER")
        scale, shift = n.constant(rng.uniform(0.5, 1, (6, 1, 1)).astype(np.float32)), n.weight(1, 6, 1, 1)
        return n.op("Relu", n.op("Add", n.op("Mul", x, scale), shift))

    def clip(n, x):
        return n.op("Clip", n.conv(x, 3, 6, pads=[1] * 4), n.constant(np.float32(0)))

    def maximum(n, x):
        return n.op("Max", n.conv(x, 3, 6, pads=[1] * 4), n.constant(np.float32(0)))

    return [identity, padded, padded_pool, residual, folded_norm, clip, maximum]


def main(folder):
    for name, head in heads():
        n = Net(name, [3, 8, 8])
        n.write(folder, head(n, n.op("Relu", n.conv("x", 3, 6, pads=[1] * 4))))
    for body in bodies():
        n = Net(body.__name__, [3, 8, 8])
        n.write(folder, n.head(n.op("GlobalAveragePool", body(n, "x")), 6))
    n = Net("opset_20", [3, 8, 8], opset=20)
    x = n.op("ReduceMean", n.op("Relu", n.conv("x", 3, 6)), n.ints(2, 3), keepdims=1)
    n.write(folder, n.op("Gemm", n.op("Reshape", x, n.ints(-1, 6), allowzero=1), n.weight(4, 6), transB=1))


main(sys.argv[1])
