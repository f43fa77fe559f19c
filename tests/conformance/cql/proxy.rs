//! A way to the server on which things get lost.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// Requests never arrive, and nobody is told.
    RequestsLost,
    /// The connection breaks before a request arrives.
    RequestsCut,
    /// Requests wait on the way until it is open again.
    RequestsHeld,
    /// Answers never arrive, and nobody is told.
    AnswersLost,
    /// The connection breaks before an answer arrives.
    AnswersCut,
}

/// A proxy in front of a server.
pub struct Proxy {
    pub address: String,
    way: watch::Sender<Way>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn before(server: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (way, watched) = watch::channel(Way::Open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, way) = (server.clone(), watched.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        carry(client, server, way).await;
                    }
                });
            }
        });
        Proxy { address, way, accepting }
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, way: watch::Receiver<Way>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever side ends takes the other with it.
    tokio::select! {
        () = pass(from_client, to_server, way.clone(), Way::RequestsLost, Way::RequestsCut) => {}
        () = pass(from_server, to_client, way, Way::AnswersLost, Way::AnswersCut) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
    lost: Way,
    cut: Way,
) {
    let is_requests = lost == Way::RequestsLost;
    let mut bytes = vec![0; 1 << 16];
    loop {
        let Ok(length @ 1..) = from.read(&mut bytes).await else { return };
        if is_requests && way.wait_for(|way| *way != Way::RequestsHeld).await.is_err() {
            return;
        }
        let now = *way.borrow();
        if now == cut {
            return;
        }
        if now != lost && to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
