//! PROXY CONFIG: the settings in force, and changes to them while Shortstop runs.

use std::sync::{Arc, Weak};

use crate::config::{Config, ConfigError};
use crate::glob::Glob;

use super::Admin;
use super::answer::{Answer, Asked};
use super::key_state::PATIENCE;
use super::settings::{Changed, Settings, SettingsError};
use super::view::View;

/// PROXY CONFIG GET | SET | REWRITE | RELOAD.
pub(super) fn config(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let admin = Arc::clone(admin);
    let Ok(words) = asked.words.iter().map(|word| std::str::from_utf8(word)).collect::<Result<Vec<_>, _>>() else {
        return Answer::Error("ERR settings are texts in UTF-8".to_owned());
    };
    match (words[0].to_ascii_lowercase().as_str(), &words[1..]) {
        ("get", [_, ..]) => Answer::View(admin.settings_view(&asked.words[1..])),
        ("set", pairs @ [_, ..]) if pairs.len().is_multiple_of(2) => {
            let pairs = pairs.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect();
            Answer::Later(Box::pin(async move { admin.set(pairs).await.map_err(|why| format!("ERR {why}")) }))
        }
        ("reload", []) => {
            Answer::Later(Box::pin(async move { admin.reload().await.map_err(|why| format!("ERR {why}")) }))
        }
        ("rewrite", []) => {
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
