//! The error codes of the whole system: one list, used by log lines, metrics, the API and the command line alike.
//!
//! Layers add context to a code; they never turn it into a string. A number, once given, keeps its meaning for ever.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($variant:ident = $number:literal, $http:literal, $retryable:literal, $meaning:literal, $advice:literal;)*) => {
        /// An error code, `SF-` and four digits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $meaning] #[serde(rename = $number)] $variant,)*
        }

        /// All codes, in the order of their numbers.
        pub const CODES: &[Code] = &[$(Code::$variant),*];

        impl Code {
            /// The code as people see it.
            pub fn as_str(self) -> &'static str { match self { $(Code::$variant => $number,)* } }
            /// The HTTP status that goes with it.
            pub fn http_status(self) -> u16 { match self { $(Code::$variant => $http,)* } }
            /// Whether the same call may succeed later without a change.
            pub fn retryable(self) -> bool { match self { $(Code::$variant => $retryable,)* } }
            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str { match self { $(Code::$variant => $meaning,)* } }
            /// What to do about it.
            pub fn advice(self) -> &'static str { match self { $(Code::$variant => $advice,)* } }
        }
    };
}

codes! {
    SourceNotFound = "SF-1001", 404, false, "the list of recipients cannot be opened", "check the path and its permissions";
    SourceNotText = "SF-1002", 422, false, "the list of recipients is neither CSV nor JSON Lines", "export the list as CSV or JSON Lines, or name its encoding";
    SourceEmpty = "SF-1003", 422, false, "the list of recipients has no record", "check that the right file was given";
    SourceColumnMissing = "SF-1004", 422, false, "a needed column is not in the list of recipients", "name the column that holds the numbers, or correct the header";
    TemplateUnknownColumn = "SF-1005", 422, false, "the template uses a column that the list does not have", "correct the name in the template or add the column";
    TemplateInvalid = "SF-1006", 422, false, "the template cannot be read", "correct the template at the place named";
    SourceChanged = "SF-1007", 409, false, "the list of recipients changed while it was prepared", "create a new batch from the changed list";
    SourceBroken = "SF-1008", 422, false, "the list of recipients breaks off or cannot be decoded", "check the compression and the encoding of the file";
    SourceUnavailable = "SF-1009", 503, true, "the storage of the list of recipients does not answer", "check the address, the setting named and the network; it is tried again";
    SourceForbidden = "SF-1010", 403, false, "the list of recipients lies where this fleet may not read", "name a place that the configuration allows (sources.folders, object_stores, azure_tables), or upload the list";
    UploadTooLarge = "SF-1011", 413, false, "the uploaded list is larger than allowed", "compress it, split it, or raise uploads.max_mb";
    UploadBroken = "SF-1012", 422, false, "the uploaded list is not what was announced", "upload it again";
    RowNumberMissing = "SF-2001", 422, false, "the record has no telephone number", "fill in the number";
    RowNumberInvalid = "SF-2002", 422, false, "the telephone number is not valid", "correct the number, or set the default region";
    RowValueMissing = "SF-2003", 422, false, "the record lacks a value that the template needs", "fill in the column";
    RowRenderFailed = "SF-2004", 422, false, "the template fails for this record", "check the expressions of the template";
    RowTextEmpty = "SF-2005", 422, false, "the rendered text is empty", "check the template and the record";
    RowTextTooLong = "SF-2006", 422, false, "the rendered text is too long", "shorten the text";
    RowMalformed = "SF-2007", 422, false, "the record is malformed", "check quotes and the number of fields";
    RowNotText = "SF-2008", 422, false, "the record is not valid in the list's encoding", "check the encoding of the list";
    RowTooLarge = "SF-2009", 422, false, "the record is longer than a megabyte", "check for a quote that is never closed";
    RowLinkForbidden = "SF-2010", 422, false, "the account does not allow a link of its own per recipient", "use an account that allows links";
    IdempotencyConflict = "SF-3001", 409, false, "the same idempotency key was used for another request", "choose another key for another batch";
    BatchNotFound = "SF-3002", 404, false, "there is no such batch", "list the batches";
    NotAllowed = "SF-3003", 409, false, "the command is not possible from the batch's state", "see which commands are allowed now";
    PlanChanged = "SF-3004", 409, false, "the plan is not the one that was approved", "look at the new plan and approve its hash";
    RecipientNotFound = "SF-3005", 404, false, "the number is not in the batch", "check the number";
    RecordsUnaccounted = "SF-3006", 500, false, "records are not accounted for", "report this as a bug; nothing is sent twice because of it";
    BatchUnsent = "SF-3007", 500, false, "recipients were left unsent", "retry the batch";
    StartMissed = "SF-3008", 409, false, "the start was missed, and not_after has passed", "resume the batch to send it all the same, or cancel it";
    FolderInUse = "SF-4001", 423, true, "another process holds the data folder", "use that process, or wait until it ends";
    StoreFull = "SF-4002", 507, true, "the disk is full", "free some space; the batch goes on by itself, unless you pause it too";
    StoreFormat = "SF-4003", 500, false, "the data folder was written by another version", "use the version that wrote it";
    StoreCorrupt = "SF-4004", 500, false, "a stored row cannot be read", "keep the folder and report this";
    StoreStale = "SF-4005", 503, false, "the store is older than what this fleet has already done", "run `smsfleet recover --since TIME`";
    StoreUnavailable = "SF-4006", 503, true, "the store does not answer", "wait; it is tried again";
    StoreUnknown = "SF-4007", 503, true, "the store did not say whether a write was applied", "wait; the row is read again before anything else";
    StoreConflict = "SF-4008", 409, true, "somebody else changed the row first", "read it again";
    ServerUnavailable = "SF-4009", 503, true, "a server that the fleet needs does not answer", "check the address and the setting named, the network, and whether the server runs";
    ServerLogin = "SF-4010", 401, false, "a server that the fleet needs refuses the login", "check the user, the password and the mechanism in the settings named";
    ServerTls = "SF-4011", 502, false, "no safe connection to a server that the fleet needs", "check its certificate and the authorities in the setting named";
    ServerSchema = "SF-4012", 503, false, "tables or topics are missing, or were made by another version", "run `smsfleet migrate` with this version";
    Standstill = "SF-4013", 503, false, "a part of the process stands still", "let it be started again, and report this with the log";
    ProviderRefused = "SF-5001", 502, false, "the provider refused the message for good", "see the provider's code";
    ProviderNoAnswer = "SF-5002", 504, false, "the message was handed over and never answered", "ask the provider, or let a receipt settle it";
    ProviderTransient = "SF-5003", 503, true, "the provider refused for now, too often", "retry the batch later";
    ProviderThrottled = "SF-5004", 429, true, "the provider asks to slow down", "nothing; the rate follows";
    ProviderDown = "SF-5005", 503, true, "the provider cannot be reached", "check address, network and the provider's state";
    ProviderLogin = "SF-5006", 401, true, "the provider refuses the login", "check the account's name, password and allowed addresses";
    ProviderTls = "SF-5007", 502, true, "no safe connection to the provider", "check its certificate and the configured authority";
    AccountUnknown = "SF-5008", 422, false, "no such account or provider type is configured", "see `smsfleet check-config`";
    NotEncodable = "SF-5009", 422, false, "the text cannot be sent by this account", "shorten the text or use another account";
    NotTheSimulator = "SF-5011", 422, false, "the account is not the drill's own simulator", "run the drill with a configuration that names no provider (--config)";
    ConfigInvalid = "SF-6001", 422, false, "the configuration is not valid", "correct the key named";
    InputInvalid = "SF-6002", 422, false, "the input is not valid", "correct what is named";
    OutputFailed = "SF-6003", 500, false, "the output cannot be written", "make room, or write it elsewhere; what was done stays done";
    PartiallySent = "SF-5010", 502, false, "only some parts of the message were taken", "ask the provider";
    KeyMissing = "SF-7001", 401, false, "the request carries no API key", "send `Authorization: Bearer KEY`; make a key with `smsfleet key create`";
    KeyInvalid = "SF-7002", 401, false, "the API key is unknown, revoked or expired", "use another key, or make one with `smsfleet key create`";
    RoleForbidden = "SF-7003", 403, false, "the API key may not do this", "use a key with the role named";
    TooManyRequests = "SF-7004", 429, true, "too many requests", "wait as long as Retry-After says";
    BodyTooLarge = "SF-7005", 413, false, "the request is larger than is taken", "send less at once, or raise the limit named";
    TooSlow = "SF-7006", 408, true, "the request took too long", "send it faster, or ask for less";
    KeyNotFound = "SF-7007", 404, false, "there is no such API key", "list the keys";
    CommandRunning = "SF-7008", 409, true, "the same command is being carried out", "wait; the same key gets the same answer";
    NotFound = "SF-7009", 404, false, "there is nothing under this address", "see /openapi.json for what there is";
    ServerDown = "SF-7012", 503, true, "the service does not answer", "check --server, the network and whether the service runs";
    AccountNotFound = "SF-7011", 404, false, "there is no such account", "list the accounts";
    MethodUnknown = "SF-7010", 405, false, "the address does not take this method", "see /openapi.json for what it takes";
    Internal = "SF-9001", 500, false, "a bug in smsfleet", "report it with the log";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A code with what it was about: the form in which errors reach people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which error.
    pub code: Code,
    /// What was wrong and where; lower case, no final stop, no personal data.
    pub context: String,
}

impl Fault {
    /// A fault with its context.
    pub fn new(code: Code, context: impl Into<String>) -> Fault {
        Fault { code, context: context.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.code, self.context, self.code.meaning())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_different_and_read_back() {
        let mut seen = std::collections::BTreeSet::new();
        for &code in CODES {
            assert!(seen.insert(code.as_str()), "{code} is given twice");
            assert!(code.as_str().len() == 7 && code.as_str().starts_with("SF-"));
            assert!((400..600).contains(&code.http_status()));
            let json = serde_json::to_string(&code).expect("a code is written");
            assert_eq!(serde_json::from_str::<Code>(&json).expect("a code is read"), code);
        }
    }
}
