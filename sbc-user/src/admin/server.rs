//! The Unix socket: who may connect, and serving those who may.
//!
//! The socket's mode is 0660, its group `sbc` if there is one. Besides that the kernel's word on the peer's identity
//! is asked for: root, the daemon's own user, or a member of the socket's group by its credentials.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::serve::Listener;
use nix::unistd::{Gid, Group, Uid, User, getuid};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::{SocketAddr, UCred};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{info, warn};

use super::dto::Facts;
use super::{Asker, routes};

/// Operators connected at once.
const MAX_CONNECTIONS: usize = 64;
/// The group whose members may operate the daemon.
const GROUP: &str = "sbc";
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running server. Its socket file is removed when it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Server {
    /// Binds the socket and begins to serve.
    ///
    /// # Errors
    /// The socket cannot be bound, or another daemon answers on it.
    pub fn start(path: &Path, facts: Facts, asker: Asker) -> anyhow::Result<Self> {
        let listener = bind(path).with_context(|| format!("admin socket {}", path.display()))?;
        let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid);
        if let Some(gid) = group {
            // Without the right to give it away the socket stays our own.
            if let Err(error) = nix::unistd::chown(path, None, Some(gid)) {
                warn!(%error, "the admin socket cannot be given to group {GROUP}");
            }
        }
        let guarded =
            Guarded { listener, own: getuid(), group, free: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
        let (stop, stopped) = oneshot::channel();
        let router = routes::router(facts, asker);
        let task = tokio::spawn(async move {
            let stopped = async move {
                let _ = stopped.await;
            };
            if let Err(error) = axum::serve(guarded, router).with_graceful_shutdown(stopped).await {
                warn!(%error, "admin server");
            }
        });
        info!(socket = %path.display(), "operators are served");
        Ok(Self { path: path.to_owned(), stop: Some(stop), task: Some(task) })
    }

    /// Answers what was asked, then ends.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(mut task) = self.task.take()
            && tokio::time::timeout(Duration::from_secs(2), &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, socket = %self.path.display(), "admin socket not removed");
        }
    }
}

/// Binds the path, in place of a socket that nobody answers on any more.
fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => bail!("something else than a socket is there"),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            bail!("another daemon answers on it")
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

/// Hands on the connections of those who may operate the daemon.
struct Guarded {
    listener: UnixListener,
    own: Uid,
    group: Option<Gid>,
    free: Arc<Semaphore>,
}

impl Guarded {
    fn admits(&self, peer: &UCred) -> bool {
        let uid = Uid::from_raw(peer.uid());
        uid.is_root()
            || uid == self.own
            || self.group.is_some_and(|group| group.as_raw() == peer.gid() || is_member(uid, group))
    }
}

/// Whether the user database counts `uid` among the group's members.
fn is_member(uid: Uid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else { return false };
    let Ok(name) = std::ffi::CString::new(user.name) else { return false };
    nix::unistd::getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

impl Listener for Guarded {
    type Io = Admitted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok(permit) = self.free.clone().acquire_owned().await else {
                // The semaphore is never closed.
                std::future::pending().await
            };
            match self.listener.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if self.admits(&peer) => return (Admitted { stream, _permit: permit }, address),
                    Ok(peer) => warn!(uid = peer.uid(), "not admitted to the admin socket"),
                    Err(error) => warn!(%error, "credentials of an operator"),
                },
                Err(error) => {
                    warn!(%error, "admin socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that counts against [`MAX_CONNECTIONS`].
struct Admitted {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
