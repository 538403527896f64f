//! The subcommands of PROXY, one row each: HELP, the check of arguments, and who may use one all go by this table. The monitor serves the
//! same rows as JSON.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::command::ProxySubcommand;
use crate::resp::build;
use crate::worker_state::windows::{Access, Asker, ProxyAnswer};

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

/// One subcommand of PROXY.
pub struct Subcommand {
    /// Which one it is.
    pub subcommand: ProxySubcommand,
    /// What its arguments are, for HELP.
    pub arguments: &'static str,
    /// What it does, for HELP, line by line.
    pub help: &'static [&'static str],
    /// How many words it takes behind its name.
    pub takes: RangeInclusive<usize>,
    /// Who may use it.
    pub access: Access,
    /// How it is answered.
    pub run: fn(&Arc<Admin>, Asked<'_>) -> Answer,
}

/// All of them, in HELP's order.
pub const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        subcommand: ProxySubcommand::Info,
        arguments: "[section ...]",
        help: &[
            "Show the state of this Shortstop: Proxy, ProxyClients, L1, Compression, Invalidation, Upstream, Coherence,",
            "Latency. INFO shows the same sections after those of Redis.",
        ],
        takes: 0..=usize::MAX,
        access: Access::Clients,
        run: super::info::info,
    },
    Subcommand {
        subcommand: ProxySubcommand::Alerts,
        arguments: "[SET name value]",
        help: &[
            "Show the alerts that fire, those that fired, and the thresholds. SET changes a threshold until the configuration",
            "is read again, and is for users who may CONFIG SET.",
        ],
        takes: 0..=3,
        access: Access::Clients,
        run: super::alerts::alerts,
    },
    Subcommand {
        subcommand: ProxySubcommand::Fleet,
        arguments: "",
        help: &[
            "Show all instances of the fleet that are heard on NATS: mode, hit rate, load, memory, delays, alerts; all of them",
            "together; and in which settings they differ.",
        ],
        takes: 0..=0,
        access: Access::Clients,
        run: super::fleet::fleet,
    },
    Subcommand {
        subcommand: ProxySubcommand::Report,
        arguments: "[hours]",
        help: &[
            "Show the last hours (24 if not given, at most 168): hit rate, latency, memory, commands, clients: current, at the",
            "beginning (REPORT 1: an hour ago), on average, best and worst; and what was saved.",
        ],
        takes: 0..=1,
        access: Access::Clients,
        run: super::report::report,
    },
    Subcommand {
        subcommand: ProxySubcommand::Advice,
        arguments: "",
        help: &[
            "Show which size of L1 gives which hit rate, and what should be changed, by what was measured, with the lines for",
            "config.yaml.",
        ],
        takes: 0..=0,
        access: Access::Configurers,
        run: super::advice::advice,
    },
    Subcommand {
        subcommand: ProxySubcommand::HotKeys,
        arguments: "[n]",
        help: &[
            "Show the n (10) keys that were requested most in the last seconds: requests and hits per second, share of all",
            "requests, of bytes and of upstream time, rule, size, and whether L1 answers a GET or why not.",
        ],
        takes: 0..=1,
        access: Access::Configurers,
        run: super::traffic::hot_keys,
    },
    Subcommand {
        subcommand: ProxySubcommand::BigKeys,
        arguments: "[n]",
        help: &[
            "Show the n (10) largest values that have passed since the start, read or written. Nothing is scanned.",
        ],
        takes: 0..=1,
        access: Access::Configurers,
        run: super::traffic::big_keys,
    },
    Subcommand {
        subcommand: ProxySubcommand::Rules,
        arguments: "",
        help: &[
            "Show the rules of the configuration and the defaults, and what was counted for each: requests, hits, misses,",
            "writes, and bytes saved by compression.",
        ],
        takes: 0..=0,
        access: Access::Clients,
        run: super::rules::rules,
    },
    Subcommand {
        subcommand: ProxySubcommand::Events,
        arguments: "[count]",
        help: &[
            "Show the last changes of state, the newest first (default: 20 of them): when, what, why, and how long the",
            "former state lasted.",
        ],
        takes: 0..=1,
        access: Access::Clients,
        run: super::events::events,
    },
    Subcommand {
        subcommand: ProxySubcommand::SlowLog,
        arguments: "[GET] [count] | LEN | RESET",
        help: &[
            "GET: show the last requests to Redis that took long (default: 10 of them; -1: all): id, time, microseconds,",
            "call, client's address and name, microseconds at Redis, microseconds here. LEN: how many are kept. RESET:",
            "forget them.",
        ],
        takes: 0..=2,
        access: Access::Configurers,
        run: super::slow_log::slow_log,
    },
    Subcommand {
        subcommand: ProxySubcommand::Stats,
        arguments: "RESET",
        help: &[
            "Let the counters and latencies of INFO begin anew, as CONFIG RESETSTAT does. Prometheus sees no reset.",
        ],
        takes: 1..=1,
        access: Access::Configurers,
        run: |admin, asked| {
            if !asked.words[0].eq_ignore_ascii_case(b"reset") {
                return Answer::Error("ERR PROXY STATS takes RESET".to_owned());
            }
            admin.reset_stats();
            Answer::Frame(b"+OK\r\n".to_vec())
        },
    },
    Subcommand {
        subcommand: ProxySubcommand::Config,
        arguments: "GET pattern [pattern ...] | SET key value [key value ...] | REWRITE | RELOAD",
        help: &[
            "GET: show settings in force. SET: change settings of this Shortstop while it runs, all or none, until the",
            "configuration is read again. REWRITE: write what was changed into the file, and keep its comments. RELOAD: read",
            "the configuration again, as SIGHUP does.",
        ],
        takes: 1..=usize::MAX,
        access: Access::Configurers,
        run: super::config::config,
    },
    Subcommand {
        subcommand: ProxySubcommand::Explain,
        arguments: "<key>",
        help: &[
            "Show the rule of a key, whether L1 answers a GET of it or why not, and what the next GET and SET would do,",
            "for the user and the database of this connection. Changes nothing in L1 and asks Redis nothing.",
        ],
        takes: 1..=1,
        access: Access::Clients,
        run: super::explain::explain,
    },
    Subcommand {
        subcommand: ProxySubcommand::Flush,
        arguments: "[pattern] [FLEET]",
        help: &[
            "Drop everything from L1, or the keys that match the pattern. FLEET: in every Shortstop of the fleet. Redis is not",
            "changed.",
        ],
        takes: 0..=2,
        access: Access::Configurers,
        run: super::flush::flush,
    },
    Subcommand {
        subcommand: ProxySubcommand::Warm,
        arguments: "[pattern [COUNT n] | CANCEL]",
        help: &[
            "Read the keys that match into L1, in the background, at most n of them, for the user and the database of this",
            "connection. CANCEL ends it. Without a pattern: show how far it is.",
        ],
        takes: 0..=3,
        access: Access::Configurers,
        run: super::warm::warm,
    },
    Subcommand {
        subcommand: ProxySubcommand::Compress,
        arguments: "TRY pattern [COUNT n]",
        help: &[
            "Read a sample of the values whose keys match (n of them; 100 if not given), and show what each codec and level would",
            "save and cost, and the rule for config.yaml. Stores nothing.",
        ],
        takes: 2..=4,
        access: Access::Configurers,
        run: super::compress::compress,
    },
    Subcommand {
        subcommand: ProxySubcommand::Decompress,
        arguments: "[pattern | CANCEL]",
        help: &[
            "Turn the stored values whose keys match back to plain, in the background, in the database of this connection. Clients",
            "see no difference. CANCEL ends it. Without a pattern: show how far it is.",
        ],
        takes: 0..=1,
        access: Access::Configurers,
        run: super::decompress::decompress,
    },
    Subcommand {
        subcommand: ProxySubcommand::Health,
        arguments: "[live|ready]",
        help: &[
            "OK, or the reasons why not. live: this process answers. ready: Redis has accepted its login since the",
            "start, and is a primary.",
            "Needs no login. What else is wrong: PROXY ALERTS.",
        ],
        takes: 0..=1,
        access: Access::Anybody,
        run: super::health::health,
    },
    Subcommand {
        subcommand: ProxySubcommand::Debug,
        arguments: "PANIC [WORKER]",
        help: &[
            "Panic while serving this connection, to check that the others continue; or end the workers, to check that the",
            "process ends. Only with enable_debug_command: true.",
        ],
        takes: 1..=2,
        access: Access::Clients,
        // Answered where the connection is served.
        run: |_, _| Answer::Error("ERR PROXY DEBUG is for connections".to_owned()),
    },
    Subcommand {
        subcommand: ProxySubcommand::Help,
        arguments: "",
        help: &["Print this help."],
        takes: 0..=0,
        access: Access::Anybody,
        run: |_, _| Answer::Frame(help()),
    },
];

