//! What is due, and sending its tokens.
