//! A server that does no work: it looks at no request beyond the key's number and answers with bytes made up on the
//! spot. What the generator reaches against it is the generator's own ceiling; a server that comes near it has not
//! been measured. Runs as a second process of this program, on the servers' core.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crate::wire::{Wording, Workload};

const LISTENER: Token = Token(usize::MAX);

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
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    println!("stand-in listening on {}", listener.local_addr()?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;

    let wording = Wording::new(workload);
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(256);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, poll.registry(), &mut clients)?;
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

fn accept(listener: &TcpListener, registry: &Registry, clients: &mut Vec<Option<Client>>) -> std::io::Result<()> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        registry.register(&mut stream, Token(clients.len()), Interest::READABLE | Interest::WRITABLE)?;
        clients.push(Some(Client { stream, begun: Vec::new(), out: Vec::new() }));
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
    let mut written = 0;
    while written < client.out.len() {
        match client.stream.write(&client.out[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    client.out.drain(..written);
    Ok(())
}
