//! The monitor: where it listens, and who may see and change what.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::fields::WordList;
use super::units::{self, Wrong};

/// Where the monitor listens when nobody names an address.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8083);

/// The word for "no address is named".
const AUTO: &str = "auto";

/// Where the monitor listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MonitorAddress {
    /// No address is named: 127.0.0.1:8083, or nowhere if that address is taken.
    #[default]
    Auto,
    /// Nowhere: there is no monitor.
    Off,
    /// Here; if the address is taken, Shortstop does not start.
    At(SocketAddr),
}

impl MonitorAddress {
    /// The address; none: there is no monitor.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            MonitorAddress::Auto => Some(USUAL),
            MonitorAddress::Off => None,
            MonitorAddress::At(address) => Some(address),
        }
    }
}

impl FromStr for MonitorAddress {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == AUTO {
            return Ok(MonitorAddress::Auto);
        }
        Ok(units::optional(text, units::address)?.map_or(MonitorAddress::Off, MonitorAddress::At))
    }
}

impl fmt::Display for MonitorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MonitorAddress::Auto => f.write_str(AUTO),
            MonitorAddress::Off => Ok(()),
            MonitorAddress::At(address) => write!(f, "{address}"),
        }
    }
}

/// What the monitor asks the token for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MonitorAuth {
    /// Whatever changes something.
    #[default]
    Changes,
    /// Reading, too; only `/livez` and `/readyz` are free.
    All,
}

impl FromStr for MonitorAuth {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text {
            "changes" => Ok(MonitorAuth::Changes),
            "all" => Ok(MonitorAuth::All),
            _ => Err(Wrong::not(text, "changes or all", "one of these two words")),
        }
    }
}

impl fmt::Display for MonitorAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MonitorAuth::Changes => "changes",
            MonitorAuth::All => "all",
        })
    }
}

const HOSTS_REMEDY: &str = "host names without scheme and port, for example [shortstop.internal]";

/// Names of the monitor's machine, as in the address line of a browser.
pub(super) const HOSTS: WordList<Vec<String>> = WordList {
    word: |text| if text.is_empty() { Ok(Vec::new()) } else { host(text).map(|name| vec![name]) },
    empty: Vec::new,
    add: |hosts, text| {
        hosts.push(host(text)?);
        Ok(())
    },
    show: |hosts| Err(hosts.clone()),
    remedy: HOSTS_REMEDY,
};

fn host(text: &str) -> Result<String, Wrong> {
    let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if is_name { Ok(text.to_ascii_lowercase()) } else { Err(Wrong::not(text, "a host name", HOSTS_REMEDY)) }
}

#[cfg(test)]
mod tests {
    use super::{MonitorAddress, USUAL};
    use crate::config::Config;

    #[test]
    fn hosts_are_names_without_scheme_and_port() {
        let hosts =
            |text: &str| Config::from_yaml(&format!("monitor_hosts: {text}")).map(|config| config.monitor_hosts);
        let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(hosts("[]"), names(&[]));
        assert_eq!(hosts("''"), names(&[]));
        assert_eq!(hosts("Cache.Internal"), names(&["cache.internal"]));
        assert_eq!(hosts("[a, b.c]"), names(&["a", "b.c"]));
        for wrong in ["['']", "'a:80'", "'http://a'", "['*']", "[[a]]", "{ a: b }"] {
            let error = hosts(wrong).expect_err(wrong).to_string();
            assert!(error.contains("monitor_hosts"), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_address_is_named_or_usual_or_there_is_none() {
        for (text, address) in [("127.0.0.1:9", "127.0.0.1:9".parse().ok()), ("", None), ("auto", Some(USUAL))] {
            let monitor: MonitorAddress = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((monitor.address(), monitor.to_string().as_str()), (address, text));
        }
        assert_ne!(USUAL.to_string().parse(), Ok(MonitorAddress::Auto), "it was named");
    }
}
