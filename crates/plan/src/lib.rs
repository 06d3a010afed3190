//! From network graph to CKKS plan: folding, layouts, levels, rotation keys, parameters, cost
