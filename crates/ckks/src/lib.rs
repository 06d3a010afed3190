//! RNS-CKKS with checked parameters, evaluator, evaluation keys and noise formulas
