//! Simulation: the real roles over in-memory ports, time and chance from a seed.
