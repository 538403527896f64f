//! What `app` does for those who change settings while Shortstop runs.

use crate::config::{Config, ConfigError, RewriteError, Waiting};

/// Changes the settings in force. Its calls read and write files, so they may block.
pub trait Settings: Send + Sync {
    /// Changes the settings by a function, for as long as the configuration is not read again. All changes take effect or none.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn change(&self, change: &dyn Fn(&mut Config) -> Result<(), ConfigError>) -> Result<Changed, SettingsError>;

    /// Reads the configuration again.
    ///
    /// # Errors
    /// Why the old one stays.
    fn reload(&self) -> Result<Changed, SettingsError>;

    /// Writes changed settings into the file of the configuration. Returns their keys.
    ///
    /// # Errors
    /// Why the file is as it was.
    fn rewrite(&self) -> Result<Vec<String>, SettingsError>;
}

/// What a change has done.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// Each key that has changed, with its former and its new value.
    pub keys: Vec<String>,
    /// L1 has started again, empty.
    pub l1_emptied: bool,
    /// What waits for a restart.
    pub waiting: Vec<Waiting>,
    /// What the user probably did not mean.
    pub warnings: Vec<String>,
}

/// Why settings were not changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The new configuration is refused.
    #[error("{0}")]
    Refused(#[from] ConfigError),
    /// A setting does not change while Shortstop runs.
    #[error("{} takes effect only at a restart ({}): change it in the file", .0.key, .0.why)]
    Waits(Waiting),
    /// A secret would be shown on its way here.
    #[error("{0} is a secret: change it in the file, and read the file again")]
    Secret(&'static str),
    /// It was started with a configuration that has no place.
    #[error("the configuration comes from no file, so it cannot be read again or written")]
    NotFromFiles,
    /// The file was not written.
    #[error("{0}")]
    Rewrite(#[from] RewriteError),
    /// Shortstop shuts down.
    #[error("Shortstop shuts down")]
    Stopping,
}
