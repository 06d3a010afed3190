//! Word-size modular arithmetic, NTT, embedding FFT and samplers for Polyveil