/// A word of a client in an error: readable, and not long.
fn shown(word: &[u8]) -> String {
    String::from_utf8_lossy(word).chars().take(128).collect()
}

/// The row of a subcommand; none: it is PROXY itself, or there is no such subcommand.
fn row(subcommand: ProxySubcommand) -> Option<&'static Subcommand> {
    SUBCOMMANDS.iter().find(|row| row.subcommand == subcommand)
}

/// Who may use a subcommand in a call with so many arguments, PROXY and the subcommand included. PROXY alone, and what is no subcommand, is
/// for anybody: the answer is an error.
pub fn access(subcommand: ProxySubcommand, argc: usize) -> Access {
    // With more words it sets a threshold.
    if subcommand == ProxySubcommand::Alerts && argc > 2 {
        return Access::Configurers;
    }
    row(subcommand).map_or(Access::Anybody, |row| row.access)
}

/// Whether a call has the right number of arguments, PROXY and the subcommand included.
pub fn takes(subcommand: ProxySubcommand, argc: usize) -> bool {
    argc >= 2 && row(subcommand).is_some_and(|row| row.takes.contains(&(argc - 2)))
}

/// Answers `PROXY …`. `args` is the whole call.
pub fn answer(admin: &Arc<Admin>, subcommand: ProxySubcommand, args: &[&[u8]], asker: Asker) -> Answer {
    let Some(name) = args.get(1) else {
        return Answer::Error("ERR wrong number of arguments for 'proxy' command".to_owned());
    };
    match row(subcommand) {
        None => Answer::Error(format!("ERR unknown subcommand '{}'. Try PROXY HELP.", shown(name))),
        Some(_) if !takes(subcommand, args.len()) => {
            let name = subcommand.name();
            Answer::Error(format!("ERR wrong number of arguments for 'proxy|{name}' command"))
        }
        Some(row) => (row.run)(admin, Asked { words: &args[2..], asker }),
    }
}

