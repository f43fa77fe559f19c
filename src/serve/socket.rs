//! The local socket: a file in the data folder that only its owner can use.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::Router;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// The socket's name in the data folder.
pub const NAME: &str = "control.sock";
/// The longest path that a socket's address holds, with some room (`sun_path` has 108 bytes).
const PATH_MAX: usize = 100;

/// A path that reaches `folder`'s socket and fits into a socket's address. The file, when there is one, must stay open while
/// the path is used.
pub(super) fn address(folder: &Path, name: &str) -> io::Result<(PathBuf, Option<std::fs::File>)> {
    let direct = folder.join(name);
    if direct.as_os_str().len() <= PATH_MAX {
        return Ok((direct, None));
    }
    // Linux names an open folder in a few characters.
    let open = std::fs::File::open(folder)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&open);
    Ok((PathBuf::from(format!("/proc/self/fd/{number}/{name}")), Some(open)))
}

/// Listens on the socket of `folder`. Only the process that holds the folder's lock may call it: a socket that is there is
/// left over and is removed. The file has its permissions before it has its name, so nobody else ever gets in.
pub fn listen(folder: &Path) -> io::Result<UnixListener> {
    let fresh = format!("{NAME}.new");
    for left_over in [folder.join(&fresh), folder.join(NAME)] {
        match std::fs::remove_file(&left_over) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let (path, _open) = address(folder, &fresh)?;
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(folder.join(&fresh), std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(folder.join(&fresh), folder.join(NAME))?;
    Ok(listener)
}

/// Serves until `stop`, then removes the socket.
pub async fn serve(listener: UnixListener, folder: &Path, router: Router, stop: CancellationToken) -> io::Result<()> {
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    // The folder's lock is still held: no other process can have put its own there.
    let _ = std::fs::remove_file(folder.join(NAME));
    served
}
