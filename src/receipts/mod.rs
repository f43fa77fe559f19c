//! Reports in, matched to their recipient, kept.
