//! Where the configuration is read from at the start, and again at each reload: a file of defaults, the file, the environment, the flags.

use std::path::{Path, PathBuf};

use super::error::{ConfigError, Finding};
use super::setting::Setting;
use super::sources::{Loaded, Sources};
use super::{CONFIG_VARIABLE, Config, DEFAULTS_VARIABLE};

/// The places of the configuration. Each call reads them anew.
#[derive(Clone, Debug)]
pub struct Loader {
    /// The file that was named by a flag. If there is none, `SHORTSTOP_CONFIG` may name one.
    pub file: Option<PathBuf>,
    /// What flags set: the setting, its value, and the flag for messages.
    pub flags: Vec<(Setting, String, &'static str)>,
    /// Reads the environment.
    pub env: fn(&str) -> Option<String>,
}

/// The file that is read if nobody names one, and if it is there and belongs to Shortstop.
const BESIDE: &str = "config.yaml";

impl Loader {
    /// The configuration, and the file that was read. `look` checks the files that the configuration refers to.
    ///
    /// # Errors
    /// All errors, each with its place and what to type.
    pub fn load(&self, look: impl FnOnce(&Config) -> Vec<Finding>) -> Result<(Loaded, Option<PathBuf>), ConfigError> {
        let (sources, file) = self.sources(None);
        Ok((sources.done(look)?, file))
    }

    /// The configuration if the file had this text.
    pub(super) fn load_text(
        &self,
        text: &str,
        look: impl FnOnce(&Config) -> Vec<Finding>,
    ) -> Result<Loaded, ConfigError> {
        self.sources(Some(text)).0.done(look)
    }

    fn sources(&self, text: Option<&str>) -> (Sources, Option<PathBuf>) {
        let path = |name| (self.env)(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut sources = Sources::default();
        if let Some(defaults) = path(DEFAULTS_VARIABLE) {
            sources.add_file(&defaults);
        }
        let named = self.file.clone().or_else(|| path(CONFIG_VARIABLE));
        let beside = Path::new(BESIDE);
        let file = match (named, text) {
            (named, Some(text)) => {
                sources.add_text(text, named.as_deref().unwrap_or(beside));
                named
            }
            (Some(file), None) => {
                sources.add_file(&file);
                Some(file)
            }
            (None, None) => (beside.exists() && sources.add_file_beside(beside)).then(|| beside.to_owned()),
        };
        sources.add_env(self.env);
        for (setting, value, flag) in &self.flags {
            sources.set(*setting, value, flag);
        }
        (sources, file)
    }
}
