//! Accounts that speak HTTP, described by configuration.
