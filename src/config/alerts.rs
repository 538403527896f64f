//! The alerts: their thresholds, and where they are published.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::fields::{Fields, Section};
use super::secret::Secret;
use super::units::{self, OPTIONAL_SECRET, OPTIONAL_TEXT, TIME, Wrong, optional_parsed, parsed};
use super::webhook::WebhookUrl;

/// A part of a whole, from 0 to 1, in millionths. Typed as `0.8` or `80%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(u32);

const WHOLE: f64 = 1e6;

impl Ratio {
    /// So many hundredths.
    pub const fn percent(percent: u8) -> Ratio {
        Ratio(percent as u32 * 10_000)
    }

    /// As a number from 0 to 1.
    pub fn get(self) -> f64 {
        f64::from(self.0) / WHOLE
    }
}

impl FromStr for Ratio {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Ratio, Wrong> {
        let (digits, whole) = text.trim().strip_suffix('%').map_or((text.trim(), 1.0), |digits| (digits.trim(), 100.0));
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let ratio = digits.parse::<f64>().ok().filter(|_| is_plain).map(|number| number / whole);
        match ratio.filter(|ratio| (0.0..=1.0).contains(ratio)) {
            Some(ratio) => Ok(Ratio((ratio * WHOLE).round() as u32)),
            None => {
                Err(Wrong::not(text, "a part of a whole", "a number from 0 to 1, or from 0% to 100%, for example 80%"))
            }
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 1e4)
    }
}

/// Thresholds of alerts, and where alerts are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// The NATS subject. `None`: they are not published.
    pub subject: Option<String>,
    /// The address to which they are posted. `None`: they are not posted.
    pub webhook: Option<WebhookUrl>,
    /// Shown to that address.
    pub webhook_token: Option<Secret>,
    /// Lowest hit rate of L1.
    pub hit_rate_min: Ratio,
    /// Longest time within which 99 of 100 reads must be answered.
    pub response_time_max: Duration,
    /// Largest part of the available memory that the process may take.
    pub memory_usage_max: Ratio,
    /// Largest part of requests that may fail because of Redis or Shortstop.
    pub error_rate_max: Ratio,
    /// Largest part of `limits.buffers_total` that may be in use.
    pub buffers_usage_max: Ratio,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            subject: Some("cache.alerts".to_owned()),
            webhook: None,
            webhook_token: None,
            hit_rate_min: Ratio::percent(70),
            response_time_max: Duration::from_millis(100),
            memory_usage_max: Ratio::percent(80),
            error_rate_max: Ratio::percent(5),
            buffers_usage_max: Ratio::percent(80),
        }
    }
}

impl Alerts {
    /// The thresholds by their names. A time is in seconds.
    pub fn thresholds(&self) -> [(&'static str, f64); 5] {
        [
            ("hit_rate_min", self.hit_rate_min.get()),
            ("response_time_max", self.response_time_max.as_secs_f64()),
            ("memory_usage_max", self.memory_usage_max.get()),
            ("error_rate_max", self.error_rate_max.get()),
            ("buffers_usage_max", self.buffers_usage_max.get()),
        ]
    }

    /// Sets a threshold by its name. A time may also be a number of seconds.
    ///
    /// # Errors
    /// There is no such threshold, or the value is none.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        let seconds = |text: &str| text.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
        match name.to_ascii_lowercase().as_str() {
            "hit_rate_min" => self.hit_rate_min = value.parse()?,
            "response_time_max" => {
                self.response_time_max = seconds(value).map_or_else(|| units::time(value), Ok)?;
            }
            "memory_usage_max" => self.memory_usage_max = value.parse()?,
            "error_rate_max" => self.error_rate_max = value.parse()?,
            "buffers_usage_max" => self.buffers_usage_max = value.parse()?,
            _ => {
                let names = self.thresholds().map(|(name, _)| name).join(", ");
                return Err(Wrong::not(name, "a threshold", &format!("one of {names}")));
            }
        }
        Ok(())
    }
}

impl Section for Alerts {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self {
            subject,
            webhook,
            webhook_token,
            hit_rate_min,
            response_time_max,
            memory_usage_max,
            error_rate_max,
            buffers_usage_max,
        } = self;
        fields.value("subject", subject, OPTIONAL_TEXT);
        fields.value("webhook", webhook, optional_parsed());
        fields.value("webhook_token", webhook_token, OPTIONAL_SECRET);
        fields.value("hit_rate_min", hit_rate_min, parsed());
        fields.value("response_time_max", response_time_max, TIME);
        fields.value("memory_usage_max", memory_usage_max, parsed());
        fields.value("error_rate_max", error_rate_max, parsed());
        fields.value("buffers_usage_max", buffers_usage_max, parsed());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Alerts, Ratio};

    #[test]
    fn a_ratio_is_typed_in_two_ways() {
        for (text, ratio) in
            [("0.7", Some(0.7)), ("70%", Some(0.7)), ("1", Some(1.0)), ("0", Some(0.0)), ("12.5 %", Some(0.125))]
        {
            assert_eq!(text.parse::<Ratio>().ok().map(Ratio::get), ratio, "{text}");
        }
        for text in ["", "%", "70", "101%", "-1%", "nan", "1e-3", "inf"] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
        assert_eq!(Ratio::percent(80).to_string(), "80%");
        assert_eq!("0.125".parse::<Ratio>().map(|ratio| ratio.to_string()), Ok("12.5%".to_owned()));
    }

    #[test]
    fn thresholds_are_set_by_name() {
        let mut alerts = Alerts::default();
        for (name, value) in [("HIT_RATE_MIN", "0.8"), ("response_time_max", "0.05"), ("memory_usage_max", "70%")] {
            alerts.set(name, value).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        }
        assert_eq!((alerts.hit_rate_min.get(), alerts.memory_usage_max.get()), (0.8, 0.7));
        assert_eq!(alerts.response_time_max, Duration::from_millis(50));
        alerts.set("response_time_max", "20ms").expect("a time");
        assert_eq!(alerts.response_time_max, Duration::from_millis(20));
        assert!(alerts.set("response_time_max", "-1").is_err() && alerts.set("hit_rate", "1").is_err());
    }
}
