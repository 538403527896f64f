//! Listeners for clients, and the sockets they accept, which can be sent to another thread.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Address, Stream, for_client};

/// Maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// A listening socket. Bound outside of a runtime, used inside one.
#[derive(Debug)]
pub enum Listener {
    /// TCP, with or without TLS.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(SocketFile, std::os::unix::net::UnixListener),
}

impl Listener {
    /// Binds an IP address and a port.
    ///
    /// # Errors
    /// The address cannot be bound: it is in use, not on this machine, or not allowed.
    pub fn tcp(address: SocketAddr) -> io::Result<Listener> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait until the system has forgotten the old connections.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Listener::Tcp(socket.into()))
    }

    /// Binds a path. A stale socket there is removed first. The path is removed when the listener is dropped.
    ///
    /// # Errors
    /// The path cannot be bound: another process listens there, something else has that name, or it is not allowed.
    pub fn unix(path: &Path) -> io::Result<Listener> {
        remove_stale(path)?;
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let file = SocketFile { path: path.to_owned(), socket: socket_at(path)? };
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Listener::Unix(file, socket.into()))
    }

    /// The address it listens on. For port 0, the port that the system chose.
    ///
    /// # Errors
    /// The system does not report it.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(Address::from),
            Listener::Unix(file, _) => Ok(file.path.clone().into()),
        }
    }

    /// Makes it ready to accept, inside a runtime.
    ///
    /// # Errors
    /// The runtime cannot register it.
    pub fn open(self) -> io::Result<Acceptor> {
        Ok(match self {
            Listener::Tcp(listener) => Acceptor::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(file, listener) => Acceptor::Unix(file, UnixListener::from_std(listener)?),
        })
    }
}

/// A [`Listener`] inside a runtime.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(SocketFile, UnixListener),
}

impl Acceptor {
    /// The next client.
    ///
    /// # Errors
    /// Most likely there are no file descriptors left.
    ///
    /// # Cancel safety
    /// No client is lost.
    pub async fn accept(&self) -> io::Result<Socket> {
        match self {
            Acceptor::Tcp(listener) => listener.accept().await?.0.into_std().map(Socket::Tcp),
            Acceptor::Unix(_, listener) => listener.accept().await?.0.into_std().map(Socket::Unix),
        }
    }
}

/// A client's socket on its way to its worker's thread.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Socket {
    /// Makes it a stream of the current runtime, with the options for clients.
    ///
    /// # Errors
    /// The client is gone.
    pub fn open(self) -> io::Result<Stream> {
        match self {
            Socket::Tcp(socket) => {
                let socket = TcpStream::from_std(socket)?;
                for_client(&socket)?;
                Ok(Stream::Tcp(socket))
            }
            Socket::Unix(socket) => UnixStream::from_std(socket).map(Stream::Unix),
        }
    }

    /// Sends a text to a client that is not served. It may not arrive.
    pub fn say(&mut self, text: &[u8]) {
        use io::Write;
        let _ = match self {
            Socket::Tcp(socket) => socket.write_all(text),
            Socket::Unix(socket) => socket.write_all(text),
        };
    }
}

/// The name of a Unix socket in the file system. It is removed on drop, unless something else has that name by then. That happens
/// before the listener is closed, so that no other process takes the name for a stale one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The device and the inode.
    socket: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if socket_at(&self.path).is_ok_and(|socket| socket == self.socket) {
            // If this fails, the next start removes the name.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The device and the inode of a socket.
fn socket_at(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket has that name"));
    }
    Ok((meta.dev(), meta.ino()))
}

/// Removes a socket on which no process listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    match socket_at(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixListener;

    use super::Listener;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("s");
        // The standard library leaves the name behind.
        drop(UnixListener::bind(&path).expect("a free name"));
        assert!(path.exists());
        let listener = Listener::unix(&path).expect("the stale name is removed");
        let second = Listener::unix(&path).expect_err("somebody listens there");
        assert_eq!(second.kind(), ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists(), "the name goes with the listener");
    }

    #[test]
    fn only_its_own_name_is_removed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("s");
        std::fs::write(&path, "of value").expect("a file");
        assert_eq!(Listener::unix(&path).expect_err("a file has that name").kind(), ErrorKind::AlreadyExists);
        assert!(path.exists());
        std::fs::remove_file(&path).expect("ours");
        let listener = Listener::unix(&path).expect("a free name");
        std::fs::remove_file(&path).expect("ours");
        std::fs::write(&path, "of value").expect("a file");
        drop(listener);
        assert!(path.exists(), "another has taken the name");
    }
}
