//! The configuration: one struct per section, defaults, `config.yaml`, the environment.
//!
//! A flag beats the environment, the environment beats the file, and the file beats the default ([`Sources`]). Each part of
//! Shortstop receives only its own section. Nothing here is global, and the only I/O is reading the file.
//!
//! Each section lists its keys in one place (`fields`), which reading, printing and the lists of keys use. `config.yaml` explains
//! each key to users; it parses to [`Config::default`].

mod alerts;
mod body;
mod change;
mod check;
mod compression;
mod error;
mod fields;
mod fleet;
mod live;
mod loader;
mod monitor;
mod print;
mod read;
mod reads;
mod restart;
mod rewrite;
mod root;
mod scripts;
mod secret;
mod sections;
mod setting;
mod sources;
mod tls;
mod tree;
pub mod units;
mod url;
mod warn;
mod webhook;

pub use alerts::{Alerts, Ratio};
pub use body::{CacheBody, CachePatch, CompressBody, CompressPatch, Line, RuleBody, RuleSpec};
pub use compression::Compression;
pub use error::{ConfigError, Finding};
pub use fields::Switch;
pub use live::Live;
pub use loader::Loader;
pub use monitor::{MonitorAddress, MonitorAuth};
pub use print::rules_as_yaml;
pub use restart::Waiting;
pub use rewrite::RewriteError;
pub use root::Config;
pub use scripts::Scripts;
pub use secret::Secret;
pub use sections::{Bus, ClientsWithoutAuth, Coherence, L1, Limits, Log, LogFormat, Policy, SlowLog, Timeouts};
pub use setting::{CONFIG_VARIABLE, DEFAULTS_VARIABLE, Setting};
pub use sources::{Loaded, Sources};
pub use tls::{Tls, UpstreamTls};
pub use units::Memory;
pub use url::{NatsLogin, NatsUrl, Target, UpstreamUrl};
pub use webhook::WebhookUrl;

#[cfg(test)]
mod tests;
