//! Writes the log. A line that cannot be written is dropped and counted. No code that serves clients waits for standard error, and
//! nothing ends when standard error is closed, full or not read.
//!
//! Lines go into a buffer in memory, and one thread writes them. The thread has a file handle of its own, because
//! [`std::io::stderr`] takes a lock that other threads may hold. There is one log per process, so the counters count per process.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum size of lines that wait to be written. Above it, lines are dropped. The thread may hold as many again while it writes.
const BUFFER: usize = 1 << 20;

/// Interval of attempts while standard error accepts nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Interval of checks for suppressed lines.
const SUPPRESSED_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of lines of one kind per second. More are suppressed.
const LINES_A_SECOND: u32 = 10;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Number of lines that could not be written in time, or not at all.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The log. Adding a line only copies it, and never fails.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread has taken lines and has not written all of them.
    writing: bool,
}

impl Log {
    /// A log on standard error, and the thread that writes it.
    ///
    /// # Errors
    /// The system provides no thread, or no further handle of standard error.
    pub fn to_stderr() -> io::Result<Log> {
        let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Log::to(out)
    }

    fn to(out: impl Write + Send + 'static) -> io::Result<Log> {
        let log = Log(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }));
        let shared = Arc::clone(&log.0);
        std::thread::Builder::new().name("shortstop-log".to_owned()).spawn(move || shared.write_to(out))?;
        Ok(log)
    }

    /// Adds whole lines, or drops them.
    fn add(&self, lines: &[u8]) {
        let mut state = self.0.lock();
        if state.waiting.len() + lines.len() > BUFFER {
            DROPPED.fetch_add(count(lines), Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until all lines are written, at most this long.
    pub fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.0.lock();
        while state.writing || !state.waiting.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes panics to the log, because Rust's own hook waits for standard error. Does not use `tracing`, whose code may have
    /// panicked.
    pub fn write_panics(&self, json: bool) {
        static PANICS: Seldom = Seldom::new("panicked");
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            if PANICS.allows() {
                log.add(panic_line(panic, json).as_bytes());
            }
        }));
    }
}

fn panic_line(panic: &PanicHookInfo<'_>, json: bool) -> String {
    let thread = std::thread::current();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let what = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let what = what.unwrap_or("a panic without a text");
    let text = format!("thread '{}' panicked at {place}: {what}", thread.name().unwrap_or("unnamed"));
    if json {
        format!("{}\n", serde_json::json!({ "level": "ERROR", "target": "panic", "fields": { "message": text } }))
    } else {
        format!("ERROR {text}\n")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        let mut told = 0;
        let mut looked = Instant::now();
        loop {
            let mut state = self.lock();
            state.writing = false;
            if state.waiting.is_empty() {
                // Wakes `flush`, because everything is written.
                self.changed.notify_all();
                state = self.changed.wait_timeout(state, SUPPRESSED_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            }
            lines.clear();
            std::mem::swap(&mut lines, &mut state.waiting);
            state.writing = !lines.is_empty();
            drop(state);
            if !lines.is_empty() && write_all(&mut out, &lines).is_err() {
                DROPPED.fetch_add(count(&lines), Ordering::Relaxed);
            }
            if looked.elapsed() >= SUPPRESSED_EVERY {
                looked = Instant::now();
                log_suppressed();
                let dropped = dropped_lines();
                if dropped != told {
                    tracing::warn!(
                        lines = dropped - told,
                        "lines of this log were dropped: standard error could not be written in time; check the \
                         process that reads it"
                    );
                    // If that line cannot be written either, it counts too.
                    told = dropped;
                }
            }
        }
    }
}

/// Like [`Write::write_all`], but waits while a non-blocking handle accepts nothing.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// One event of `tracing`, which is added to the log as a whole.
#[derive(Debug)]
pub struct Line {
    log: Log,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.log.add(&self.bytes);
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { log: self.clone(), bytes: Vec::new() }
    }
}

/// Limits the lines of one kind, which any client may cause at any rate. Used by [`seldom!`](crate::seldom).
#[derive(Debug)]
pub struct Seldom {
    /// The text of the lines.
    what: &'static str,
    state: Mutex<Second>,
}

#[derive(Debug)]
struct Second {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
    /// It is in [`SUPPRESSED`].
    listed: bool,
}

/// The kinds of which lines were suppressed.
static SUPPRESSED: Mutex<Vec<&'static Seldom>> = Mutex::new(Vec::new());

