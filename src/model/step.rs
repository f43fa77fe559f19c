//! The two steps of a batch.

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::state::StepState;
use super::time::Timestamp;

/// What the two steps have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbstractStep {
    /// Where it stands.
    pub state: StepState,
    /// When it was dispatched first.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Why it is paused or failed.
    pub reason: Option<(Code, String)>,
}

impl AbstractStep {
    /// A step that nobody asked for yet.
    pub fn initial() -> AbstractStep {
        AbstractStep { state: StepState::Initial, started: None, ended: None, reason: None }
    }
}

/// Preparation: ranges, packs, seal. Carried out by `prepare`.
pub type SmsPreparationStep = AbstractStep;

/// Delivery: tokens, windows, answers. Carried out by `dispatch` and `deliver`.
pub type SmsDeliveryStep = AbstractStep;

/// Which step a batch is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CurrentStep {
    /// Preparation.
    Preparation,
    /// Delivery.
    Delivery,
}
