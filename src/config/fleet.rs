//! The settings that should be the same in all instances of a fleet. Others may differ: addresses, secrets, sizes that follow the machine.

use super::Config;
use super::print::values;

/// Keys, and sections with all of their keys.
const SHARED: &[&str] = &[
    "clients_without_auth",
    "redact_keys",
    "coherence",
    "max_staleness",
    "degraded_staleness",
    "l1.enabled",
    "bus.json",
    "bus.json_subject",
    "bus.update_subject",
    "limits.max_inflated",
    "compression",
    "scripts",
    "defaults",
    "rules",
];

impl Config {
    /// The paths and values of the settings that should be the same in all instances of a fleet.
    pub fn fleet_settings(&self) -> Vec<(String, String)> {
        let is_below = |path: &str, shared: &str| {
            path.strip_prefix(shared).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let mut all = values(&mut self.clone());
        all.retain(|(path, _)| SHARED.iter().any(|shared| is_below(path, shared)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::SHARED;
    use crate::config::Config;
    use crate::config::fields::keys;

    #[test]
    fn each_of_them_is_a_key() {
        let all = keys(&mut Config::default());
        for shared in SHARED {
            assert!(all.iter().any(|key| key == shared), "{shared}");
        }
    }
}
