//! The webhook: alerts as HTTP requests to an address of the operator's choice, one after the other, with a few attempts each.
//!
//! A server that hangs costs nothing but the alerts that wait for it: the queue is bounded, and drops the oldest. Redirects are not
//! followed. Must not know what an alert is.

mod lookup;
mod post;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::metrics::slots::WebhookStats;

use lookup::Lookup;
pub use post::Recipient;

/// Messages that wait. One more drops the oldest.
const QUEUE: usize = 64;

/// Time for one attempt, from the lookup of the name to the status of the answer.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The pauses between the attempts for one message. After the last attempt the message is given up.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// The messages that wait.
#[derive(Debug, Default)]
pub struct Webhook {
    queue: Mutex<VecDeque<String>>,
    more: Notify,
}

impl Webhook {
    /// Queues a message: JSON. Never waits. Returns false if the oldest one had to go.
    pub fn push(&self, message: String) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = queue.len() < QUEUE;
        if !has_room {
            queue.pop_front();
        }
        queue.push_back(message);
        self.more.notify_one();
        has_room
    }

    /// The next message.
    ///
    /// # Cancel safety
    /// If dropped before it is ready, no message is lost.
    async fn next(&self) -> String {
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(message) => return message,
                None => self.more.notified().await,
            }
        }
    }

    /// Sends what comes to whom `recipient` names at that time, for ever.
    pub async fn run(&self, recipient: impl Fn() -> Option<Recipient>, stats: &WebhookStats) {
        let mut lookup = Lookup::default();
        loop {
            let message = self.next().await;
            let mut pauses = PAUSES.iter();
            let sent = loop {
                // It may have been changed or removed since the last attempt.
                let Some(recipient) = recipient() else { break false };
                let attempt = timeout(ATTEMPT, post::post(&recipient, &message, &mut lookup)).await;
                let why = match attempt {
                    Ok(Ok(())) => break true,
                    Ok(Err(why)) => why.to_string(),
                    Err(_) => format!("no answer within {} seconds", ATTEMPT.as_secs()),
                };
                stats.failed();
                crate::seldom!(warn, "an alert was not accepted by alerts.webhook", url = %recipient.url, why);
                match pauses.next() {
                    Some(pause) => sleep(*pause).await,
                    None => break false,
                }
            };
            if sent { stats.sent() } else { stats.dropped() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{QUEUE, Webhook};

    #[tokio::test]
    async fn a_full_queue_drops_the_oldest() {
        let webhook = Webhook::default();
        for number in 0..QUEUE {
            assert!(webhook.push(number.to_string()));
        }
        assert!(!webhook.push("last".to_owned()));
        assert_eq!(webhook.next().await, "1");
        for _ in 2..QUEUE {
            webhook.next().await;
        }
        assert_eq!(webhook.next().await, "last");
    }
}
