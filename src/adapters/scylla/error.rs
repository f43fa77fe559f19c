//! What the driver's errors mean: for a request, whether it may have happened; for a connection, what to correct.

use std::time::Duration;

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError, MetadataError,
    NewSessionError, PrepareError, RequestAttemptError, UseKeyspaceError,
};

use super::config::ScyllaConfig;
use crate::model::code::{Code, Fault};
use crate::ports::StoreError;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A read changes nothing, so it never "may have happened".
    Read,
    /// A write without a condition.
    Write,
    /// A conditional write. Its commit comes after it was decided, and the servers report a commit that did not reach enough
    /// nodes by the same errors as a write that never began: whatever a node that took it in says, it may have happened.
    Condition,
}

/// A failed request as the ports say it.
pub(super) fn request(asked: Asked, error: &ExecutionError) -> StoreError {
    let text = error.to_string();
    if asked == Asked::Read || never_began(asked, error) { StoreError::Unavailable(text) } else { StoreError::Unknown(text) }
}

/// Whether the request certainly changed nothing and never will.
fn never_began(asked: Asked, error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_)
        | ExecutionError::EmptyPlan
        | ExecutionError::PrepareError(_)
        | ExecutionError::ConnectionPoolError(_)
        | ExecutionError::UseKeyspaceError(_) => true,
        ExecutionError::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::SerializationError(_)
            | RequestAttemptError::CqlRequestSerialization(_)
            | RequestAttemptError::UnableToAllocStreamId
            | RequestAttemptError::RepreparedIdChanged { .. }
            | RequestAttemptError::RepreparedIdMissingInBatch => true,
            RequestAttemptError::DbError(answer, _) => refused(asked, answer),
            _ => false,
        },
        _ => false,
    }
}

fn refused(asked: Asked, answer: &DbError) -> bool {
    match answer {
        DbError::SyntaxError
        | DbError::Invalid
        | DbError::Unauthorized
        | DbError::AuthenticationError
        | DbError::ConfigError
        | DbError::IsBootstrapping
        | DbError::Unprepared { .. }
        | DbError::ProtocolError => true,
        DbError::Unavailable { .. } => asked == Asked::Write,
        _ => false,
    }
}

/// Whether another node may do at once what this one did not. A node that is overloaded says so for all that is sent: its caller
/// hears of it and waits, and so does whoever steers the write budget.
pub(super) fn is_worth_another_try(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::LastAttemptError(attempt) => matches!(
            attempt,
            RequestAttemptError::BrokenConnectionError(_)
                | RequestAttemptError::UnableToAllocStreamId
                | RequestAttemptError::DbError(DbError::IsBootstrapping | DbError::ServerError, _)
        ),
        _ => false,
    }
}

/// Why no session came about.
pub(super) fn connect(config: &ScyllaConfig, error: &NewSessionError) -> Fault {
    let nodes = config.addresses();
    match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
            last_connection_error,
            ..
        })) => connection(config, last_connection_error),
        NewSessionError::UseKeyspaceError(error) => use_keyspace(config, error),
        error => Fault::new(Code::ServerUnavailable, format!("no node of the store answers at {nodes} (scylla.nodes): {error}")),
    }
}

/// Nodes that take connections and never say anything.
pub(super) fn silent(config: &ScyllaConfig, limit: Duration) -> Fault {
    let hint = if config.tls.enabled { "" } else { "; if the port speaks TLS, set scylla.tls.enabled" };
    let (nodes, seconds) = (config.addresses(), limit.as_secs_f64());
    Fault::new(
        Code::ServerUnavailable,
        format!("no node of the store at {nodes} (scylla.nodes) said anything for {seconds} s{hint}"),
    )
}

