//! Reading the JSON that documents and journals hold.

use serde::de::DeserializeOwned;

use crate::ports::StoreError;

/// Reads the body of a document or an entry; `what` names it in the error.
///
/// # Errors
/// [`StoreError::Corrupt`] for a body that is damaged.
pub fn read<T: DeserializeOwned>(what: &str, body: &str) -> Result<T, StoreError> {
    // The parser's own message could quote the row, and with it a number or a secret: only its kind and place are told.
    serde_json::from_str(body).map_err(|error| {
        let (kind, line, column) = (error.classify(), error.line(), error.column());
        StoreError::Corrupt(format!("{what}: {kind:?} error at line {line}, column {column}"))
    })
}

/// Reads a row that says its own name, under which it is stored. One that says another's is damaged: what is done to it, and in
/// its name, would be done to that one.
///
/// # Errors
/// As for [`read`].
pub fn read_named<T: DeserializeOwned>(what: &str, name: &str, body: &str, own: impl Fn(&T) -> &str) -> Result<T, StoreError> {
    let row: T = read(what, body)?;
    if own(&row) == name { Ok(row) } else { Err(StoreError::Corrupt(format!("{what}: it has another's id"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_body_is_never_quoted() {
        let secret = r#""whsec_c2VjcmV0""#;
        let refused = read::<u64>("webhook wh_1", secret);
        assert_eq!(refused, Err(StoreError::Corrupt("webhook wh_1: Data error at line 1, column 16".into())));
        assert_eq!(read::<String>("webhook wh_1", secret), Ok("whsec_c2VjcmV0".into()));
    }
}
