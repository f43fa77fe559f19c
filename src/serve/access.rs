//! Who asks, on every route: the local socket's owner, or the holder of an API key.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::fleet::Surface;
use super::problem::Problem;
use super::revoked::until_revoked;
use crate::model::access::{Caller, Role};
use crate::model::code::{Code, Fault};

/// Keys whose pace is remembered.
const PACED_MAX: usize = 10_000;

/// Lets everybody in as the owner of the data folder: the socket's file has its own permissions.
pub async fn as_owner(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Caller::local());
    next.run(request).await
}

/// Lets in who has a key, at the pace that is allowed.
pub async fn with_key(State((surface, pace)): State<(Arc<Surface>, Arc<Pace>)>, mut request: Request, next: Next) -> Response {
    let key = key_of(&request).map(str::to_owned);
    match recognise(&surface, &pace, key.as_deref()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller.clone());
            until_revoked(next.run(request).await, surface.keys.clone(), &caller)
        }
        Err(fault) => refused(fault),
    }
}

/// What stands behind `Bearer`.
fn key_of(request: &Request) -> Option<&str> {
    let given = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

async fn recognise(surface: &Surface, pace: &Pace, key: Option<&str>) -> Result<Caller, Fault> {
    let key = key.ok_or_else(|| Fault::new(Code::KeyMissing, "there is no `Authorization: Bearer …`"))?;
    let caller = surface.keys.recognise(key).await?;
    if !pace.allows(&caller.key, surface.world.clock.boot()) {
        return Err(Fault::new(Code::TooManyRequests, format!("key {} asks more than {} times a second", caller.key, pace.rate)));
    }
    Ok(caller)
}

/// The answer to somebody who is not let in.
fn refused(fault: Fault) -> Response {
    let code = fault.code;
    let mut response = Problem::from(fault).into_response();
    if code.http_status() == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

/// Requests a second of each key, with a second's worth at once.
pub struct Pace {
    rate: u32,
    left: Mutex<BTreeMap<String, (f64, Duration)>>,
}

impl Pace {
    /// So many requests a second of each key.
    pub fn new(rate: u32) -> Pace {
        Pace { rate: rate.max(1), left: Mutex::default() }
    }

    /// Takes one request of a key, if it has one left.
    fn allows(&self, key: &str, now: Duration) -> bool {
        let whole = f64::from(self.rate);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() >= PACED_MAX && !left.contains_key(key) {
            // Who has not asked for a second has all of its requests back: nothing is lost with it.
            left.retain(|_, (_, at)| now.saturating_sub(*at) < Duration::from_secs(1));
        }
        let (tokens, at) = left.entry(key.to_owned()).or_insert((whole, now));
        *tokens = (*tokens + now.saturating_sub(*at).as_secs_f64() * whole).min(whole);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}

/// A caller who may see.
pub struct Viewer(pub Caller);
/// A caller who may command.
pub struct Operator(pub Caller);
/// A caller who may do everything.
pub struct Admin(pub Caller);

fn caller(parts: &Parts, needed: Role) -> Result<Caller, Problem> {
    // A route that nobody let the caller into is a bug; it is shut.
    let caller = parts.extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| Fault::new(Code::KeyMissing, "nobody said who asks"))?;
    if caller.role < needed {
        let context = format!("this needs the role {}; key {} is a {}", needed.name(), caller.key, caller.role.name());
        return Err(Fault::new(Code::RoleForbidden, context).into());
    }
    Ok(caller)
}

macro_rules! roles {
    ($($name:ident),*) => {$(
        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<$name, Problem> {
                caller(parts, Role::$name).map($name)
            }
        }
    )*};
}

roles!(Viewer, Operator, Admin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_seconds_worth_at_once_and_then_its_pace() {
        let pace = Pace::new(10);
        let at = Duration::from_millis;
        let taken = |key: &str, now| (0..100).filter(|_| pace.allows(key, now)).count();
        assert_eq!(taken("a", at(0)), 10);
        assert_eq!(taken("a", at(0)), 0);
        assert_eq!(taken("b", at(0)), 10, "another key is another pace");
        assert_eq!(taken("a", at(500)), 5);
        assert_eq!(taken("a", at(10_000)), 10, "no more than a second's worth is saved");
    }
}