/// Why a connection to a node did not come about.
fn connection(config: &ScyllaConfig, error: &ConnectionError) -> Fault {
    let nodes = config.addresses();
    let unreachable = |hint: &str| {
        Fault::new(Code::ServerUnavailable, format!("no node of the store answers at {nodes} (scylla.nodes): {error}{hint}"))
    };
    match error {
        ConnectionError::IoError(io) if is_tls(io) => Fault::new(
            Code::ServerTls,
            format!(
                "no TLS connection to the store at {nodes}: {error}; check scylla.tls.ca_file and whether the port speaks TLS"
            ),
        ),
        ConnectionError::ConnectionSetupRequestError(setup) => match &setup.error {
            ConnectionSetupRequestErrorKind::MissingAuthentication => {
                Fault::new(Code::ServerLogin, format!("the store at {nodes} asks for a user: scylla.username is empty"))
            }
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError | DbError::Unauthorized, why) => Fault::new(
                Code::ServerLogin,
                format!("the store at {nodes} refuses the user {:?} (scylla.username, scylla.password): {why}", config.username),
            ),
            _ if config.tls.enabled => unreachable(""),
            _ => unreachable("; if the port speaks TLS, set scylla.tls.enabled"),
        },
        ConnectionError::UseKeyspaceError(error) => use_keyspace(config, error),
        ConnectionError::BrokenConnection(_) if !config.tls.enabled => {
            unreachable("; if the port speaks TLS, set scylla.tls.enabled")
        }
        _ => unreachable(""),
    }
}

fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<openssl::ssl::Error>() || inner.is::<openssl::error::ErrorStack>())
}

fn use_keyspace(config: &ScyllaConfig, error: &UseKeyspaceError) -> Fault {
    let keyspace = &config.keyspace;
    match error {
        UseKeyspaceError::RequestError(RequestAttemptError::DbError(DbError::Invalid, _)) => Fault::new(
            Code::ServerSchema,
            format!("the store at {} has no keyspace {keyspace} (scylla.keyspace): run `smsfleet migrate`", config.addresses()),
        ),
        UseKeyspaceError::RequestError(RequestAttemptError::DbError(DbError::Unauthorized, why)) => Fault::new(
            Code::ServerLogin,
            format!("the user {:?} (scylla.username) may not use the keyspace {keyspace}: {why}", config.username),
        ),
        error => Fault::new(Code::ServerUnavailable, format!("the keyspace {keyspace} cannot be used now: {error}")),
    }
}

/// A request of a start or of `smsfleet migrate` that failed.
pub(super) fn setup(config: &ScyllaConfig, what: &str, error: &ExecutionError) -> Fault {
    let (code, hint) = match db_error(error) {
        Some(DbError::Unauthorized) => (Code::ServerLogin, " (scylla.username)"),
        Some(DbError::SyntaxError | DbError::Invalid | DbError::ConfigError | DbError::AlreadyExists { .. }) => {
            (Code::ServerSchema, " (scylla.flavour, scylla.replication)")
        }
        _ => (Code::ServerUnavailable, ""),
    };
    Fault::new(code, format!("{what} at {}{hint}: {error}", config.addresses()))
}

fn db_error(error: &ExecutionError) -> Option<&DbError> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => Some(error),
        ExecutionError::PrepareError(PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(error, _),
            ..
        }) => Some(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use scylla::errors::WriteType;
    use scylla::statement::Consistency;

    use super::*;

    fn answered(error: DbError) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()))
    }

    #[test]
    fn a_change_that_may_have_happened_is_never_said_not_to_have() {
        let timeout = || {
            answered(DbError::WriteTimeout {
                consistency: Consistency::Quorum,
                received: 1,
                required: 2,
                write_type: WriteType::Cas,
            })
        };
        let unavailable = || answered(DbError::Unavailable { consistency: Consistency::Quorum, required: 2, alive: 1 });
        let client = || ExecutionError::RequestTimeout(std::time::Duration::from_secs(1));
        // Cassandra's CAS_WRITE_UNKNOWN has no name in the driver.
        let unknown = || answered(DbError::Other(0x1700));
        for asked in [Asked::Write, Asked::Condition] {
            for error in [timeout(), client(), unknown(), answered(DbError::Overloaded), answered(DbError::ServerError)] {
                assert!(matches!(request(asked, &error), StoreError::Unknown(_)), "{asked:?}: {error}");
            }
            for error in [ExecutionError::EmptyPlan, answered(DbError::Invalid), answered(DbError::IsBootstrapping)] {
                assert!(matches!(request(asked, &error), StoreError::Unavailable(_)), "{asked:?}: {error}");
            }
        }
        assert!(matches!(request(Asked::Write, &unavailable()), StoreError::Unavailable(_)));
        assert!(matches!(request(Asked::Condition, &unavailable()), StoreError::Unknown(_)), "its commit may have failed so");
        assert!(matches!(request(Asked::Read, &timeout()), StoreError::Unavailable(_)));
    }
}
