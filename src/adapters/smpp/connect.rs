//! Keeping one session alive: connect, bind, run, and again after a growing delay.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::pki_types::ServerName;

use super::config::Role;
use super::core::{Core, Counters};
use super::lenient::next_frame;
use super::pdu::{self, ANSWER, GENERIC_NACK};
use super::session::{self, End};
use crate::model::code::{Code, Fault};
use crate::runtime::pulse::{self, Turns};
use crate::runtime::retry::Schedule;

/// A connection, plain or encrypted.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A bound connection, and what was read behind the answer to the bind.
pub struct Link {
    pub io: Box<dyn Io>,
    pub input: BytesMut,
}

/// Octets that there is room for before each reading, at least.
pub const READ: usize = 16 * 1024;
/// A session that lived so long starts the delays over.
const STEADY: Duration = Duration::from_secs(5);

/// Keeps session `index` alive until the account closes.
pub async fn keep(core: Arc<Core>, index: usize, role: Role) {
    let mut closing = core.closing.subscribe();
    let mut waits = Schedule::new(core.config.reconnect_min, core.config.reconnect_max, core.chance.next());
    loop {
        let connected = tokio::select! {
            biased;
            _ = closing.wait_for(Option::is_some) => return,
            connected = connect(&core, role) => connected,
        };
        let fault = match connected {
            Ok(link) => {
                let since = Instant::now();
                let bound = Bound::new(&core, role);
                let end = pulse::watch("smpp session", Turns::Always, session::run(&core, index, role, link)).await;
                drop(bound);
                core.outstanding[index].store(0, Ordering::Relaxed);
                if since.elapsed() >= STEADY {
                    waits.begin_again();
                }
                match end {
                    End::Closed => return,
                    End::Lost(fault) => {
                        Counters::count(&core.counters.sessions_lost);
                        fault
                    }
                }
            }
            Err(fault) => fault,
        };
        core.failed(&fault);
        let delay = waits.delay_for_ever();
        tokio::select! {
            biased;
            _ = closing.wait_for(Option::is_some) => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Counts a bound session while it lives, also when its task is aborted.
struct Bound<'a>(&'a Core, Role);

impl<'a> Bound<'a> {
    fn new(core: &'a Core, role: Role) -> Bound<'a> {
        core.bound.fetch_add(1, Ordering::Relaxed);
        core.bound_to_send.fetch_add(u64::from(role.sends()), Ordering::Relaxed);
        tracing::info!(account = %core.account.name, "a session is bound");
        Bound(core, role)
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        self.0.bound.fetch_sub(1, Ordering::Relaxed);
        self.0.bound_to_send.fetch_sub(u64::from(self.1.sends()), Ordering::Relaxed);
    }
}

async fn connect(core: &Core, role: Role) -> Result<Link, Fault> {
    let config = &core.config;
    let down = |what: &str| Fault::new(Code::ProviderDown, format!("{}:{}: {what}", config.host, config.port));
    let stream = timeout(config.connect_timeout, TcpStream::connect((config.host.as_str(), config.port)))
        .await
        .map_err(|_| down("no connection in time"))?
        .map_err(|error| down(&error.to_string()))?;
    // Small PDUs must not wait for each other: with Nagle's algorithm a window of 10 runs at half speed.
    stream.set_nodelay(true).map_err(|error| down(&error.to_string()))?;
    let mut io: Box<dyn Io> = match &core.tls {
        None => Box::new(stream),
        Some(connector) => {
            let name = config.tls.server_name.as_ref().unwrap_or(&config.host).clone();
            let tls = |what: &str| Fault::new(Code::ProviderTls, format!("{}:{}: {what}", config.host, config.port));
            let server = ServerName::try_from(name).map_err(|error| tls(&error.to_string()))?;
            let encrypted = timeout(config.connect_timeout, connector.connect(server, stream))
                .await
                .map_err(|_| tls("no TLS handshake in time"))?
                .map_err(|error| tls(&error.to_string()))?;
            Box::new(encrypted)
        }
    };
    let input = timeout(config.connect_timeout, bind(core, role, &mut *io))
        .await
        .map_err(|_| down("the bind was not answered in time"))??;
    Ok(Link { io, input })
}

/// Binds, and gives back what was read beyond the answer.
async fn bind(core: &Core, role: Role, io: &mut dyn Io) -> Result<BytesMut, Fault> {
    let down = |what: String| Fault::new(Code::ProviderDown, what);
    let mut out = BytesMut::new();
    pdu::put_bind(&mut out, &core.config, role, 1);
    let wanted = u32::from_be_bytes([out[4], out[5], out[6], out[7]]) | ANSWER;
    io.write_all(&out).await.map_err(|error| down(error.to_string()))?;
    io.flush().await.map_err(|error| down(error.to_string()))?;
    let mut input = BytesMut::with_capacity(READ);
    loop {
        while let Some(frame) = next_frame(&mut input, core.config.max_command_length).map_err(|error| down(error.to_string()))? {
            match frame.command {
                command if command == wanted && frame.status == 0 => return Ok(input),
                command if command == wanted || command == GENERIC_NACK => {
                    return Err(Fault::new(Code::ProviderLogin, format!("the bind was refused with 0x{:08X}", frame.status)));
                }
                _ => {}
            }
        }
        input.reserve(READ);
        let read = io.read_buf(&mut input).await.map_err(|error| down(error.to_string()))?;
        if read == 0 {
            return Err(down("the connection was closed before the bind was answered".into()));
        }
    }
}
