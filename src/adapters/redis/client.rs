//! The connection to Redis: one kind for a server, Sentinels and a Cluster, made again when it breaks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use deadpool_redis::redis::cluster::{ClusterClient, ClusterClientBuilder};
use deadpool_redis::redis::cluster_async::ClusterConnection;
use deadpool_redis::redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, Script, TlsCertificates, TlsMode,
    Value,
};
use tokio::time::Instant;

use super::config::{RedisConfig, RedisMode, RedisTls, host_and_port};
use super::trouble::{Door, breaks, fault, store_error};
use crate::adapters::secure;
use crate::model::code::{Code, Fault};
use crate::ports::StoreError;
use crate::runtime::retry::Schedule;

/// Waits between attempts to connect again: the first and the longest.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Redis, for as long as the process runs. Clones share one connection.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    config: RedisConfig,
    connector: Connector,
    /// Held while a connection is made, so that one is made for all who wait.
    held: tokio::sync::Mutex<Held>,
    trouble: Mutex<Option<Fault>>,
}

struct Held {
    connection: Option<Connection>,
    /// Grows with each connection, so that an error of an old one does not end a new one.
    generation: u64,
    /// Waits between attempts that fail, and when the next may begin.
    waits: Schedule,
    next_attempt: Instant,
}

/// What makes connections.
enum Connector {
    Single(Box<Client>),
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Connection::One(connection) => connection.req_packed_command(cmd),
            Connection::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(&'a mut self, cmd: &'a Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Connection::One(connection) => connection.req_packed_commands(cmd, offset, count),
            Connection::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Connection::One(connection) => connection.get_db(),
            Connection::Cluster(connection) => connection.get_db(),
        }
    }
}

impl Redis {
    /// Connects, once: whoever waits for a server that is away calls again. `seed` is of this process's chance: processes that
    /// lose Redis together do not come back together.
    ///
    /// # Errors
    /// What is wrong, with the address and the setting: [`Code::ServerUnavailable`], [`Code::ServerLogin`] or
    /// [`Code::ServerTls`].
    pub async fn connect(config: &RedisConfig, seed: u64) -> Result<Redis, Fault> {
        let certificates = certificates(&config.tls)?;
        knock(config, certificates.as_ref()).await?;
        let all = config.nodes.join(", ");
        let explain = |error: RedisError| fault(&error, &all, Door::Server);
        let connector = connector(config, certificates).map_err(explain)?;
        let mut connection = open(config, &connector).await.map_err(explain)?;
        // A write shows what a PING does not: a replica, a node of a Cluster, a user without rights.
        let probe: RedisResult<()> = async {
            let _: Value = redis::cmd("PING").query_async(&mut connection).await?;
            let key = format!("{}:probe", config.prefix);
            redis::cmd("SET").arg(key).arg(1).arg("PX").arg(1_000).query_async(&mut connection).await
        }
        .await;
        probe.map_err(explain)?;
        let waits = Schedule::new(RECONNECT.0, RECONNECT.1, seed);
        let held = Held { connection: Some(connection), generation: 1, waits, next_attempt: Instant::now() };
        let (held, trouble) = (tokio::sync::Mutex::new(held), Mutex::new(None));
        Ok(Redis(Arc::new(Inner { config: config.clone(), connector, held, trouble })))
    }

