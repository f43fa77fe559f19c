//! Bodies, queries, names in a path and places in a list, as requests carry them; what cannot be read is a problem with its place.

use std::marker::PhantomData;

use axum::RequestExt;
use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use futures::StreamExt;
use http_body_util::LengthLimitError;
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::flight::Held;
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

    async fn from_request(request: Request, _: &S) -> Result<Body<T>, Problem> {
        let bytes = whole(request).await?;
        let text = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        serde_json::from_slice(text).map(Body).map_err(|error| {
            // The parser's text names fields and places; of the values it quotes at most a short one that was typed wrongly.
            Fault::new(Code::InputInvalid, format!("the body is not what is asked for: {error}")).into()
        })
    }
}

/// Bytes that a body is given room for before any of it came.
const ROOM_MAX: usize = 4 << 20;

/// The bytes of a body, within the limit that its route has, and as long as all bodies together have room.
pub async fn whole(request: Request) -> Result<Bytes, Problem> {
    let held = request.extensions().get::<Held>().cloned();
    let body = request.with_limited_body().into_body();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(announced.min(ROOM_MAX));
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let code = if is_too_long(&error) { Code::BodyTooLarge } else { Code::InputInvalid };
            Fault::new(code, "the body is larger than is taken, or broke off")
        })?;
        if held.as_ref().is_some_and(|held| !held.more(piece.len())) {
            return Err(Fault::new(Code::TooManyRequests, "others hand in as much as is taken at once").into());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

/// Whether a body went beyond its limit: said by the innermost of several errors.
fn is_too_long(error: &axum::Error) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}

/// The place in a route's path: the id of a batch, the name of an account.
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Named(text)),
            Err(refused) => Err(Fault::new(Code::InputInvalid, refused.body_text()).into()),
        }
    }
}

/// A list of at most so many: one that goes on is refused before all of it stands in memory, many times as large as it came.
pub struct Few<T, const MOST: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Few<T, MOST>, D::Error> {
        struct Reading<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Reading<T, MOST> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {MOST}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut few = vec![];
                while let Some(one) = list.next_element()? {
                    if few.len() == MOST {
                        return Err(A::Error::invalid_length(MOST + 1, &self));
                    }
                    few.push(one);
                }
                Ok(few)
            }
        }

        reader.deserialize_seq(Reading::<T, MOST>(PhantomData)).map(Few)
    }
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
