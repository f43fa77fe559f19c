//! What retention has let go of: written into the batch's row before anything is deleted, so that nobody takes what is missing
//! for what never happened.

use serde::{Deserialize, Serialize};

/// How far one kind of a batch's data has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Going {
    /// It is there.
    #[default]
    Kept,
    /// It is being deleted: some of it may be gone.
    Begun,
    /// It is gone.
    Gone,
}

/// What of a batch that is over was let go of. From the first of it on nobody of the batch is sent again, and nothing of it is
/// counted again: without its history whoever was sent looks like somebody who never was, and without its texts nobody can be
/// named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LetGo {
    /// Numbers and texts.
    pub texts: Going,
    /// What happened to each recipient.
    pub history: Going,
}

impl LetGo {
    /// Whether nothing was let go of.
    pub fn is_nothing(&self) -> bool {
        *self == LetGo::default()
    }
}
