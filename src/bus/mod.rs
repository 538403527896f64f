//! The bus: publishes to the other Shortstops of a fleet over NATS which keys were written, and applies what they publish.
//!
//! One binary subject per fleet carries everything that must be in order (`docs/coherence.md`). A JSON subject serves services that
//! are not Shortstops. The bus reaches the cache only through [`Sink`], and must never make a worker wait.
//!
//! | file | |
//! | --- | --- |
//! | `event`, `settings` | the interface |
//! | `message`, `json` | codecs |
//! | `outbox` | the queue from the workers |
//! | `peers` | the known peers, and whether the bus is in doubt: a state machine without I/O |
//! | `watch` | the state shared between the bus and the task that asks Redis |
//! | `connect`, `client` | set-up and use of the NATS client |
//! | `publisher`, `receiver`, `services`, `notices`, `status`, `updates` | the tasks |
//! | `nats` | starts and ends the tasks |

mod client;
mod connect;
mod event;
mod json;
mod log_limit;
mod message;
mod nats;
mod notices;
mod outbox;
mod peers;
mod publisher;
mod receiver;
mod services;
mod settings;
mod status;
mod updates;
mod watch;

pub use connect::{BusError, check_credentials};
pub use event::{Batch, Event, Key, MAX_GLOB, Sink};
pub use nats::{Bus, start};
pub use notices::Notice;
pub use outbox::Outbox;
pub use settings::{DEFAULT_QUEUE, Settings, connection_name, incarnation_of, random_incarnation};
pub use updates::{Update, Updates};
pub use watch::{Instance, PeerWatch};
