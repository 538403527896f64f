//! PROXY ALERTS: the thresholds, what fires and what fired; and the alert as JSON that is published.

use std::sync::Arc;

use crate::alerts::Alert;
use crate::bus::connection_name;
use crate::config::{Config, Finding};

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

/// PROXY ALERTS [SET name value].
pub(super) fn alerts(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    match asked.words {
        [] => Answer::View(admin.alerts_view()),
        [set, name, value] if set.eq_ignore_ascii_case(b"set") => {
            let (name, value) =
                (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned());
            let admin = Arc::clone(admin);
            Answer::Later(Box::pin(async move {
                let set = admin.set_thresholds(vec![(name, value)]).await;
                set.map(|()| View::Ok).map_err(|why| format!("ERR {why}"))
            }))
        }
        _ => Answer::Error("ERR PROXY ALERTS takes nothing, or SET, the name of a threshold, and its value".to_owned()),
    }
}

impl Admin {
    /// The thresholds, the alerts that fire, and the last ones that fired, the newest first.
    pub fn alerts_view(&self) -> View {
        let thresholds = self.config.get().alerts.thresholds();
        let thresholds = thresholds.map(|(name, value)| (name, View::Float(value)));
        View::Map(vec![
            ("thresholds", View::Map(thresholds.into())),
            ("firing", View::List(self.alerts.firing().iter().map(view).collect())),
            ("past", View::List(self.alerts.past().iter().map(view).collect())),
        ])
    }

    /// The alerts that fire, then the last ones that fired.
    pub(super) fn recent_alerts(&self) -> View {
        self.recent_alerts_since(0)
    }

    /// The same, without those that had cleared before `from`.
    pub(super) fn recent_alerts_since(&self, from: u64) -> View {
        let all = self.alerts.firing().into_iter().chain(self.alerts.past());
        View::List(
            all.filter(|alert| alert.cleared.is_none_or(|cleared| cleared >= from)).map(|alert| view(&alert)).collect(),
        )
    }

    /// Sets thresholds by their names, all or none. They hold until the configuration is read again.
    ///
    /// # Errors
    /// What is wrong with one of them.
    ///
    /// # Cancel safety
    /// They are set, too, if nobody waits for the answer.
    pub async fn set_thresholds(&self, values: Vec<(String, String)>) -> Result<(), String> {
        let set = move |config: &mut Config| {
            let mut values = values.iter();
            values.try_for_each(|(name, value)| {
                Ok(config.alerts.set(name, value).map_err(|wrong| Finding::new(name, wrong))?)
            })
        };
        self.change(set).await.map(drop)
    }

    /// An alert as it is published, in JSON: with the instance and the fleet.
    pub fn alert_notice(&self, alert: &Alert) -> String {
        let config = self.config.get();
        let View::Map(mut fields) = view(alert) else { return String::new() };
        fields.push(("instance", View::Text(connection_name(&config.fleet, self.incarnation))));
        fields.push(("fleet", View::Text(config.fleet.clone())));
        serde_json::to_string(&View::Map(fields)).unwrap_or_default()
    }
}

fn view(alert: &Alert) -> View {
    let ends = alert.cleared.unwrap_or_else(crate::history::unix_time);
    View::Map(vec![
        ("alert", View::text(alert.name)),
        ("state", View::text(if alert.cleared.is_some() { "cleared" } else { "firing" })),
        ("text", View::text(alert.text)),
        ("value", View::maybe(alert.value, View::Float)),
        ("threshold", View::maybe(alert.limit, View::Float)),
        ("since", View::count(alert.since)),
        ("cleared", View::maybe(alert.cleared, View::count)),
        ("duration_seconds", View::count(ends.saturating_sub(alert.since))),
    ])
}
