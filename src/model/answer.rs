//! What an account's answer means: one table per protocol.

use serde::{Deserialize, Serialize};

use super::code::Code;

/// What one part of one message came to. Stored; every variant is a fact, not a guess.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The account took it and named it.
    Accepted {
        /// The account's message id, as it was sent to us.
        id: Box<str>,
    },
    /// The account refused it for good.
    Failed {
        /// Our code.
        code: Code,
        /// The protocol's own code, such as `0x0000000B` or `HTTP 400 bad_number`.
        detail: Box<str>,
    },
    /// The account said "not now": nothing was sent.
    NotNow {
        /// What kind of "not now".
        kind: NotNow,
        /// The protocol's own code.
        detail: Box<str>,
    },
    /// Handed over, and no answer came: nobody can know whether it was sent.
    NoAnswer,
    /// It was never handed over: it goes back.
    NotSent,
    /// Its number was suppressed when the window was declared.
    Suppressed,
    /// Its validity ended before it was declared.
    Expired,
}

impl Answer {
    /// The metric's word for it.
    pub fn class(&self) -> &'static str {
        match self {
            Answer::Accepted { .. } => "accepted",
            Answer::Failed { .. } => "failed",
            Answer::NotNow { kind, .. } => kind.name(),
            Answer::NoAnswer => "no_answer",
            Answer::NotSent => "not_sent",
            Answer::Suppressed => "suppressed",
            Answer::Expired => "expired",
        }
    }
}

/// Kinds of "not now". They differ in when, and how often, the message is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NotNow {
    /// The account is over its rate: not an attempt, soon again, the rate is cut.
    Throttled,
    /// The account has no room, perhaps only for this one handset: later again.
    QueueFull,
    /// Something failed over there: again with a growing delay, a few times.
    Transient,
    /// The session is not usable: not an attempt, the route is broken, the message untouched.
    Session,
}

impl NotNow {
    /// The metric's and the report's word for it.
    pub fn name(self) -> &'static str {
        match self {
            NotNow::Throttled => "throttled",
            NotNow::QueueFull => "queue_full",
            NotNow::Transient => "transient",
            NotNow::Session => "session",
        }
    }
}

/// What a protocol's refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Taken.
    Accepted,
    /// Not now.
    NotNow(NotNow),
    /// Never.
    Permanent,
    /// It may have been sent.
    Unknown,
}

/// The meaning of an SMPP 3.4 `command_status` in a `submit_sm_resp` (SMPP 3.4, 5.1.3). The standard names the codes; the
/// class is this project's judgement. Vendor codes (0x400 to 0x4FF) and reserved ones count as permanent unless the
/// account's own table, looked up before this one, says otherwise.
pub fn smpp_class(status: u32) -> Class {
    match status {
        0x00 => Class::Accepted,
        // ESME_RTHROTTLED
        0x58 => Class::NotNow(NotNow::Throttled),
        // ESME_RMSGQFUL
        0x14 => Class::NotNow(NotNow::QueueFull),
        // ESME_RSYSERR, ESME_RSUBMITFAIL, ESME_RX_T_APPN, ESME_RDELIVERYFAILURE, ESME_RUNKNOWNERR
        0x08 | 0x45 | 0x64 | 0xFE | 0xFF => Class::NotNow(NotNow::Transient),
        // ESME_RINVBNDSTS, ESME_RALYBND, ESME_RBINDFAIL, ESME_RINVPASWD, ESME_RINVSYSID
        0x04 | 0x05 | 0x0D | 0x0E | 0x0F => Class::NotNow(NotNow::Session),
        _ => Class::Permanent,
    }
}

/// The meaning of an HTTP status to a submit. `has_retry_after` says whether the answer names a time to come back: without
/// it a 503 may have been sent. A timed-out request is [`Class::Unknown`] and never reaches this table.
pub fn http_class(status: u16, has_retry_after: bool) -> Class {
    match status {
        200..=299 => Class::Accepted,
        429 => Class::NotNow(NotNow::Throttled),
        503 if has_retry_after => Class::NotNow(NotNow::Throttled),
        401 | 403 => Class::NotNow(NotNow::Session),
        400..=499 => Class::Permanent,
        _ => Class::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_say_what_the_protocols_mean() {
        for status in [0x01, 0x0A, 0x0B, 0x33, 0x61, 0x62, 0x400, 0xC4] {
            assert_eq!(smpp_class(status), Class::Permanent, "{status:#x}");
        }
        assert_eq!(smpp_class(0), Class::Accepted);
        assert_eq!(smpp_class(0x58), Class::NotNow(NotNow::Throttled));
        assert_eq!(http_class(503, true), Class::NotNow(NotNow::Throttled));
        for (status, retry_after) in [(503, false), (500, true), (502, false), (504, false), (302, false)] {
            assert_eq!(http_class(status, retry_after), Class::Unknown, "{status}");
        }
        assert_eq!(http_class(404, false), Class::Permanent);
    }
}
