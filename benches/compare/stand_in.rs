//! A server that does no work: it looks at no request beyond the key's number and answers with bytes made up on the
//! spot. What the generator reaches against it is the generator's own ceiling; a server that comes near it has not
//! been measured. Runs as a second process of this program, on the servers' core.

use std::io::{ErrorKind, Read};

use mio::net::TcpStream;
use mio::{Events, Poll};

use crate::front::{self, LISTENER};
use crate::wire::{Wording, Workload};

struct Client {
    stream: TcpStream,
    /// The beginning of a request whose end has not arrived.
    begun: Vec<u8>,
    /// Replies that the socket has not taken yet.
    out: Vec<u8>,
}

/// Serves until it is killed. Prints where it listens.
///
/// # Errors
/// When the listener or the poll fails.
pub fn serve(workload: Workload) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let listener = front::listen(&poll, "stand-in")?;
    let wording = Wording::new(workload);
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(256);
    loop {
        front::wait(&mut poll, &mut events)?;
        for event in &events {
            if event.token() == LISTENER {
                front::accept_all(&listener, poll.registry(), clients.len(), |stream| {
                    clients.push(Some(Client { stream, begun: Vec::new(), out: Vec::new() }));
                })?;
                continue;
            }
            let slot = &mut clients[event.token().0];
            let alive = slot.as_mut().is_some_and(|client| answer(client, &wording, &mut buffer).is_ok());
            if !alive {
                *slot = None;
            }
        }
    }
}

/// Takes what is there, answers what is whole, sends what the socket takes.
fn answer(client: &mut Client, wording: &Wording, buffer: &mut [u8]) -> std::io::Result<()> {
    let workload = wording.workload();
    loop {
        let kept = client.begun.len();
        buffer[..kept].copy_from_slice(&client.begun);
        let got = match client.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        let requests = buffer[..kept + got].chunks_exact(workload.request_len());
        client.begun.clear();
        client.begun.extend_from_slice(requests.remainder());
        let tag_at = workload.tag_at();
        for request in requests {
            wording.push_reply(&request[tag_at..tag_at + 8], &mut client.out);
        }
        if got < buffer.len() - kept {
            break;
        }
    }
    let written = front::send(&mut client.stream, &client.out)?;
    client.out.drain(..written);
    Ok(())
}
