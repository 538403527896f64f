//! The bus: tells the other Shortstops of a fleet over NATS which keys were written, and applies what they tell.
//!
//! One binary subject per fleet carries everything that must be in order (`docs/coherence.md`); a JSON subject speaks
//! to services that are not proxies. The bus sees the cache through [`Sink`] alone, and it must never make a worker wait.
//!
//! | file | |
//! | --- | --- |
//! | `event`, `settings` | what goes in and out |
//! | `message`, `json` | codecs |
//! | `outbox` | the queue from the workers |
//! | `peers` | which peers there are, and what may be served: a state machine without I/O |
//! | `watch` | what the bus and the part that asks Redis tell each other |
//! | `connect`, `client` | set-up and use of the NATS client |
//! | `publisher`, `receiver`, `services` | the tasks |
//! | `nats` | starts and ends the tasks |

mod client;
mod connect;
mod event;
mod json;
mod log_limit;
mod message;
mod nats;
mod outbox;
mod peers;
mod publisher;
mod receiver;
mod services;
mod settings;
mod watch;

pub use connect::{BusError, check_credentials};
pub use event::{Batch, Event, Key, Sink};
pub use nats::{Bus, start};
pub use outbox::Outbox;
pub use settings::{DEFAULT_QUEUE, Settings, connection_name, incarnation_of, random_incarnation};
pub use watch::{Instance, PeerWatch};
