//! How a request shows that it may be made: signed with the account's key, or under a shared access signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::adapters::secret::Secret;
use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;

/// What a request carries so that it is let in.
pub enum Access {
    /// A signature made with the account's key.
    SharedKey(Mac256),
    /// Parameters that somebody else signed, without a `?` before them.
    Sas(Secret),
}

/// The keyed hash before any text: the key itself is not kept.
type Mac256 = Hmac<Sha256>;

impl Access {
    /// By the account's key in Base64, or else by the signature.
    pub fn new(key: &Secret, sas: &Secret) -> Result<Access, Fault> {
        if key.is_empty() {
            return Ok(Access::Sas(Secret::new(sas.expose().trim().trim_start_matches('?'))));
        }
        let refuse = || Fault::new(Code::ConfigInvalid, "the account's key is no Base64");
        let key = STANDARD.decode(key.expose().trim()).map_err(|_| refuse())?;
        Ok(Access::SharedKey(Mac256::new_from_slice(&key).map_err(|_| refuse())?))
    }

    /// The `Authorization` of a GET of `path`, percent-encoded as it is sent, at `date`; `None` when parameters say it all.
    pub fn authorization(&self, account: &str, path: &str, date: &str) -> Option<String> {
        let Access::SharedKey(mac) = self else { return None };
        let mut mac = mac.clone();
        mac.update(text_to_sign(account, path, date).as_bytes());
        Some(format!("SharedKey {account}:{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// What the table service wants signed (REST reference, "Authorize with Shared Key"): method, MD5 and kind of the body, which a
/// GET has none of, the date, and the resource. Of parameters only `comp` would count.
fn text_to_sign(account: &str, path: &str, date: &str) -> String {
    format!("GET\n\n\n{date}\n/{account}{path}")
}

/// The date of a request, such as `Mon, 01 Jan 2024 00:00:00 GMT`.
pub fn date(now: Timestamp) -> Result<String, Fault> {
    let wrong = |error: jiff::Error| Fault::new(Code::Internal, format!("the clock shows no date: {error}"));
    let now = jiff::Timestamp::from_millisecond(now.0).map_err(wrong)?;
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python's hmac and hashlib over Microsoft's form of the text, for the key of bytes 0 to 63.
    #[test]
    fn signatures_are_those_of_another_program() {
        let key: Vec<u8> = (0..64).collect();
        let access = Access::new(&Secret::new(STANDARD.encode(key)), &Secret::default()).expect("a key");
        for (account, path, date, signature) in [
            ("acme", "/people()", "Mon, 01 Jan 2024 00:00:00 GMT", "TusJtqyPHShckRnod7xOsV0dJPfOD5sbqYcsvaUA/gk="),
            // An emulator has the account in its path, which then comes twice.
            ("smstest", "/smstest/people()", "Thu, 29 Feb 2024 23:59:59 GMT", "04gh89VJFckddAIaopSGi0sf3Td6rt/+tE9RkI1UVkw="),
        ] {
            let found = access.authorization(account, path, date);
            assert_eq!(found.as_deref(), Some(format!("SharedKey {account}:{signature}").as_str()));
        }
        let sas = Access::new(&Secret::default(), &Secret::new("?sv=1&sig=x")).expect("a signature");
        assert!(matches!(&sas, Access::Sas(sas) if sas.expose() == "sv=1&sig=x"));
        assert_eq!(sas.authorization("acme", "/people()", ""), None);
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(date(Timestamp(1_704_067_200_000)).as_deref(), Ok("Mon, 01 Jan 2024 00:00:00 GMT"));
        assert_eq!(date(Timestamp(1_709_251_199_500)).as_deref(), Ok("Thu, 29 Feb 2024 23:59:59 GMT"));
    }
}
