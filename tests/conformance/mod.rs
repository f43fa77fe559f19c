//! Conformance: one suite for every port, run over every implementation.
