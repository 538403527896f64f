//! TLS set-up: builds the rustls configurations for clients and for Redis from the configured files.
//!
//! The whole process uses one crypto provider, ring; async-nats is built with it too. It is passed to each configuration, and no
//! process-wide default is installed.

mod client;
mod pem;
mod server;

pub use client::{Client, NO_TLS, explain};
pub use server::Server;

#[cfg(test)]
mod tests {
    /// With two providers async-nats would panic when it chooses one, and there would be two implementations to keep up to date.
    #[test]
    fn ring_is_the_only_crypto_provider() {
        let packages = include_str!("../../../Cargo.lock");
        for other in ["aws-lc-rs", "openssl-sys", "boring-sys"] {
            assert!(!packages.contains(&format!("name = \"{other}\"")), "{other}");
        }
    }
}
