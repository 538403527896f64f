//! The load: readers and a writer for each Shortstop, paced, and the counts of what they did.
//! A lost connection is counted and made again, so that the demo may be disturbed while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::client::{Client, ClientError};
use crate::market::{Market, Quote};

/// Connections that read, for each Shortstop.
const READERS: u64 = 4;
/// Reads sent in one write.
const PIPELINE: u64 = 16;
/// Between two attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(200);

/// How much through one Shortstop.
#[derive(Clone, Copy)]
pub struct Pace {
    /// GETs, over all connections.
    pub reads_per_second: u64,
    /// SETEXs.
    pub writes_per_second: u64,
}

/// What went through one Shortstop so far.
#[derive(Default)]
pub struct Traffic {
    /// Reads that were answered with a value or with none.
    pub reads: AtomicU64,
    /// Error replies and lost connections.
    pub errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Traffic {
    fn failed(&self, text: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// The text of the last error since this was asked for.
    pub fn take_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Writes every key once; the one that crossings are shown on at version 1.
pub async fn fill(client: &mut Client) -> Result<(), ClientError> {
    let mut market = Market::new(0);
    for quote in market.all() {
        write(client, &quote).await?;
    }
    write(client, &market.shown(1)).await
}

/// Starts the readers and the writer of one Shortstop; they run until the set is shut down.
pub fn start(tasks: &mut JoinSet<()>, address: String, traffic: Arc<Traffic>, pace: Pace, seed: u64) {
    let batches = (pace.reads_per_second / PIPELINE / READERS).max(1);
    for reader in 1..=READERS {
        let (address, traffic) = (address.clone(), Arc::clone(&traffic));
        tasks.spawn(async move {
            let mut market = Market::new(seed * 1000 + reader);
            loop {
                let Err(error) = read(&address, &traffic, &mut market, batches).await;
                traffic.failed(error.to_string());
                sleep(RECONNECT).await;
            }
        });
    }
    tasks.spawn(async move {
        let mut market = Market::new(seed * 1000);
        loop {
            let Err(error) = update(&address, &traffic, &mut market, pace.writes_per_second).await;
            traffic.failed(error.to_string());
            sleep(RECONNECT).await;
        }
    });
}

/// The type says that it ends only by an error.
async fn read(
    address: &str,
    traffic: &Traffic,
    market: &mut Market,
    batches_per_second: u64,
) -> Result<std::convert::Infallible, ClientError> {
    let mut client = Client::connect(address).await?;
    let mut tick = interval(Duration::from_secs(1) / u32::try_from(batches_per_second).unwrap_or(u32::MAX));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        for _ in 0..PIPELINE {
            client.push(&[b"GET", market.wanted().as_bytes()]);
        }
        for reply in client.replies().await? {
            match reply {
                BytesFrame::Error(text) => traffic.failed(text.to_string()),
                _ => {
                    traffic.reads.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn update(
    address: &str,
    traffic: &Traffic,
    market: &mut Market,
    writes_per_second: u64,
) -> Result<std::convert::Infallible, ClientError> {
    let mut client = Client::connect(address).await?;
    let mut tick = interval(Duration::from_secs(1) / u32::try_from(writes_per_second).unwrap_or(u32::MAX));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        match write(&mut client, &market.update()).await {
            Err(ClientError::Refused(text)) => traffic.failed(text),
            other => other?,
        }
    }
}

/// `SETEX key ttl value`.
pub async fn write(client: &mut Client, quote: &Quote) -> Result<(), ClientError> {
    let ttl = quote.ttl.to_string();
    client.value(&[b"SETEX", quote.key.as_bytes(), ttl.as_bytes(), quote.value.as_bytes()]).await?;
    Ok(())
}
