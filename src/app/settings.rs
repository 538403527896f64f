//! The settings in force, and what changes them while Shortstop runs: CONFIG SET, a reload, a reload after a signal. One change at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::admin::settings::{Changed, Settings, SettingsError};
use crate::bus;
use crate::config::{Config, ConfigError, Finding, Live, Loader, Timeouts};
use crate::listeners;
use crate::machine;
use crate::metrics::outcome::EventKind;
use crate::monitor;
use crate::net::tls;
use crate::upstream::{self, Dialer};
use crate::worker_state::context::{Shared, WorkerTask};
use crate::worker_state::policy::Policy;

/// Checks the files that a configuration refers to.
pub fn check_files(config: &Config) -> Vec<Finding> {
    let credentials = config.bus.credentials.as_deref().map(bus::check_credentials);
    let credentials = credentials.and_then(Result::err).map(|error| Finding::new("bus.credentials", error));
    let server = listeners::server(&config.tls).err();
    [server, upstream::check_files(config), credentials, monitor::check_files(config)].into_iter().flatten().collect()
}

/// What the settings come from, and what depends on them outside of [`super::App`].
pub struct Surroundings {
    /// Reads the configuration. `None`: it cannot be read again.
    pub loader: Option<Loader>,
    /// Changes `log.level`.
    pub set_log_level: Box<dyn Fn(&str) + Send + Sync>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Surroundings { loader: None, set_log_level: Box::new(|_| ()) }
    }
}

/// The settings in force.
pub(super) struct RunningSettings {
    pub(super) surroundings: Surroundings,
    pub(super) shared: Arc<Shared>,
    pub(super) dialer: Arc<Dialer>,
    /// The certificate for TLS clients, if there are any.
    pub(super) server: Option<watch::Sender<tls::Server>>,
    pub(super) client_limit: watch::Sender<usize>,
    pub(super) config: Live<Arc<Config>>,
    pub(super) timeouts: Live<Timeouts>,
    /// Held during a change.
    pub(super) changing: Mutex<()>,
}

impl RunningSettings {
    fn lock(&self) -> MutexGuard<'_, ()> {
        // Nothing is half done that the next change does not do as a whole.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses another configuration from now on, except for what waits for a restart. Workers use it from their next task on. Existing
    /// connections keep the certificates with which they began. L1 starts again, empty, if what it has may not be served any more.
    fn replace(&self, new: &Config) -> Result<Changed, ConfigError> {
        new.check()?;
        let old = self.config.get();
        let (config, waiting) = old.reloaded(new);
        let empties = old.empties_l1(&config);
        // Steps that can fail come first.
        let server = listeners::server(&config.tls)?;
        self.dialer.reload(&config.upstream_tls)?;
        if let (Some(known), Some(server)) = (&self.server, server) {
            known.send_replace(server);
        }
        self.timeouts.set(config.timeouts);
        self.shared.coherence.configure(&old, &config, empties);
        let policy = new_policy(&config, &self.shared);
        // Takes effect for messages of peers at once. If L1 is emptied, each worker does so again when it gets the new policy.
        self.shared.scripts.set_trusted(config.scripts.are_trusted());
        self.shared.stats.rules_change(policy.rules.patterns());
        for mailbox in self.shared.mailboxes.all() {
            let policy = Arc::clone(&policy);
            mailbox(WorkerTask::new(move |context| context.set_policy(policy, empties)));
        }
        self.client_limit.send_replace(config.limits.max_clients);
        (self.surroundings.set_log_level)(&config.log.level);
        let changed = old.changed(&config);
        self.config.set(Arc::new(config));
        Ok(Changed { keys: changed, l1_emptied: empties, waiting, warnings: Vec::new() })
    }

    fn note(&self, kind: EventKind, changed: &[String]) {
        let changed = if changed.is_empty() { "nothing has changed".to_owned() } else { changed.join(", ") };
        self.shared.stats.shared.journal.note(kind, changed);
    }

