//! Messages that people send to us, and what they want by them.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// A message from a person, as an account passed it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Who sent it, as the account has it: a number, mostly in E.164 (personal data).
    pub from: String,
    /// The number it was sent to: the account's own, with the `ext_code` of what it answers behind it.
    pub to: String,
    /// What it says (personal data).
    pub text: String,
    /// The account's own id of it; empty when it has none.
    pub id: String,
    /// When it came in.
    pub received: Timestamp,
}
