//! Accounts that speak SMPP 3.4.
