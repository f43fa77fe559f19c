//! The states of a step and every transition between them, as one table.

use serde::{Deserialize, Serialize};

/// Where a step of a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[doc(alias = "StepStatus")]
pub enum StepState {
    /// Created; nobody asked for it yet.
    Initial,
    /// Asked for; waits for its time and the leader.
    Ready,
    /// The leader dispatched it.
    Running,
    /// Stopped by an operator or by a limit; nothing new is begun.
    Paused,
    /// Ended by an operator.
    Canceled,
    /// Everything of ours was done.
    CompletedSucceeded,
    /// Something of ours stayed undone.
    CompletedFailed,
}

/// What can happen to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StepEvent {
    /// Somebody asks for it.
    Arm,
    /// The leader dispatches it.
    Start,
    /// Stop beginning anything new.
    Pause,
    /// Go on after a pause.
    Resume,
    /// End it for good.
    Cancel,
    /// All of its parts are done.
    Succeed,
    /// Something of ours stays undone.
    Fail,
    /// An operator asks again for what was not sent, or for named recipients that were refused.
    Retry,
}

/// A change of state that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: StepState,
    /// The state after.
    pub to: StepState,
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It was done before: repeating a command is harmless.
    Already,
    /// The step has ended: too late.
    Final,
    /// Not from this state: a conflict for a person, a bug for a program.
    NotFrom,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Already => "it was done before",
            Refusal::Final => "the step has ended",
            Refusal::NotFrom => "not possible from this state",
        })
    }
}

/// All states, in table order.
pub const STATES: [StepState; 7] = [
    StepState::Initial,
    StepState::Ready,
    StepState::Running,
    StepState::Paused,
    StepState::Canceled,
    StepState::CompletedSucceeded,
    StepState::CompletedFailed,
];

/// All events, in table order.
pub const EVENTS: [StepEvent; 8] = [
    StepEvent::Arm,
    StepEvent::Start,
    StepEvent::Pause,
    StepEvent::Resume,
    StepEvent::Cancel,
    StepEvent::Succeed,
    StepEvent::Fail,
    StepEvent::Retry,
];

impl StepState {
    /// The name that people and other programs see.
    pub fn name(self) -> &'static str {
        match self {
            StepState::Initial => "INITIAL",
            StepState::Ready => "READY",
            StepState::Running => "RUNNING",
            StepState::Paused => "PAUSED",
            StepState::Canceled => "CANCELED",
            StepState::CompletedSucceeded => "COMPLETED_SUCCEEDED",
            StepState::CompletedFailed => "COMPLETED_FAILED",
        }
    }

    /// Whether the step has ended.
    pub fn is_final(self) -> bool {
        matches!(self, StepState::Canceled | StepState::CompletedSucceeded | StepState::CompletedFailed)
    }
}

