//! How commands end.

use crate::model::code::{Code, Fault};

/// All settled.
pub const SETTLED: u8 = 0;
/// Some failed or uncertain, or not settled yet.
pub const UNSETTLED: u8 = 1;
/// The input was refused.
pub const REFUSED: u8 = 2;
/// It could not run.
pub const COULD_NOT_RUN: u8 = 3;

/// The exit code of a fault: whose input must change, and whose machine.
pub fn of(fault: &Fault) -> u8 {
    match fault.code {
        Code::SourceUnavailable
        | Code::FolderInUse
        | Code::StoreFull
        | Code::StoreFormat
        | Code::StoreCorrupt
        | Code::StoreStale
        | Code::StoreUnavailable
        | Code::StoreUnknown
        | Code::StoreConflict
        | Code::ProviderDown
        | Code::ProviderLogin
        | Code::ProviderTls
        | Code::RecordsUnaccounted
        | Code::ServerUnavailable
        | Code::ServerLogin
        | Code::ServerTls
        | Code::ServerSchema
        | Code::ServerDown
        | Code::Standstill
        | Code::CommandRunning
        | Code::OutputFailed
        | Code::TooManyRequests
        | Code::TooSlow
        | Code::Internal => COULD_NOT_RUN,
        Code::BatchUnsent
        | Code::ProviderRefused
        | Code::ProviderNoAnswer
        | Code::ProviderTransient
        | Code::ProviderThrottled
        | Code::PartiallySent => UNSETTLED,
        _ => REFUSED,
    }
}

/// A fault as people read it: what, why, and what to do.
pub fn text(fault: &Fault) -> String {
    format!(
        "error {}: {}\n  it means: {}\n  what to do: {}",
        fault.code,
        fault.context,
        fault.code.meaning(),
        fault.code.advice()
    )
}

/// A fault as programs read it.
pub fn json(fault: &Fault) -> serde_json::Value {
    serde_json::json!({ "error": {
        "code": fault.code, "detail": fault.context, "meaning": fault.code.meaning(), "advice": fault.code.advice(),
        "retryable": fault.code.retryable(),
    } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::code::CODES;

    #[test]
    fn whatever_another_try_may_mend_is_no_refusal_of_the_input() {
        for code in CODES.iter().filter(|code| code.retryable() || code.http_status() == 503) {
            assert_ne!(of(&Fault::new(*code, "")), REFUSED, "{code}");
        }
        assert_eq!(of(&Fault::new(Code::OutputFailed, "")), COULD_NOT_RUN, "all may have been sent by then");
        assert_eq!(of(&Fault::new(Code::InputInvalid, "")), REFUSED);
    }
}
