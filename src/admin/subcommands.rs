//! The subcommands of PROXY, one row each: HELP, the check of arguments, and who may use one all go by this table. The monitor serves the
//! same rows as JSON.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;

use crate::resp::build;
use crate::worker_state::windows::{Access, Asker, ProxyAnswer};

use super::Admin;
use super::view::View;

/// What a subcommand has to say.
pub enum Answer {
    /// A whole RESP reply, which has no JSON form.
    Frame(Vec<u8>),
    /// What it shows.
    View(View),
    /// What it shows, when it has been found out.
    Later(Pin<Box<dyn Future<Output = Result<View, String>> + Send>>),
    /// Why it cannot, as an error's text with its code.
    Error(String),
}

/// A subcommand that was asked for.
pub struct Asked<'a> {
    /// The words behind its name.
    pub words: &'a [&'a [u8]],
    /// Who asks.
    pub asker: Asker,
}

/// One subcommand of PROXY.
pub struct Subcommand {
    /// Its name in capitals.
    pub name: &'static str,
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
        name: "INFO",
        arguments: "[section ...]",
        help: &[
            "Show the state of this Shortstop: Proxy, ProxyClients, L1, Compression, Invalidation, Upstream, Coherence,",
            "Latency. INFO shows the same sections behind those of Redis.",
        ],
        takes: 0..=usize::MAX,
        access: Access::Clients,
        run: super::info::info,
    },
    Subcommand {
        name: "FLUSH",
        arguments: "",
        help: &["Drop everything from L1 of this Shortstop. Redis is not touched."],
        takes: 0..=0,
        access: Access::Configurers,
        run: |admin, _| {
            admin.coherence.flush("PROXY FLUSH");
            Answer::Frame(b"+OK\r\n".to_vec())
        },
    },
    Subcommand {
        name: "HEALTH",
        arguments: "[live|ready]",
        help: &[
            "OK, or why not. live: this process answers. ready: Redis has accepted its login since the start, and is a primary.",
            "Needs no login.",
        ],
        takes: 0..=1,
        access: Access::Anybody,
        run: super::health::health,
    },
    Subcommand {
        name: "DEBUG",
        arguments: "PANIC [WORKER]",
        help: &[
            "Panic while serving this connection, to see that the others go on; or end the workers, to see that the process ends. Only \
             with enable_debug_command: true.",
        ],
        takes: 0..=usize::MAX,
        access: Access::Clients,
        // Its right form is answered where the connection is served.
        run: |_, asked| {
            let shown = asked.words.first().map(|word| shown(word)).unwrap_or_default();
            Answer::Error(format!(
                "ERR unknown subcommand or wrong number of arguments for 'DEBUG {shown}'. Try PROXY HELP."
            ))
        },
    },
    Subcommand {
        name: "HELP",
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

/// The row of a subcommand, by its name in any case.
pub fn find(name: &[u8]) -> Option<&'static Subcommand> {
    SUBCOMMANDS.iter().find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// Who may use `PROXY …`. An error is for anybody.
pub fn access(args: &[&[u8]]) -> Access {
    let row = args.get(1).and_then(|name| find(name));
    row.filter(|row| row.takes.contains(&(args.len() - 2))).map_or(Access::Anybody, |row| row.access)
}

/// Answers `PROXY …`.
pub fn answer(admin: &Arc<Admin>, args: &[&[u8]], asker: Asker) -> Answer {
    let Some(name) = args.get(1) else {
        return Answer::Error("ERR wrong number of arguments for 'proxy' command".to_owned());
    };
    match find(name) {
        None => Answer::Error(format!("ERR unknown subcommand '{}'. Try PROXY HELP.", shown(name))),
        Some(row) if !row.takes.contains(&(args.len() - 2)) => Answer::Error(format!(
            "ERR wrong number of arguments for 'proxy|{}' command",
            row.name.to_ascii_lowercase()
        )),
        Some(row) => (row.run)(admin, Asked { words: &args[2..], asker }),
    }
}

/// Answers `PROXY …` as a RESP reply.
pub fn reply(admin: &Arc<Admin>, args: &[&[u8]], asker: Asker) -> ProxyAnswer {
    let frame = move |answer: Result<View, String>| {
        let mut out = Vec::new();
        match answer {
            Ok(view) => view.write(asker.version, &mut out),
            Err(text) => build::error(&mut out, &text),
        }
        out
    };
    match answer(admin, args, asker) {
        Answer::Frame(bytes) => ProxyAnswer::Now(bytes),
        Answer::View(view) => ProxyAnswer::Now(frame(Ok(view))),
        Answer::Error(text) => ProxyAnswer::Now(frame(Err(text))),
        Answer::Later(answer) => ProxyAnswer::Later(Box::pin(async move { frame(answer.await) })),
    }
}

fn help() -> Vec<u8> {
    let mut lines = vec!["PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:".to_owned()];
    for row in SUBCOMMANDS {
        lines.push(format!("{} {}", row.name, row.arguments).trim_end().to_owned());
        lines.extend(row.help.iter().map(|line| format!("    {line}")));
    }
    lines.push("Everything else is Redis's: see COMMAND and HELP of redis-cli.".to_owned());
    let mut out = Vec::new();
    build::header(&mut out, b'*', lines.len());
    for line in lines {
        out.extend_from_slice(format!("+{line}\r\n").as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{SUBCOMMANDS, access};
    use crate::worker_state::windows::Access;

    #[test]
    fn rows_are_whole() {
        for row in SUBCOMMANDS {
            assert!(!row.help.is_empty() && row.name.bytes().all(|byte| byte.is_ascii_uppercase()), "{}", row.name);
        }
    }

    #[test]
    fn what_redis_would_not_ask_for_is_for_anybody() {
        assert_eq!(access(&[b"proxy", b"flush"]), Access::Configurers);
        assert_eq!(access(&[b"proxy", b"info", b"l1"]), Access::Clients);
        for errors in [&[&b"proxy"[..]][..], &[b"proxy", b"nonsense"], &[b"proxy", b"flush", b"1", b"2", b"3"]] {
            assert_eq!(access(errors), Access::Anybody);
        }
    }
}
