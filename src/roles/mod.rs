//! The composers: which stages run in a process, over which adapters.
