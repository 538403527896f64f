//! Options of TCP sockets.
//!
//! A silent partition (a network that drops everything, a machine without power) ends a connection to Redis within 10 s.
//! Unacknowledged bytes end it after [`UNACKNOWLEDGED`]. An idle connection is probed, and ends 9 s after the last sign of life.
//! Keep-alive probes alone are not enough, because none are sent while bytes wait to be acknowledged.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long the other machine may leave bytes or probes unacknowledged.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(8);

/// Sets the options for a connection to Redis.
///
/// # Errors
/// The connection is gone.
pub fn for_upstream(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    // On Linux the timeout below takes effect at the probe after 9 s. On other systems the number of probes does.
    let every = Duration::from_secs(2);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(3)).with_interval(every).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// Sets the options for a client's connection: like Redis's `tcp-keepalive 300`. `limits.stall_timeout` closes a client that does
/// not read its replies. A timeout for unacknowledged bytes would close it earlier, because on Linux it also counts the time in
/// which a living client reads nothing.
///
/// # Errors
/// The connection is gone.
pub fn for_client(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(300)).with_interval(Duration::from_secs(100));
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpStream};

    use super::{for_client, for_upstream};

    async fn socket() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens")
    }

    #[tokio::test]
    async fn a_partition_to_redis_ends_within_ten_seconds() {
        let stream = socket().await;
        for_upstream(&stream).expect("it stands");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("it stands"));
        let time = socket.tcp_keepalive_time().expect("it stands");
        let interval = socket.tcp_keepalive_interval().expect("it stands");
        let retries = socket.tcp_keepalive_retries().expect("it stands");
        assert!(time + interval * retries < Duration::from_secs(10));
        #[cfg(target_os = "linux")]
        {
            let limit = socket.tcp_user_timeout().expect("it stands").expect("it is set");
            // A probe is due between the limit and ten seconds, so that the limit is checked in time.
            assert!(limit < time + interval * retries && limit > time);
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_has_no_such_limit() {
        let stream = socket().await;
        for_client(&stream).expect("it stands");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("it stands") && socket.tcp_nodelay().expect("it stands"));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("it stands"), None);
    }
}
