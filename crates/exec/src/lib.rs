//! Runs a plan: plain, simulated, or on ciphertexts
