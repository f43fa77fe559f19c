//! Places of connections: how many one address may have, and that whoever holds one takes what it asked for.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// One place in so many is kept from an address that has all the others: a single machine cannot shut out everybody else, and a
/// proxy in front, through which all requests come, hardly misses it.
const KEPT_OF: usize = 8;

/// The connections of each address.
pub struct Places {
    taken: Mutex<HashMap<IpAddr, usize>>,
    most: usize,
}

/// A connection's place; dropped, it is free again.
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// So many places altogether.
    pub fn new(connections: usize) -> Arc<Places> {
        Arc::new(Places { taken: Mutex::default(), most: connections - connections / KEPT_OF })
    }

    /// A place for one more connection of an address; none when it has all that one address gets.
    pub fn take(self: &Arc<Places>, from: IpAddr) -> Option<Place> {
        let address = network(from);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Whom an address stands for: a subscriber of IPv6 has a whole network of them (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
    }
}

/// A stream whose other end must go on reading: one that takes nothing for too long breaks it off. Answers would else wait in
/// memory, and their connections hold their places, for as long as a stranger likes.
pub struct Taken<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Taken<S> {
    /// A stream that may stand still for `limit`.
    pub fn new(stream: S, limit: Duration) -> Taken<S> {
        Taken { stream, limit, stalled: None }
    }

    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn one_address_never_gets_the_last_places() {
        let places = Places::new(16);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let mut held: Vec<Place> = (0..14).map(|_| places.take(ip("192.0.2.1")).expect("there is room")).collect();
        assert!(places.take(ip("192.0.2.1")).is_none() && places.take(ip("::ffff:192.0.2.1")).is_none());
        let other = places.take(ip("192.0.2.2")).expect("another address has places of its own");
        held.pop();
        let again = places.take(ip("192.0.2.1")).expect("one was given back");
        let of_network = |n: u32| places.take(ip(&format!("2001:db8::{n:x}")));
        let held_too: Vec<Place> = (1..15).filter_map(of_network).collect();
        assert_eq!((held_too.len(), of_network(99).is_none()), (14, true), "a network is one subscriber");
        drop((held, other, again, held_too));
        assert!(places.taken.lock().expect("not poisoned").is_empty(), "nobody is remembered");
        let few = Places::new(2);
        assert!([few.take(ip("192.0.2.1")), few.take(ip("192.0.2.1"))].iter().all(Option::is_some), "of few none is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_nothing_is_left_and_whoever_reads_slowly_is_not() {
        let limit = Duration::from_secs(5);
        let (near, mut far) = duplex(64);
        let mut near = Taken::new(near, limit);
        let reading = tokio::spawn(async move {
            let mut read = [0; 32];
            for _ in 0..8 {
                tokio::time::sleep(limit - Duration::from_secs(1)).await;
                far.read_exact(&mut read).await.expect("something came");
            }
            // From here on it stands still.
            std::future::pending::<()>().await;
        });
        near.write_all(&[7; 8 * 32]).await.expect("it is slow, but it reads");
        let error = near.write_all(&[7; 200]).await.expect_err("nobody reads any more");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        reading.abort();
    }
}