/// What `event` does to a step in `state`. The whole table; nothing is left to a default.
pub fn decide(state: StepState, event: StepEvent) -> Result<Transition, Refusal> {
    use Refusal::{Already, Final, NotFrom};
    use StepEvent::{Arm, Cancel, Fail, Pause, Resume, Retry, Start, Succeed};
    use StepState::{Canceled, CompletedFailed, CompletedSucceeded, Initial, Paused, Ready, Running};
    let to = match (state, event) {
        (Initial, Arm) => Ready,
        (Initial, Start | Pause | Resume | Succeed | Retry) => return Err(NotFrom),
        (Initial, Cancel) => Canceled,
        (Initial, Fail) => CompletedFailed,

        (Ready, Arm | Resume) => return Err(Already),
        (Ready, Start) => Running,
        (Ready, Pause) => Paused,
        (Ready, Cancel) => Canceled,
        (Ready, Fail) => CompletedFailed,
        (Ready, Succeed | Retry) => return Err(NotFrom),

        (Running, Arm | Start | Resume) => return Err(Already),
        (Running, Pause) => Paused,
        (Running, Cancel) => Canceled,
        (Running, Succeed) => CompletedSucceeded,
        (Running, Fail) => CompletedFailed,
        (Running, Retry) => return Err(NotFrom),

        (Paused, Pause) => return Err(Already),
        (Paused, Resume) => Ready,
        (Paused, Cancel) => Canceled,
        (Paused, Succeed) => CompletedSucceeded,
        (Paused, Fail) => CompletedFailed,
        (Paused, Arm | Start | Retry) => return Err(NotFrom),

        (Canceled, Cancel) => return Err(Already),
        (Canceled, Arm | Start | Pause | Resume | Succeed | Fail | Retry) => return Err(Final),

        (CompletedSucceeded | CompletedFailed, Retry) => Ready,
        (CompletedSucceeded, Succeed) | (CompletedFailed, Fail) => return Err(Already),
        (CompletedSucceeded, Arm | Start | Pause | Resume | Cancel | Fail)
        | (CompletedFailed, Arm | Start | Pause | Resume | Cancel | Succeed) => return Err(Final),
    };
    Ok(Transition { from: state, to })
}

/// The table as text, for `ARCHITECTURE.md` and its test.
pub fn table() -> String {
    let mut text = String::from(
        "| | Arm | Start | Pause | Resume | Cancel | Succeed | Fail | Retry |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for state in STATES {
        text.push_str("| ");
        text.push_str(state.name());
        for event in EVENTS {
            text.push_str(" | ");
            text.push_str(match decide(state, event) {
                Ok(transition) => transition.to.name(),
                Err(Refusal::Already) => "=",
                Err(Refusal::NotFrom) => ".",
                Err(Refusal::Final) => "final",
            });
        }
        text.push_str(" |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
| | Arm | Start | Pause | Resume | Cancel | Succeed | Fail | Retry |
|---|---|---|---|---|---|---|---|---|
| INITIAL | READY | . | . | . | CANCELED | . | COMPLETED_FAILED | . |
| READY | = | RUNNING | PAUSED | = | CANCELED | . | COMPLETED_FAILED | . |
| RUNNING | = | = | PAUSED | = | CANCELED | COMPLETED_SUCCEEDED | COMPLETED_FAILED | . |
| PAUSED | . | . | = | READY | CANCELED | COMPLETED_SUCCEEDED | COMPLETED_FAILED | . |
| CANCELED | final | final | final | final | = | final | final | final |
| COMPLETED_SUCCEEDED | final | final | final | final | final | = | final | READY |
| COMPLETED_FAILED | final | final | final | final | final | final | = | READY |
";

    #[test]
    fn every_cell_is_as_written() {
        assert_eq!(table(), TABLE);
    }

    #[test]
    fn the_architecture_text_shows_this_table() {
        assert!(include_str!("../ARCHITECTURE.md").contains(TABLE), "copy model::state::table() into ARCHITECTURE.md");
    }

    #[test]
    fn every_state_is_reached_and_cancel_leads_out_of_all_that_live() {
        let mut reached = std::collections::BTreeSet::from([StepState::Initial]);
        for _ in STATES {
            for state in reached.clone() {
                for event in EVENTS {
                    if let Ok(transition) = decide(state, event) {
                        assert_eq!(transition.from, state);
                        reached.insert(transition.to);
                    }
                }
            }
        }
        assert_eq!(reached.len(), STATES.len());
        for state in STATES.into_iter().filter(|s| !s.is_final()) {
            assert_eq!(decide(state, StepEvent::Cancel).map(|t| t.to), Ok(StepState::Canceled));
        }
    }

    #[test]
    fn names_read_back() {
        for state in STATES {
            let json = serde_json::to_string(&state).expect("a state is written");
            assert_eq!(json, format!("\"{}\"", state.name()));
            assert_eq!(serde_json::from_str::<StepState>(&json).expect("a state is read"), state);
        }
    }
}
