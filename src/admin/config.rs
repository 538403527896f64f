//! PROXY CONFIG: the settings in force, and changes to them while Shortstop runs.

use std::sync::{Arc, Weak};

use crate::config::{Config, ConfigError, RewriteError, Waiting};
use crate::glob::Glob;

use super::Admin;
use super::answer::{Answer, Asked};
use super::key_state::PATIENCE;
use super::view::View;

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
    Secret(String),
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

/// PROXY CONFIG GET | SET | REWRITE | RELOAD.
pub(super) fn config(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let admin = Arc::clone(admin);
    let text = |word: &&[u8]| String::from_utf8_lossy(word).into_owned();
    match (asked.words[0].to_ascii_lowercase().as_slice(), &asked.words[1..]) {
        (b"get", patterns @ [_, ..]) => Answer::View(admin.settings_view(patterns)),
        (b"set", pairs @ [_, ..]) if pairs.len().is_multiple_of(2) => {
            let pairs = pairs.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
            Answer::Later(Box::pin(async move { admin.set(pairs).await.map_err(|why| format!("ERR {why}")) }))
        }
        (b"reload", []) => {
            Answer::Later(Box::pin(async move { admin.reload().await.map_err(|why| format!("ERR {why}")) }))
        }
        (b"rewrite", []) => {
            Answer::Later(Box::pin(async move { admin.rewrite().await.map_err(|why| format!("ERR {why}")) }))
        }
        _ => Answer::Error(
            "ERR PROXY CONFIG takes GET and patterns, SET and keys with their values, REWRITE, or RELOAD".to_owned(),
        ),
    }
}

impl Admin {
    /// The settings in force whose keys match one of the patterns, without secrets. None given: all.
    pub fn settings_view(&self, patterns: &[&[u8]]) -> View {
        // `rules[0].match` names itself, though its brackets are a part of a pattern.
        let is_meant = |key: &[u8], pattern: &[u8]| pattern == key || Glob::new(pattern).matches(key);
        let is_asked =
            |key: &str| patterns.is_empty() || patterns.iter().any(|pattern| is_meant(key.as_bytes(), pattern));
        let keys = self.config.get().keys().into_iter().filter(|(key, _)| is_asked(key));
        View::Named(keys.map(|(key, value)| (key, View::Text(value))).collect())
    }

    /// Sets keys of the configuration, all or none.
    ///
    /// # Errors
    /// What is wrong with one of them.
    ///
    /// # Cancel safety
    /// They are set, too, if nobody waits for the answer.
    pub async fn set(&self, pairs: Vec<(String, String)>) -> Result<View, String> {
        let changed =
            self.change(move |config| pairs.iter().try_for_each(|(key, value)| config.set(key, value))).await?;
        Ok(view(&changed))
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// Why the old one stays.
    ///
    /// # Cancel safety
    /// It is read, too, if nobody waits for the answer.
    pub async fn reload(&self) -> Result<View, String> {
        Ok(view(&self.in_background(|settings| settings.reload()).await?))
    }

    /// Writes changed settings into the file of the configuration.
    ///
    /// # Errors
    /// Why the file is as it was.
    ///
    /// # Cancel safety
    /// They are written, too, if nobody waits for the answer.
    pub async fn rewrite(&self) -> Result<View, String> {
        let keys = self.in_background(|settings| settings.rewrite()).await?;
        Ok(View::Map(vec![("written", View::List(keys.into_iter().map(View::Text).collect()))]))
    }

    /// Changes the settings in force by a function.
    pub(super) async fn change(
        &self,
        change: impl Fn(&mut Config) -> Result<(), ConfigError> + Send + 'static,
    ) -> Result<Changed, String> {
        self.in_background(move |settings| settings.change(&change)).await
    }

    /// Does this where it may block, and waits until all workers use the settings.
    async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Settings) -> Result<T, SettingsError> + Send + 'static,
    ) -> Result<T, String> {
        let settings = self.settings.get().and_then(Weak::upgrade).ok_or(SettingsError::Stopping);
        let settings = settings.map_err(|why| why.to_string())?;
        let done = tokio::task::spawn_blocking(move || work(&*settings)).await;
        let done = done.map_err(|_| "it failed; the log says why".to_owned())?.map_err(|why| one_line(&why))?;
        self.mailboxes
            .ask_all(Some(PATIENCE), |_, answers| {
                // If the receiver is gone, nobody waits for the workers.
                let _ = answers.send(());
            })
            .await;
        Ok(done)
    }
}

/// An error of the configuration may have a line for each finding.
fn one_line(why: &SettingsError) -> String {
    why.to_string().replace('\n', "; ")
}

fn view(changed: &Changed) -> View {
    let texts = |list: &[String]| View::List(list.iter().map(View::text).collect());
    let waiting = changed
        .waiting
        .iter()
        .map(|waiting| View::Map(vec![("key", View::text(waiting.key)), ("why", View::text(waiting.why))]));
    View::Map(vec![
        ("changed", texts(&changed.keys)),
        ("l1_emptied", View::Bool(changed.l1_emptied)),
        ("waits_for_restart", View::List(waiting.collect())),
        ("warnings", texts(&changed.warnings)),
    ])
}
