//! The signature of a call, as Standard Webhooks 1.0 has it (standardwebhooks.com): HMAC-SHA256 over id, time and body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::webhook::WebhookSecret;

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// Bytes of a secret.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret of these random bytes: 24 to 64 of them.
pub fn secret_of(bytes: &[u8]) -> WebhookSecret {
    WebhookSecret(format!("{PREFIX}{}", STANDARD.encode(bytes)))
}

/// The value of `webhook-signature` for a call: `v1,` and base64. `None` for a secret that is none. `seconds` is the value of
/// `webhook-timestamp`.
pub fn sign(secret: &WebhookSecret, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    // A damaged secret may be a short one: what it signs, anybody could.
    let key = STANDARD.decode(secret.0.strip_prefix(PREFIX)?).ok().filter(|key| KEY_BYTES.contains(&key.len()))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_vector_is_signed_as_the_reference_signs_it() {
        // The vector that the libraries of Standard Webhooks test themselves with.
        let secret = WebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into());
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn a_secret_is_written_so_that_it_can_be_read() {
        let secret = secret_of(&[7; 32]);
        assert!(sign(&secret, "a", 0, b"x").is_some());
        assert_eq!(sign(&WebhookSecret("another".into()), "a", 0, b"x"), None);
        assert!(!format!("{secret:?}").contains(&secret.0));
    }
}