/// Answers `PROXY …` as a RESP reply.
pub fn reply(admin: &Arc<Admin>, subcommand: ProxySubcommand, args: &[&[u8]], asker: Asker) -> ProxyAnswer {
    let frame = move |answer: Result<View, String>| {
        let mut out = Vec::new();
        match answer {
            Ok(view) => view.write(asker.version, &mut out),
            Err(text) => build::error(&mut out, &text),
        }
        out
    };
    match answer(admin, subcommand, args, asker) {
        Answer::Frame(bytes) => ProxyAnswer::Now(bytes),
        Answer::View(view) => ProxyAnswer::Now(frame(Ok(view))),
        Answer::Error(text) => ProxyAnswer::Now(frame(Err(text))),
        Answer::Later(answer) => ProxyAnswer::Later(Box::pin(async move { frame(answer.await) })),
    }
}

fn help() -> Vec<u8> {
    let mut lines = vec!["PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:".to_owned()];
    for row in SUBCOMMANDS {
        let name = row.subcommand.name().to_ascii_uppercase();
        lines.push(format!("{name} {}", row.arguments).trim_end().to_owned());
        lines.extend(row.help.iter().map(|line| format!("    {line}")));
    }
    lines.push("Replies are easier to read with redis-cli -3. All other commands are Redis's.".to_owned());
    let mut out = Vec::new();
    build::header(&mut out, b'*', lines.len());
    for line in lines {
        out.extend_from_slice(format!("+{line}\r\n").as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{SUBCOMMANDS, access, row, takes};
    use crate::command::ProxySubcommand;
    use crate::worker_state::windows::Access;

    #[test]
    fn every_subcommand_has_a_row() {
        for subcommand in ProxySubcommand::ALL {
            let row = row(*subcommand).unwrap_or_else(|| panic!("{} has no row", subcommand.name()));
            assert!(!row.help.is_empty(), "{}", subcommand.name());
        }
        assert_eq!(SUBCOMMANDS.len(), ProxySubcommand::ALL.len());
    }

    #[test]
    fn who_may_use_what() {
        assert_eq!(access(ProxySubcommand::Flush, 2), Access::Configurers);
        assert_eq!(access(ProxySubcommand::Info, 2), Access::Clients);
        assert_eq!(access(ProxySubcommand::Other, 2), Access::Anybody);
        assert_eq!(access(ProxySubcommand::Alerts, 2), Access::Clients);
        assert_eq!(access(ProxySubcommand::Alerts, 5), Access::Configurers);
        assert!(takes(ProxySubcommand::Flush, 4) && !takes(ProxySubcommand::Flush, 9));
        assert!(!takes(ProxySubcommand::Other, 1) && !takes(ProxySubcommand::Other, 2));
    }
}
