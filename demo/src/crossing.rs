//! One invalidation on its way: a value is written through one Shortstop while the other, which holds the old
//! one in memory, is asked for it without pause. Shows how long the old value lived on, and checks that
//! time never runs backwards there.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use crate::client::{Client, ClientError};
use crate::market::{Market, SHOWN, version_of};
use crate::traffic;

/// Between two crossings.
const PAUSE: Duration = Duration::from_secs(3);
/// Reads before the write, so that the other side surely holds the old value.
const WARMING: usize = 8;
/// Longer than this, and it is called lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Reads after the new value was seen: none of them may be older.
const AFTER: usize = 32;

/// What was seen.
pub enum Crossing {
    /// It crossed over.
    Seen {
        /// From A to B, or the other way round.
        from_a: bool,
        /// The version written.
        version: u64,
        /// From the start of the write to its reply.
        written: Duration,
        /// From the start of the write to the new value on the other side.
        seen: Duration,
        /// Reads there that were older than one before them: must be 0.
        backwards: usize,
    },
    /// It could not be shown, and why.
    Failed(String),
}

/// Shows one crossing after the other, in turns from A to B and from B to A, until nobody listens.
pub async fn repeat(a: String, b: String, crossed: Sender<Crossing>) {
    let mut version = 1;
    loop {
        sleep(PAUSE).await;
        version += 1;
        let from_a = version % 2 == 0;
        let (from, to) = if from_a { (&a, &b) } else { (&b, &a) };
        let crossing =
            once(from, to, from_a, version).await.unwrap_or_else(|error| Crossing::Failed(error.to_string()));
        if crossed.send(crossing).await.is_err() {
            return;
        }
    }
}

async fn once(from: &str, to: &str, from_a: bool, version: u64) -> Result<Crossing, ClientError> {
    let (mut writer, mut reader) = (Client::connect(from).await?, Client::connect(to).await?);
    let quote = Market::new(version).shown(version);
    for _ in 0..WARMING {
        read(&mut reader).await?;
    }

    let begin = Instant::now();
    let write = async {
        traffic::write(&mut writer, &quote).await?;
        Ok::<_, ClientError>(begin.elapsed())
    };
    let watch = async {
        while read(&mut reader).await? < version {}
        Ok::<_, ClientError>(begin.elapsed())
    };
    let (written, seen) = tokio::join!(write, timeout(PATIENCE, watch));
    let written = written?;
    let Ok(seen) = seen else {
        return Ok(Crossing::Failed(format!(
            "version {version} of {SHOWN} was not seen within {} s",
            PATIENCE.as_secs()
        )));
    };
    let seen = seen?;

    let mut backwards = 0;
    for _ in 0..AFTER {
        if read(&mut reader).await? < version {
            backwards += 1;
        }
    }
    Ok(Crossing::Seen { from_a, version, written, seen, backwards })
}

/// The version of [`SHOWN`]; 0 when there is none.
async fn read(client: &mut Client) -> Result<u64, ClientError> {
    let value = client.value(&[b"GET", SHOWN.as_bytes()]).await?;
    Ok(value.as_deref().and_then(version_of).unwrap_or(0))
}
