//! Deliberate bugs, for the proof of the proof: `tests/simulation` switches them on one by one, and must find each.
//!
//! A switch belongs to the thread that turned it, so that a simulation with a bug disturbs no other test. Builds without debug
//! assertions have no switches: there [`is_on`] is `false` at compile time, and the bugs are gone from the program.

use std::cell::Cell;
use std::marker::PhantomData;

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $name:ident,)+) => {
        /// A bug that breaks a rule that always holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])+ $name,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$name,)+];
        }
    };
}

bugs! {
    /// A conditional write that was never answered counts as applied.
    UnknownIsApplied,
    /// A conditional write that was never answered is decided afresh, without reading what became of it.
    UnknownIsRefused,
    /// The version that a change rests on is read just before it is written.
    NoCondition,
    /// A window is handed over before its declare is stored.
    SendBeforeDeclare,
    /// Messages are handed over after the window's send-by limit.
    NoSendBy,
    /// Suppressed numbers are not looked for when a window is declared.
    NoSuppression,
    /// A worker that was replaced does not write the answers it gets.
    ConditionalAnswers,
    /// Message ids are not written to the receipt index.
    NoIndex,
    /// A window that ends lowers `declared` over whom it has handed over.
    LowerTooFar,
    /// Who was told "not now" is not tried again.
    ForgetNotNow,
    /// Windows of others are closed at once, and who has no answer is forgotten.
    CloseUnjudged,
    /// Who was never answered is sent the message again, though nobody asked for that.
    ResendUnasked,
    /// A claim begins where the token says, not where the ledger stands.
    CursorFromToken,
    /// Cancel reports success without fencing the lanes.
    NoFenceOnCancel,
    /// Pause reports success without fencing the lanes.
    NoFenceOnPause,
    /// A change of provider does not fence the lanes.
    NoFenceOnProvider,
    /// Receipts are acknowledged before they are durable.
    AcknowledgeEarly,
    /// Receipts that match nothing yet are thrown away.
    ForgetUnmatched,
    /// Numbers that are twice in a list are not struck.
    NoDeduplication,
    /// Nobody sends lost tokens again.
    LostWakeUp,
    /// A worker that stops does not wait for the answers of lanes that it gave back before.
    ForgetGivenBack,
    /// A declare whose answer nobody waits for any more is left as it is.
    LeaveDeclared,
    /// A batch is finished while windows are open.
    FinishOpen,
    /// After a restore, what was answered "not now" before the backup is sent again.
    TrustOldAnswers,
    /// A batch that was planned before is planned again, by the next leader or after a pause.
    PlanAgain,
    /// A worker whose partitions are taken away is not told, and goes on with their lanes.
    KeepRevoked,
    /// After a restore, who was refused before the backup can be sent again.
    RetryRestored,
    /// Of numbers that are twice in a list all records are struck, also the first.
    StrikeAll,
    /// Some records with a good number are rejected.
    RejectValid,
    /// Who was told "not now" has failed at once.
    FailNotNow,
    /// A pause promises an end that is no end.
    PromiseNothing,
    /// Windows are declared for an hour.
    StretchWindows,
    /// Receipts that say that a message did not arrive are acknowledged and thrown away.
    ForgetUndelivered,
    /// Answers that come while their batch is paused are thrown away.
    DropAnswersWhenPaused,
    /// Windows of others are judged a second after they were first seen.
    JudgeEarly,
    /// Who is in doubt is not written down for receipts to find.
    ForgetDoubted,
    /// Of retry packs that are put together only the newest is sent.
    DropMergedLeg,
    /// An order to send again counts whom it names, and they are not in the lane.
    DropOrderedLeg,
}

thread_local! {
    static ON: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Whether a bug is switched on in this thread.
pub fn is_on(bug: Bug) -> bool {
    cfg!(debug_assertions) && ON.get() == Some(bug)
}

/// A bug that is on until this is dropped.
pub struct Switch(PhantomData<*const ()>);

impl Drop for Switch {
    fn drop(&mut self) {
        ON.set(None);
    }
}

/// Switches a bug on in this thread; it has no effect in builds without debug assertions.
pub fn switch_on(bug: Bug) -> Switch {
    ON.set(Some(bug));
    Switch(PhantomData)
}
