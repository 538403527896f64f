//! How the Rust programs tell scripts/compat what held. It knows nothing of any library.
//!
//! A program prints one line per scenario (`ok`, `FAIL` or `skip`, its name, why), and may ask for a new server.

use std::future::Future;
use std::io::BufRead;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// For any one scenario; far more than a loaded machine needs.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the clients connect, `redis://127.0.0.1:PORT`.
pub fn url() -> String {
    std::env::var("REDIS_URL").expect("scripts/compat sets REDIS_URL")
}

/// What a panic begins with when the library cannot do it; the rest says why.
const SKIP: &str = "skip: ";

/// Ends the scenario: the library cannot do this.
pub fn skip(why: &str) -> ! {
    std::panic::panic_any(format!("{SKIP}{why}"))
}

/// The line of the last panic.
static LINE: AtomicU32 = AtomicU32::new(0);

/// Runs one scenario, which fails by a panic, and tells the outcome.
pub async fn run<F: Future<Output = ()> + Send + 'static>(name: &str, scenario: F) {
    std::panic::set_hook(Box::new(|info| {
        LINE.store(info.location().map_or(0, Location::line), Ordering::Relaxed);
        eprintln!("{info}");
    }));
    let why = match tokio::time::timeout(LIMIT, tokio::spawn(scenario)).await {
        Ok(Ok(())) => return println!("ok {name}"),
        Err(_) => "took too long".to_owned(),
        Ok(Err(ended)) => {
            let panic = ended.into_panic();
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
        }
    };
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    match why.strip_prefix(SKIP) {
        Some(why) => println!("skip {name} {why}"),
        None => {
            let (line, why) = (LINE.load(Ordering::Relaxed), why.chars().take(300).collect::<String>());
            println!("FAIL {name} line {line}: {why}");
        }
    }
}

/// Runs scenarios, async functions of this name without arguments, one after the other.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => { $($crate::run(stringify!($name), $name()).await;)+ };
}

/// Returns when the server behind REDIS_URL has ended and a new one listens on the same port.
pub async fn restart() {
    println!("restart");
    let answer = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().next());
    let answer = answer.await.expect("it does not panic").expect("stdin is open").expect("it is text");
    assert_eq!(answer, "restarted");
}

/// The error of something that must be refused, holding this text.
#[track_caller]
pub fn refused<T: std::fmt::Debug, E: std::fmt::Display>(got: Result<T, E>, text: &str) {
    match got {
        Ok(got) => panic!("{text} was expected, got {got:?}"),
        Err(error) => assert!(error.to_string().contains(text), "{error} does not hold {text}"),
    }
}

/// 10 MB that no compressor can make smaller, and 10 MB that any can.
pub fn large_values() -> [Vec<u8>; 2] {
    let mut state = 88_172_645_463_325_252_u64;
    let noise = std::iter::repeat_with(|| {
        // xorshift64: Marsaglia, "Xorshift RNGs".
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    [noise.take(10 << 17).flatten().collect(), b"{\"symbol\": \"BTCUSDT\", \"price\": 64123.5},".repeat(250_000)]
}
