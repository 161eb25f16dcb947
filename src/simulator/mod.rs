//! The other world: reference model, and later the simulated cluster.