    /// A key of this fleet.
    pub fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.0.config.prefix)
    }

    /// What is wrong with Redis since the last command that worked; `None` while all is well.
    pub fn trouble(&self) -> Option<Fault> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a script. All its keys must carry the same hash tag.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it did not happen. [`StoreError::Unknown`]: it may have happened, or may yet.
    pub async fn run<T: FromRedisValue>(&self, script: &Script, keys: &[String], args: &[String]) -> Result<T, StoreError> {
        let (mut connection, generation) = match self.connection().await {
            Ok(held) => held,
            Err(fault) => return Err(StoreError::Unavailable(fault.context)),
        };
        let mut call = script.prepare_invoke();
        call.key(keys).arg(args);
        match call.invoke_async(&mut connection).await {
            Ok(value) => {
                self.note(None);
                Ok(value)
            }
            Err(error) => {
                if breaks(&error) {
                    self.part_with(generation).await;
                }
                self.note(Some(fault(&error, &self.0.config.nodes.join(", "), Door::Server)));
                Err(store_error(&error))
            }
        }
    }

    /// The connection, made again if there is none. Attempts follow each other with growing waits; who comes in between is
    /// told at once what the last one met.
    async fn connection(&self) -> Result<(Connection, u64), Fault> {
        let mut held = self.0.held.lock().await;
        if let Some(connection) = &held.connection {
            return Ok((connection.clone(), held.generation));
        }
        let away = || Fault::new(Code::ServerUnavailable, "Redis is away");
        if Instant::now() < held.next_attempt {
            return Err(self.trouble().unwrap_or_else(away));
        }
        match open(&self.0.config, &self.0.connector).await {
            Ok(connection) => {
                held.generation += 1;
                held.waits.begin_again();
                held.connection = Some(connection.clone());
                Ok((connection, held.generation))
            }
            Err(error) => {
                held.next_attempt = Instant::now() + held.waits.delay_for_ever();
                let fault = fault(&error, &self.0.config.nodes.join(", "), Door::Server);
                self.note(Some(fault.clone()));
                Err(fault)
            }
        }
    }

    async fn part_with(&self, generation: u64) {
        let mut held = self.0.held.lock().await;
        if held.generation == generation {
            held.connection = None;
        }
    }

    /// Remembers whether the last command worked; says it once when that changes.
    fn note(&self, now: Option<Fault>) {
        let mut trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (trouble.is_some(), &now) {
            (false, Some(fault)) => tracing::warn!(code = %fault.code, "{}", fault.context),
            (true, None) => tracing::info!("Redis is back"),
            _ => {}
        }
        *trouble = now;
    }
}

/// Knocks at the configured addresses one by one until one opens: Sentinels and a Cluster tell less exactly what is wrong.
async fn knock(config: &RedisConfig, certificates: Option<&TlsCertificates>) -> Result<(), Fault> {
    let door = if config.mode == RedisMode::Sentinel { Door::Sentinel } else { Door::Server };
    let mut refused = Fault::new(Code::ConfigInvalid, "redis.nodes names no address");
    for node in &config.nodes {
        let login = match door {
            Door::Server => login(&config.username, config.password.expose()),
            Door::Sentinel => login(&config.sentinel_username, config.sentinel_password.expose()),
        };
        let attempt: RedisResult<()> = async {
            let client = client(node, login, certificates)?;
            let mut connection = client.get_multiplexed_async_connection_with_config(&timeouts(config)).await?;
            let _: Value = redis::cmd("PING").query_async(&mut connection).await?;
            Ok(())
        }
        .await;
        match attempt {
            Ok(()) => return Ok(()),
            Err(error) => refused = fault(&error, node, door),
        }
    }
    Err(refused)
}