    /// See [`super::App::reload_from`].
    pub(super) fn reload_from(&self, config: &Config) -> Result<Changed, ConfigError> {
        let _one_at_a_time = self.lock();
        self.reloaded(Ok(config))
    }

    /// Uses a configuration that was read again, if it could be read.
    fn reloaded(&self, config: Result<&Config, ConfigError>) -> Result<Changed, ConfigError> {
        let reloaded = config.and_then(|config| self.replace(config));
        match &reloaded {
            Ok(changed) => self.note(EventKind::Reloaded, &changed.keys),
            Err(error) => self.shared.stats.shared.journal.note(EventKind::ReloadRefused, error),
        }
        reloaded
    }

    fn reread(&self) -> Result<Changed, SettingsError> {
        let loader = self.surroundings.loader.as_ref().ok_or(SettingsError::NotFromFiles)?;
        let loaded = loader.load(check_files).map(|(loaded, _)| loaded);
        let mut changed = self.reloaded(loaded.as_ref().map(|loaded| &loaded.config).map_err(Clone::clone))?;
        let warnings = loaded.iter().flat_map(|loaded| &loaded.warnings);
        changed.warnings = warnings.map(ToString::to_string).collect();
        Ok(changed)
    }
}

impl Settings for RunningSettings {
    fn change(&self, change: &dyn Fn(&mut Config) -> Result<(), ConfigError>) -> Result<Changed, SettingsError> {
        let _one_at_a_time = self.lock();
        let old = self.config.get();
        let mut new = Config::clone(&old);
        change(&mut new)?;
        new.check()?;
        let (_, waiting) = old.reloaded(&new);
        if let Some(waiting) = waiting.into_iter().next() {
            return Err(SettingsError::Waits(waiting));
        }
        if let Some(secret) = old.changed_secret(&new) {
            return Err(SettingsError::Secret(secret));
        }
        let wrong = check_files(&new);
        if let Some(finding) = wrong.into_iter().next() {
            return Err(SettingsError::Refused(finding.into()));
        }
        let changed = self.replace(&new)?;
        self.note(EventKind::Configured, &changed.keys);
        tracing::info!(
            changed = changed.keys.join(", "),
            "settings were changed; they hold until the configuration is read again"
        );
        Ok(changed)
    }

    fn reload(&self) -> Result<Changed, SettingsError> {
        let _one_at_a_time = self.lock();
        let reloaded = self.reread();
        match &reloaded {
            Ok(changed) => {
                changed.warnings.iter().for_each(|warning| tracing::warn!("in the configuration: {warning}"));
                for waiting in &changed.waiting {
                    let (key, why) = (waiting.key, waiting.why);
                    tracing::warn!(key, why, "this setting has changed, but takes effect only after a restart");
                }
                tracing::info!("the configuration is reloaded");
            }
            Err(SettingsError::Refused(error)) => {
                for finding in error.findings() {
                    tracing::error!("the configuration is refused, and the old one stays: {finding}");
                }
            }
            Err(error) => tracing::error!("the configuration is not read again: {error}"),
        }
        reloaded
    }

    fn rewrite(&self) -> Result<Vec<String>, SettingsError> {
        let _one_at_a_time = self.lock();
        let loader = self.surroundings.loader.as_ref().ok_or(SettingsError::NotFromFiles)?;
        let keys = loader.rewrite(&self.config.get(), check_files)?;
        tracing::info!(keys = keys.join(", "), "changed settings were written into the file of the configuration");
        Ok(keys)
    }
}

/// The policy of a configuration. Sets the bound of all buffers, which depends on the machine's memory.
pub(super) fn new_policy(config: &Config, shared: &Shared) -> Arc<Policy> {
    let compressed_met = Arc::clone(&shared.stats.shared.compressed_while_off);
    let policy = Policy::new(config, machine::memory(), compressed_met);
    shared.buffers.set_max(policy.buffers_total);
    Arc::new(policy)
}
