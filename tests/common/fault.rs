//! A fault proxy between two parties that a test can hold, release, cut and count.
//!
//! It copies bytes without parsing them, with one exception: it can hold back a certain request, or the replies on the connection
//! over which that request passes. That makes races deterministic.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A direction of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the party that connected to the server: requests.
    Up,
    /// From the server to the party that connected: replies.
    Down,
}

/// A TCP proxy on a free loopback port in front of a server.
pub struct Fault {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The target of new connections.
    target: SocketAddr,
    /// Whether all connections are held: requests, replies.
    held: [bool; 2],
    /// The number of bytes after which they are held.
    limits: [Option<u64>; 2],
    /// Bytes passed on: requests, replies.
    bytes: [u64; 2],
    /// New connections are closed at once.
    refuse: bool,
    closed: bool,
    needle: Option<Vec<u8>>,
    /// The awaited request itself is held, not its replies.
    holds_request: bool,
    links: Vec<Link>,
}

struct Link {
    sockets: [TcpStream; 2],
    /// The replies of this connection are held, because the awaited request has passed.
    caught: bool,
    /// That request has been written to the server's socket.
    passed: bool,
    alive: bool,
}

impl Fault {
    /// Listens on a free port and carries every connection to `target`.
    pub fn before(target: SocketAddr) -> Fault {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("it is bound");
        let state = State {
            target,
            held: [false; 2],
            limits: [None; 2],
            bytes: [0; 2],
            refuse: false,
            closed: false,
            needle: None,
            holds_request: false,
            links: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let acceptor = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &acceptor));
        Fault { address, shared }
    }

    /// The address to connect to instead of the server's.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Holds one direction. Bytes already read wait.
    pub fn hold(&self, way: Way) {
        self.shared.lock().held[way as usize] = true;
    }

    /// Lets about this many more bytes through in one direction, then holds it.
    pub fn hold_after(&self, way: Way, bytes: u64) {
        let mut state = self.shared.lock();
        state.limits[way as usize] = Some(state.bytes[way as usize] + bytes);
    }

    /// From now on holds the replies of every connection over which `request` passes.
    pub fn hold_replies_to(&self, request: &[u8]) {
        self.shared.lock().needle = Some(request.to_vec());
    }

    /// From now on holds every connection's requests from `request` on, so that the server does not receive it.
    pub fn hold_request(&self, request: &[u8]) {
        let mut state = self.shared.lock();
        (state.needle, state.holds_request) = (Some(request.to_vec()), true);
    }

    /// Waits until a request named in [`Fault::hold_request`] has arrived and is held.
    #[track_caller]
    pub fn wait_held(&self) {
        super::wait_until("the request to be held comes", || self.shared.lock().links.iter().any(|link| link.caught));
    }

    /// Waits until a request named in [`Fault::hold_replies_to`] has passed to the server: from now on it is executed, whatever
    /// happens to the connection.
    #[track_caller]
    pub fn wait_caught(&self) {
        super::wait_until("the request whose reply is to be held passes", || {
            self.shared.lock().links.iter().any(|link| link.passed)
        });
    }

    /// Releases everything that is held, in both directions, and stops waiting for a request.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.held = [false; 2];
        state.limits = [None; 2];
        (state.needle, state.holds_request) = (None, false);
        state.links.iter_mut().for_each(|link| (link.caught, link.passed) = (false, false));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Closes every connection. Held bytes are lost. New connections are carried as before.
    pub fn cut(&self) {
        self.close(|_| true);
    }

    /// Closes only the connections whose replies are held by [`Fault::hold_replies_to`].
    pub fn cut_caught(&self) {
        self.close(|link| link.caught);
    }

    /// Makes `ask` send a request that contains `needle`, and cuts its connection once it has been executed and its reply has
    /// arrived here.
    pub fn lose_reply_to(&self, needle: &[u8], ask: impl FnOnce()) {
        self.hold_replies_to(needle);
        ask();
        self.wait_caught();
        self.cut_caught();
        self.release();
    }

    /// Sends these bytes on every open connection, as if the server had sent them. Only while no reply is in flight.
    pub fn say(&self, bytes: &[u8]) {
        for link in self.shared.lock().links.iter().filter(|link| link.alive) {
            // The other side may have closed it already.
            let _ = (&link.sockets[0]).write_all(bytes);
        }
    }

    /// Whether to close new connections at once.
    pub fn refuse(&self, refuse: bool) {
        self.shared.lock().refuse = refuse;
    }

    /// Carries new connections to another server. Existing ones stay, as when a host name moves.
    pub fn lead_to(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// Bytes passed in this direction since the start.
    pub fn bytes(&self, way: Way) -> u64 {
        self.shared.lock().bytes[way as usize]
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.lock().links.iter().filter(|link| link.alive).count()
    }

    /// Connections that have ended.
    pub fn ended(&self) -> usize {
        self.shared.lock().links.iter().filter(|link| !link.alive).count()
    }

    fn close(&self, which: impl Fn(&Link) -> bool) {
        let mut state = self.shared.lock();
        for link in state.links.iter_mut().filter(|link| which(link)) {
            (link.caught, link.passed) = (false, false);
            link.end();
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.cut();
        // Wakes the acceptor, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Link {
    fn end(&mut self) {
        self.alive = false;
        for socket in &self.sockets {
            // The other side may have closed it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming() {
        let state = shared.lock();
        if state.closed {
            return;
        }
        let (refuse, target) = (state.refuse, state.target);
        drop(state);
        let (Ok(near), false) = (near, refuse) else { continue };
        let Ok(far) = TcpStream::connect(target) else { continue };
        carry(near, far, shared);
    }
}

fn carry(near: TcpStream, far: TcpStream, shared: &Arc<Shared>) {
    let copies = || -> std::io::Result<[TcpStream; 6]> {
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (n, f) = (&near, &far);
        Ok([n.try_clone()?, f.try_clone()?, n.try_clone()?, f.try_clone()?, n.try_clone()?, f.try_clone()?])
    };
    let Ok([near_kept, far_kept, near_up, far_up, near_down, far_down]) = copies() else { return };
    let mut state = shared.lock();
    let index = state.links.len();
    state.links.push(Link { sockets: [near_kept, far_kept], caught: false, passed: false, alive: true });
    drop(state);
    for (way, from, to) in [(Way::Up, near_up, far_up), (Way::Down, far_down, near_down)] {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            pump(way, from, to, index, &shared);
            let mut state = shared.lock();
            state.links[index].end();
            drop(state);
            shared.changed.notify_all();
        });
    }
}

/// Copies one direction until it ends. A connection ends as a whole: half-closing is not supported.
fn pump(way: Way, mut from: TcpStream, mut to: TcpStream, index: usize, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    // The last bytes of the previous chunk: a request may be split between two.
    let mut tail = Vec::new();
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer) else { return };
        let mut state = shared.lock();
        if way == Way::Up
            && let Some(needle) = state.needle.clone()
        {
            tail.extend_from_slice(&buffer[..read]);
            if tail.windows(needle.len()).any(|window| window == needle) {
                state.links[index].caught = true;
                tail.clear();
            }
            let keep = tail.len().min(needle.len() - 1);
            tail.drain(..tail.len() - keep);
        }
        let at = way as usize;
        let held = |state: &State| {
            let over = state.limits[at].is_some_and(|limit| state.bytes[at] >= limit);
            let held_way = if state.holds_request { Way::Up } else { Way::Down };
            over || state.held[at] || (way == held_way && state.links[index].caught)
        };
        while state.links[index].alive && held(&state) {
            state = shared.changed.wait(state).expect("no holder of this lock panics");
        }
        if !state.links[index].alive {
            return;
        }
        state.bytes[way as usize] += read as u64;
        drop(state);
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
        if way == Way::Up {
            let link = &mut shared.lock().links[index];
            link.passed = link.caught;
        }
    }
}
