//! What an error of Redis means: for a caller of the store, for the connection it came over, and for a person.

use std::error::Error;
use std::io;
use std::sync::Arc;

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio_rustls::rustls;

use crate::model::code::{Code, Fault};
use crate::ports::StoreError;

/// What a caller can do about a failed command. Where it is not certain that nothing happened, the answer is unknown.
pub(super) fn store_error(error: &RedisError) -> StoreError {
    let text = format!("Redis: {error}");
    match error.kind() {
        ErrorKind::Io if error.is_connection_refusal() => StoreError::Unavailable(text),
        ErrorKind::Io | ErrorKind::Parse => StoreError::Unknown(text),
        ErrorKind::UnexpectedReturnType | ErrorKind::Server(ServerErrorKind::ResponseError) => StoreError::Corrupt(text),
        ErrorKind::Extension => match error.code() {
            Some("OOM") => StoreError::Full(text),
            Some("WRONGTYPE") => StoreError::Corrupt(text),
            _ => StoreError::Unavailable(text),
        },
        // Everything else was refused by the server as a whole, or never reached one.
        _ => StoreError::Unavailable(text),
    }
}

/// Whether the connection is of no use any more. A time-out counts: what stands behind it may be a machine that is gone, and
/// a new connection is cheap.
pub(super) fn breaks(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed | ErrorKind::ClusterConnectionNotFound => true,
        // Behind Sentinel the primary became a replica: the next connection finds the new one.
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => true,
        ErrorKind::Extension => error.code() == Some("NOAUTH"),
        _ => false,
    }
}

/// Whose door was knocked at: it decides which settings are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// A server that holds data.
    Server,
    /// A Sentinel.
    Sentinel,
}

impl Door {
    fn login(self) -> &'static str {
        match self {
            Door::Server => "redis.username and redis.password",
            Door::Sentinel => "redis.sentinel_username and redis.sentinel_password",
        }
    }
}

/// The error as people see it when a connection is made: the address, the setting, and the likely cause.
pub(super) fn fault(error: &RedisError, at: &str, door: Door) -> Fault {
    if let Some(text) = tls_error(error) {
        let cause = if text.contains("InvalidContentType") || text.contains("corrupt message") {
            "it does not speak TLS (redis.tls.enabled)"
        } else {
            "its certificate is not trusted or not its own (redis.tls.ca_file), or it wants ours (redis.tls.certificate)"
        };
        return Fault::new(Code::ServerTls, format!("Redis at {at}: {text}; {cause}"));
    }
    let (code, cause) = match error.kind() {
        ErrorKind::AuthenticationFailed => (Code::ServerLogin, format!("wrong {}", door.login())),
        ErrorKind::Extension if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => {
            (Code::ServerLogin, format!("it wants {}", door.login()))
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            (Code::ServerLogin, "redis.username may not run scripts, or not on keys that begin with redis.prefix".into())
        }
        ErrorKind::MasterNameNotFoundBySentinel => {
            (Code::ServerUnavailable, "the Sentinels name no primary that is up by redis.master_name".into())
        }
        ErrorKind::InvalidClientConfig if error.to_string().contains("sentinel") => {
            (Code::ServerUnavailable, "it is no Sentinel: see redis.mode and the ports in redis.nodes".into())
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::ClusterDown) => {
            (Code::ServerUnavailable, "it is part of a Cluster (redis.mode), or its Cluster is down".into())
        }
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            (Code::ServerUnavailable, "it is a replica: name the primary in redis.nodes, or use Sentinels (redis.mode)".into())
        }
        ErrorKind::Server(ServerErrorKind::ResponseError) if error.to_string().contains("cluster support disabled") => {
            (Code::ServerUnavailable, "it is no Cluster: see redis.mode".into())
        }
        ErrorKind::Server(ServerErrorKind::ResponseError) if error.to_string().contains("switch database") => {
            (Code::ServerUnavailable, "it has no such database: see redis.database".into())
        }
        ErrorKind::Io if error.is_connection_refusal() => {
            (Code::ServerUnavailable, "nothing listens there: see redis.nodes, and whether it runs".into())
        }
        ErrorKind::Io if error.is_timeout() => (
            Code::ServerUnavailable,
            "no answer: see redis.nodes, the network, redis.connect_timeout, and whether redis.tls.enabled is right".into(),
        ),
        ErrorKind::Io if error.is_connection_dropped() => {
            (Code::ServerUnavailable, "it hung up: it may want TLS (redis.tls.enabled), or is not Redis (redis.nodes)".into())
        }
        _ => (Code::ServerUnavailable, "see redis.nodes".into()),
    };
    Fault::new(code, format!("Redis at {at}: {error}; {cause}"))
}

/// What rustls said, when the error is one of TLS: it lies within a shared pointer and an input-output error, and both hide
/// it from `source`.
fn tls_error(error: &RedisError) -> Option<String> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(mut found) = cause {
        if let Some(shared) = found.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            found = &**shared;
        }
        if found.is::<rustls::Error>() {
            return Some(found.to_string());
        }
        let inner = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(inner) = inner.filter(|inner| inner.is::<rustls::Error>()) {
            return Some(inner.to_string());
        }
        cause = found.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_unknown_and_what_was_refused_is_not() {
        let io = |kind: io::ErrorKind| RedisError::from(io::Error::from(kind));
        assert!(matches!(store_error(&io(io::ErrorKind::TimedOut)), StoreError::Unknown(_)));
        assert!(matches!(store_error(&io(io::ErrorKind::BrokenPipe)), StoreError::Unknown(_)));
        assert!(matches!(store_error(&io(io::ErrorKind::ConnectionRefused)), StoreError::Unavailable(_)));
        let server = |kind: ServerErrorKind| RedisError::from((ErrorKind::Server(kind), "refused"));
        assert!(matches!(store_error(&server(ServerErrorKind::BusyLoading)), StoreError::Unavailable(_)));
        assert!(breaks(&io(io::ErrorKind::TimedOut)) && breaks(&server(ServerErrorKind::ReadOnly)));
        assert!(!breaks(&server(ServerErrorKind::ResponseError)), "a script that fails says nothing about its connection");
    }

    #[test]
    fn a_fault_names_the_address_and_the_setting() {
        let refused = RedisError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        let told = fault(&refused, "redis.example:6379", Door::Server);
        assert!(told.code == Code::ServerUnavailable && told.context.contains("redis.example:6379"), "{told}");
        let wrong = RedisError::from((ErrorKind::AuthenticationFailed, "Password authentication failed"));
        for (door, setting) in [(Door::Server, "redis.password"), (Door::Sentinel, "redis.sentinel_password")] {
            let told = fault(&wrong, "x:1", door);
            assert!(told.code == Code::ServerLogin && told.context.contains(setting), "{told}");
        }
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let tls = RedisError::from(io::Error::new(io::ErrorKind::InvalidData, certificate));
        let told = fault(&tls, "x:1", Door::Server);
        assert!(told.code == Code::ServerTls && told.context.contains("redis.tls.ca_file"), "{told}");
    }
}
