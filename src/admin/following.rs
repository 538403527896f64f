//! What the workers note of the keys that pass, put together: the curve of hit rates, and what compression would save.

use std::sync::Arc;

use crate::config::Config;
use crate::rules::Rules;
use crate::traffic::{Batch, Curve, Savings, Trial};

/// What is known so far.
pub struct Following {
    /// Which size of L1 gives which hit rate.
    pub(super) curve: Curve,
    /// What compression would save where it is only observed.
    pub(super) savings: Savings,
    /// The configuration under which this was found out.
    config: Arc<Config>,
}

impl Following {
    /// Nothing is known.
    pub fn new(config: Arc<Config>) -> Self {
        let mut curve = Curve::new(&config.l1);
        curve.rules_change(ttls(&config));
        Following { curve, savings: Savings::default(), config }
    }

    /// Takes what has happened in the last second.
    pub(super) fn take(&mut self, config: Arc<Config>, batch: Batch, trials: Vec<Trial>) {
        if !Arc::ptr_eq(&config, &self.config) {
            self.curve.configure(&config.l1);
            self.curve.rules_change(ttls(&config));
            self.savings = Savings::default();
            self.config = config;
        }
        self.curve.take(batch);
        self.savings.add(trials);
    }
}

/// The lives that the `ttl` of a rule gives entries, by the numbers of the rules' places.
fn ttls(config: &Config) -> Vec<u32> {
    let mut all = vec![0; 256];
    for rule in Rules::compile(config).all() {
        let cache = rule.cache.or(rule.observe.and_then(|observe| observe.cache));
        if let Some(ttl) = cache.map(|cache| cache.ttl).filter(|ttl| *ttl < config.max_staleness) {
            all[rule.place.number()] = u32::try_from(ttl.as_millis()).unwrap_or(0);
        }
    }
    all
}
