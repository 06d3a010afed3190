//! What to use in place of an operator that is not supported.

/// Operators that import lowers or folds, with every condition checked there.
pub(super) const SUPPORTED: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "Div",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Mul",
    "Neg",
    "Pad",
    "Pow",
    "Reciprocal",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Shape",
    "Slice",
    "Softmax",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Transpose",
    "Unsqueeze",
];

/// Advice for an operator that is not in [`SUPPORTED`].
pub(super) fn for_operator(op: &str) -> &'static str {
    match op {
        "Sigmoid" | "HardSigmoid" | "Tanh" | "LeakyRelu" | "PRelu" | "Elu" | "Selu" | "Celu" | "Gelu"
        | "Erf" | "HardSwish" | "Mish" | "Softplus" | "Softsign" | "ThresholdedRelu" | "Clip" => {
            "train with ReLU instead; `polyveil convert` then replaces it by a quadratic"
        }
        "Slice" | "Split" | "Gather" => {
            "images are not cut; write a shortcut that skips pixels as a 1×1 convolution with a stride"
        }
        "GlobalMaxPool" | "ReduceMax" => "use global average pooling instead",
        "LpPool" | "GlobalLpPool" | "MaxRoiPool" | "ReduceSum" | "ReduceL2" => "use average pooling instead",
        "LRN"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "GroupNormalization"
        | "LpNormalization"
        | "MeanVarianceNormalization" => "use batch normalisation instead: it is a constant at inference",
        "ArgMax" | "TopK" | "Hardmax" => "end the model at the logits; the client takes the maximum",
        "ConvTranspose" | "Upsample" | "Resize" | "DepthToSpace" => {
            "only classifiers are supported; use convolution and average pooling"
        }
        "QLinearConv" | "QLinearMatMul" | "ConvInteger" | "MatMulInteger" | "QuantizeLinear"
        | "DequantizeLinear" => "export the model in float32, not quantised",
        "If" | "Loop" | "Scan" => "control flow cannot depend on encrypted values; export with fixed shapes",
        "LSTM" | "GRU" | "RNN" | "Attention" => "only feed-forward image classifiers are supported",
        "Max" | "Min" | "Abs" | "Exp" | "Log" | "Where" | "Greater" | "Less" => {
            "it has no exact form in additions and multiplications; train with a quadratic instead"
        }
        _ => "rebuild this part from Conv, Gemm, BatchNormalization, AveragePool, Add, Concat and quadratics",
    }
}