impl Seldom {
    /// For lines with this text.
    pub const fn new(what: &'static str) -> Self {
        Seldom { what, state: Mutex::new(Second { began: None, lines: 0, left_out: 0, listed: false }) }
    }

    /// Whether another line may be written. If not, the line is counted, and the count is logged later.
    pub fn allows(&'static self) -> bool {
        self.allows_at(Instant::now())
    }

    fn allows_at(&'static self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            (state.began, state.lines) = (Some(now), 0);
        }
        if state.lines < LINES_A_SECOND {
            state.lines += 1;
            return true;
        }
        state.left_out += 1;
        if !std::mem::replace(&mut state.listed, true) {
            drop(state);
            SUPPRESSED.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
        false
    }

    fn take_suppressed(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.listed = false;
        std::mem::take(&mut state.left_out)
    }
}

/// Logs one line for each kind of which lines were suppressed.
fn log_suppressed() {
    let kinds = std::mem::take(&mut *SUPPRESSED.lock().unwrap_or_else(PoisonError::into_inner));
    for kind in kinds {
        tracing::warn!(lines = kind.take_suppressed(), kind = kind.what, "more lines of this kind were suppressed");
    }
}

/// A line of `tracing` that any client may cause: `seldom!(warn, "the text", client = 7)`. At most ten a second are written for
/// each place in the code. The number of suppressed lines is logged a second later.
#[macro_export]
macro_rules! seldom {
    ($level:ident, $what:literal $(, $($fields:tt)+)?) => {{
        static SELDOM: $crate::log::Seldom = $crate::log::Seldom::new($what);
        // Lines of a disabled level do not count.
        if tracing::enabled!($crate::seldom!(@level $level)) && SELDOM.allows() {
            tracing::$level!($($($fields)+,)? $what);
        }
    }};
    (@level error) => { tracing::Level::ERROR };
    (@level warn) => { tracing::Level::WARN };
    (@level info) => { tracing::Level::INFO };
    (@level debug) => { tracing::Level::DEBUG };
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::{BUFFER, LINES_A_SECOND, Log, Seldom, dropped_lines};

    /// Accepts each write when the test says so.
    struct Gate(mpsc::Receiver<io::Result<usize>>, mpsc::Sender<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.0.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            let _ = self.1.send(bytes[..taken].to_vec());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A single test, because dropped lines are counted per process.
    #[test]
    fn lines_that_cannot_be_written_are_dropped_and_counted() {
        let (open, gate) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let log = Log::to(Gate(gate, sender)).expect("a thread");
        let before = dropped_lines();
        log.add(b"one\n");
        // In parts, with the errors that a signal or a non-blocking handle may cause in between.
        for result in [Ok(2), Err(io::ErrorKind::WouldBlock.into()), Err(io::ErrorKind::Interrupted.into()), Ok(2)] {
            open.send(result).expect("it writes");
        }
        assert_eq!([written.recv().expect("a part"), written.recv().expect("the rest")].concat(), b"one\n");
        log.add(b"broken\n");
        open.send(Err(io::ErrorKind::BrokenPipe.into())).expect("it writes");
        log.flush(Duration::from_secs(10));
        assert_eq!(dropped_lines(), before + 1);
        // No reader: lines above the limit are dropped, and no caller waits.
        log.add(b"held\n");
        log.flush(Duration::from_millis(50));
        let line = [b'x'; 1023].iter().chain(b"\n").copied().collect::<Vec<u8>>();
        (0..BUFFER / line.len() + 7).for_each(|_| log.add(&line));
        assert!((before + 8..=before + 9).contains(&dropped_lines()), "{}", dropped_lines() - before);
        drop(open);
        log.flush(Duration::from_secs(10));
        assert_eq!(written.recv().expect("it goes on"), b"held\n");
        assert_eq!(written.recv().expect("with all that was kept").len() % line.len(), 0);
    }

    #[test]
    fn lines_of_one_kind_are_bounded() {
        static KIND: Seldom = Seldom::new("test");
        let now = Instant::now();
        let allowed = (0..1000).filter(|_| KIND.allows_at(now)).count();
        assert_eq!(allowed, LINES_A_SECOND as usize);
        assert!(KIND.allows_at(now + Duration::from_secs(1)));
        assert_eq!(KIND.take_suppressed(), 1000 - u64::from(LINES_A_SECOND));
        assert_eq!(KIND.take_suppressed(), 0);
    }
}
