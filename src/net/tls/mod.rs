//! TLS set-up: what rustls wants, for the clients' side and for Redis's, from the files that the configuration names.
//!
//! One crypto provider, ring, for all of the process: async-nats is built with the same. It is handed to each configuration, and
//! nothing is installed for the whole process.

mod client;
mod pem;
mod server;

pub use client::{Client, NO_TLS, explain};
pub use server::Server;

#[cfg(test)]
mod tests {
    /// Two providers would make async-nats panic when it chooses one, and would be two implementations to keep up with.
    #[test]
    fn ring_is_the_only_crypto_provider() {
        let packages = include_str!("../../../Cargo.lock");
        for other in ["aws-lc-rs", "openssl-sys", "boring-sys"] {
            assert!(!packages.contains(&format!("name = \"{other}\"")), "{other}");
        }
    }
}