fn connector(config: &RedisConfig, certificates: Option<TlsCertificates>) -> RedisResult<Connector> {
    let (username, password) = (config.username.as_str(), config.password.expose());
    match config.mode {
        RedisMode::Single => {
            let node = config.nodes.first().map_or("", String::as_str);
            let login = login(username, password).set_db(i64::from(config.database));
            Ok(Connector::Single(Box::new(client(node, login, certificates.as_ref())?)))
        }
        RedisMode::Sentinel => {
            let nodes: Vec<ConnectionAddr> =
                config.nodes.iter().map(|node| address(node, certificates.is_some())).collect::<RedisResult<_>>()?;
            let mut builder = SentinelClientBuilder::new(nodes, &config.master_name, SentinelServerType::Master)?
                .set_client_to_redis_db(i64::from(config.database));
            if !password.is_empty() {
                builder = builder.set_client_to_redis_password(password);
            }
            if !username.is_empty() {
                builder = builder.set_client_to_redis_username(username);
            }
            if !config.sentinel_password.is_empty() {
                builder = builder.set_client_to_sentinel_password(config.sentinel_password.expose());
            }
            if !config.sentinel_username.is_empty() {
                builder = builder.set_client_to_sentinel_username(&config.sentinel_username);
            }
            if let Some(certificates) = certificates {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
            Ok(Connector::Sentinel(Box::new(tokio::sync::Mutex::new(builder.build()?))))
        }
        RedisMode::Cluster => {
            let nodes: Vec<ConnectionInfo> = config
                .nodes
                .iter()
                .map(|node| info(node, login(username, password), certificates.is_some()))
                .collect::<RedisResult<_>>()?;
            let mut builder = ClusterClientBuilder::new(nodes)
                .connection_timeout(config.connect_timeout)
                .response_timeout(config.response_timeout)
                .overall_response_timeout(Some(config.response_timeout * 2))
                .retries(3);
            if let Some(certificates) = certificates {
                builder = builder.tls(TlsMode::Secure).certs(certificates);
            }
            Ok(Connector::Cluster(Box::new(builder.build()?)))
        }
    }
}

/// Makes a connection. The time limit holds for all of it: name, TLS, login, and finding the primary or the nodes.
async fn open(config: &RedisConfig, connector: &Connector) -> RedisResult<Connection> {
    let opening = async {
        Ok(match connector {
            Connector::Single(client) => {
                Connection::One(client.get_multiplexed_async_connection_with_config(&timeouts(config)).await?)
            }
            Connector::Sentinel(client) => {
                let mut client = client.lock().await;
                Connection::One(client.get_async_connection_with_config(&timeouts(config)).await?)
            }
            Connector::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    };
    let timed_out = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    tokio::time::timeout(config.connect_timeout * 2, opening).await.map_err(timed_out)?
}

/// The library's own limit of 500 ms for an answer is too short: on a busy machine a script may be carried out and its answer
/// come later.
fn timeouts(config: &RedisConfig) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(config.response_timeout))
}

fn login(username: &str, password: &str) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default();
    if !username.is_empty() {
        login = login.set_username(username);
    }
    if !password.is_empty() {
        login = login.set_password(password);
    }
    login
}

fn address(node: &str, tls: bool) -> RedisResult<ConnectionAddr> {
    let bad = || RedisError::from((redis::ErrorKind::InvalidClientConfig, "redis.nodes has no address such as host:6379"));
    let (host, port) = host_and_port(node).ok_or_else(bad)?;
    let host = host.to_owned();
    Ok(if tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    })
}

fn info(node: &str, login: RedisConnectionInfo, tls: bool) -> RedisResult<ConnectionInfo> {
    Ok(address(node, tls)?.into_connection_info()?.set_redis_settings(login))
}

fn client(node: &str, login: RedisConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<Client> {
    let info = info(node, login, certificates.is_some())?;
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        None => Client::open(info),
    }
}

/// The files of TLS, read once; `None` without TLS.
fn certificates(tls: &RedisTls) -> Result<Option<TlsCertificates>, Fault> {
    if !tls.enabled {
        return Ok(None);
    }
    // The library makes its own TLS with whatever cryptography the process has named.
    secure::install();
    let read = |key: &str, path: &std::path::Path| {
        std::fs::read(path)
            .map_err(|error| Fault::new(Code::ServerTls, format!("redis.tls.{key} {} cannot be read: {error}", path.display())))
    };
    let root_cert = match &tls.ca_file {
        Some(path) => {
            let unusable = |fault: Fault| Fault::new(Code::ServerTls, format!("redis.tls.ca_file: {}", fault.context));
            secure::client_config(Some(path)).map_err(unusable)?;
            Some(read("ca_file", path)?)
        }
        None => None,
    };
    let client_tls = match (&tls.certificate, &tls.key) {
        (Some(cert), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read("certificate", cert)?, client_key: read("key", key)? })
        }
        _ => None,
    };
    Ok(Some(TlsCertificates { client_tls, root_cert }))
}
