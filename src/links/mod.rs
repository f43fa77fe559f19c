//! Short codes.
