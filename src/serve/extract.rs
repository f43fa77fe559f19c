//! Bodies, queries and places in a list, as requests carry them; what cannot be read is a problem with its place.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::model::code::{Code, Fault};
use crate::model::hex;
use crate::model::lane::mix;
use crate::model::time::Timestamp;
use crate::ports::journal::Place;

/// A JSON body. An empty one is read as `{}`, so that a command without wishes needs none.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Problem> {
        let bytes = whole(request, state).await?;
        let text = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        serde_json::from_slice(text).map(Body).map_err(|error| {
            // The parser's text names fields and places; of the values it quotes at most a short one that was typed wrongly.
            Fault::new(Code::InputInvalid, format!("the body is not what is asked for: {error}")).into()
        })
    }
}

/// The bytes of a body, within the limit that its route has.
pub async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|refused| {
        let code = if refused.status().as_u16() == 413 { Code::BodyTooLarge } else { Code::InputInvalid };
        Fault::new(code, "the body is larger than is taken, or broke off").into()
    })
}

/// A query. Unknown names are refused where the structure says so.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Asked<T>, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(refused) => Err(Fault::new(Code::InputInvalid, refused.body_text()).into()),
        }
    }
}

/// A place in a list as it is shown: checked when it comes back, so that a damaged one is refused instead of skipping
/// somebody.
pub fn cursor(place: &str) -> String {
    format!("{:08x}{place}", check_of(place))
}

/// The place behind a cursor.
///
/// # Errors
/// [`Code::InputInvalid`] when it is none of ours.
pub fn place(cursor: &str) -> Result<String, Fault> {
    let parsed = cursor.split_at_checked(8).and_then(|(check, place)| Some((hex::number(check)?, place)));
    match parsed {
        Some((check, place)) if check == u128::from(check_of(place)) => Ok(place.to_owned()),
        _ => Err(Fault::new(Code::InputInvalid, "cursor is not one that a list gave")),
    }
}

fn check_of(place: &str) -> u32 {
    place.bytes().fold(place.len() as u64, |sum, byte| mix(sum ^ u64::from(byte))) as u32
}

/// A place of a journal as a cursor.
pub fn journal_cursor(at: &Place) -> String {
    cursor(&format!("{}|{}|{}", at.at.0, at.id, at.scope))
}

/// The place of a journal behind a cursor.
///
/// # Errors
/// As for [`place`].
pub fn journal_place(text: &str) -> Result<Place, Fault> {
    let place = place(text)?;
    let mut fields = place.splitn(3, '|');
    let read = (|| {
        let at = Timestamp(fields.next()?.parse().ok()?);
        Some(Place { at, id: fields.next()?.parse().ok()?, scope: fields.next()?.to_owned() })
    })();
    read.ok_or_else(|| Fault::new(Code::InputInvalid, "cursor is not one that a list gave"))
}

/// Entries on one page of a list at most.
pub const PAGE_MAX: usize = 500;

/// How many entries a page has.
///
/// # Errors
/// [`Code::InputInvalid`] when it is none, or more than [`PAGE_MAX`].
pub fn page_size(asked: Option<usize>, default: usize) -> Result<usize, Fault> {
    let size = asked.unwrap_or(default);
    if !(1..=PAGE_MAX).contains(&size) {
        return Err(Fault::new(Code::InputInvalid, format!("limit is 1 to {PAGE_MAX}")));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_a_damaged_one_does_not() {
        for text in ["", "80000123abc", "b/\u{e9}"] {
            let shown = cursor(text);
            assert_eq!(place(&shown).as_deref(), Ok(text));
            assert!(place(&format!("{shown}0")).is_err());
            assert!(place(&shown[1..]).is_err());
        }
        for wrong in ["", "0", "zzzzzzzz", "0000000\u{e9}", "00000000abc"] {
            assert!(place(wrong).is_err(), "{wrong:?}");
        }
        let zero = (0..).map(|n| cursor(&format!("{n}"))).find(|shown| shown.starts_with('0')).expect("one in sixteen");
        assert!(place(&zero).is_ok() && place(&zero.replacen('0', "+", 1)).is_err(), "a cursor is written in one way");
    }
}
