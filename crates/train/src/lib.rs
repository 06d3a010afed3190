//! Data sets, training, conversion of ReLU networks to HE-friendly ones, metrics
