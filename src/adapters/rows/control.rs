//! Control rows: version byte, the row's version and nonce in fixed places, then JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{VERSION, WRITTEN, corrupt};
use crate::ports::StoreError;
use crate::ports::control::Versioned;

/// Where the row's version stands.
pub const VERSION_AT: usize = 1;
const NONCE_AT: usize = 9;
const JSON_AT: usize = 17;

/// Writes a control row.
pub fn write<T: Serialize>(version: u64, nonce: u64, row: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.push(WRITTEN);
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&nonce.to_be_bytes());
    #[cfg(feature = "next-formats")]
    let row = &super::next::Next(row);
    serde_json::to_writer(&mut bytes, row).expect("a control row has only names as keys");
    bytes
}

/// Reads a control row; `what` names it in the error. Fields that a later version added are passed over.
pub fn read<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<Versioned<T>, StoreError> {
    if bytes.len() < JSON_AT || bytes[0] < VERSION {
        return Err(corrupt(what, "it is too short, or older than any form this program knows"));
    }
    let number = |at: usize| {
        let mut field = [0; 8];
        field.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(field)
    };
    // The parser's own message could quote the row: only its kind and place are told.
    let row = serde_json::from_slice(&bytes[JSON_AT..])
        .map_err(|error| corrupt(what, &format!("{:?} error at byte {}", error.classify(), error.column())))?;
    let version = number(VERSION_AT);
    // Whoever changes the row counts on from here.
    if version == u64::MAX {
        return Err(corrupt(what, "its version is at its end"));
    }
    Ok(Versioned { version, nonce: number(NONCE_AT), row })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ledger::Ledger;
    use crate::model::limits::WINDOW_RECIPIENTS_MAX;

    #[test]
    fn the_form_is_the_one_that_is_stored() {
        let bytes = write(3, 0x0102, &Ledger::sealed(2));
        let golden = concat!(
            r#"{"len":2,"task_number":0,"owner":0,"legs":[{"id":0,"len":2,"declared":0,"due":0}],"open":[],"#,
            r#""totals":{"accepted":0,"failed":0,"uncertain":0,"suppressed":0,"expired":0,"segments":0},"closed":false,"fences":0,"#,
            r#""handed":null,"order":0,"ordered":0,"foreign_until":0,"provider_number":0,"closed_number":0}"#
        );
        assert_eq!(bytes[..JSON_AT], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(std::str::from_utf8(&bytes[JSON_AT..]), Ok(golden));
        let read: Versioned<Ledger> = read("ledger", &bytes).expect("it reads back");
        assert_eq!(read, Versioned { version: 3, nonce: 0x0102, row: Ledger::sealed(2) });
    }

    #[test]
    fn a_row_of_which_nobody_could_go_on_is_damaged() {
        let text = |row: &Ledger| String::from_utf8(write(3, 0, row)[JSON_AT..].to_vec()).expect("JSON");
        let refused = |json: &str| {
            let mut bytes = write(3, 0, &Ledger::sealed(2))[..JSON_AT].to_vec();
            bytes.extend_from_slice(json.as_bytes());
            read::<Ledger>("ledger", &bytes).is_err()
        };
        let sealed = text(&Ledger::sealed(2));
        assert!(!refused(&sealed));
        assert!(refused(&sealed.replace(r#""declared":0"#, r#""declared":3"#)), "a leg declared beyond its end");
        assert!(refused(&sealed.replace(r#""fences":0"#, r#""fences":4294967295"#)), "fences that cannot grow");
        let window = r#"{"window":1,"leg":0,"from":2,"to":1,"account":"a","declarer":1,"declared_at":1,"send_by":2}"#;
        let open = |window: &str| sealed.replace(r#""open":[]"#, &format!(r#""open":[{window}]"#));
        assert!(!refused(&open(&window.replace(r#""to":1"#, r#""to":2"#))));
        assert!(refused(&open(window)), "a window that ends before it begins");
        // Whoever judges a window makes room for all of it.
        assert!(refused(&open(&window.replace(r#""from":2,"to":1"#, r#""from":0,"to":3"#))), "a window beyond its leg");
        let long = |to: u32| {
            let window = window.replace(r#""from":2,"to":1"#, &format!(r#""from":0,"to":{to}"#));
            open(&window).replace(r#""len":2"#, r#""len":4294967295"#)
        };
        assert!(!refused(&long(WINDOW_RECIPIENTS_MAX)));
        assert!(refused(&long(WINDOW_RECIPIENTS_MAX + 1)) && refused(&long(u32::MAX)), "a window longer than any");
        assert!(refused(&sealed.replacen(r#""len":2"#, r#""len":1"#, 1)), "a leg longer than its lane");
        assert!(read::<Ledger>("ledger", &write(u64::MAX, 0, &Ledger::sealed(2))).is_err(), "a version that cannot grow");
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over_at_any_depth() {
        let text = String::from_utf8(write(3, 0, &Ledger::sealed(2))[JSON_AT..].to_vec()).expect("JSON");
        let later = text.replace(r#""id":0,"#, r#""id":0,"new":[1,{"a":2}],"#).replace(r#""closed""#, r#""more":{},"closed""#);
        let mut bytes = write(3, 0, &Ledger::sealed(2))[..JSON_AT].to_vec();
        bytes[0] = VERSION + 1;
        bytes.extend_from_slice(later.as_bytes());
        assert_eq!(read::<Ledger>("ledger", &bytes).expect("it is read").row, Ledger::sealed(2));
        bytes[0] = 0;
        assert!(read::<Ledger>("ledger", &bytes).is_err());
    }
}
