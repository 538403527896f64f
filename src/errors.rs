//! All of Shortstop's own errors, each with its side.
//!
//! Redis's errors are passed on unchanged and are not listed here; neither are errors that Shortstop returns in Redis's words
//! (`NOAUTH`, a protocol error, a wrong number of arguments). A text says what happened and what to do about it.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Duration;

use crate::resp::build;

/// Which side has caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client asked for something that is not allowed, or that a proxy cannot do.
    Client,
    /// Redis cannot answer, or the data in it cannot be used.
    Upstream,
    /// Shortstop: one of its limits was reached, or it lacks something.
    Us,
}

/// One of Shortstop's own errors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnError {
    side: Side,
    /// With its code.
    text: Cow<'static, str>,
}

impl OwnError {
    /// The side that caused it.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The text, with its code.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text without its code, for the log.
    pub fn reason(&self) -> &str {
        self.text.strip_prefix(PREFIX).unwrap_or(&self.text)
    }

    /// The error as a reply.
    pub fn frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        build::error(&mut out, &self.text);
        out
    }
}

impl Display for OwnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The beginning of each text, except [`NOT_ALLOWED`].
const PREFIX: &str = "ERR shortstop: ";

/// Errors with a fixed text.
macro_rules! fixed {
    ($($side:ident { $($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+ })+) => {
        $($($(#[doc = $doc])+ pub static $name: OwnError =
            OwnError { side: Side::$side, text: Cow::Borrowed(concat!("ERR shortstop: ", $text)) };)+)+

        #[cfg(test)]
        const FIXED: &[&OwnError] = &[$($(&$name),+),+];
    };
}

fixed! {
    Client {
        /// The connection begins with bytes of TLS.
        SPEAKS_TLS = "this port speaks RESP, not TLS";
        /// The connection begins with HTTP.
        SPEAKS_HTTP = "this port speaks RESP, not HTTP";
        /// CLUSTER SYNCSLOTS.
        REPLICATION = "replication does not pass through a proxy: let the replica connect to Redis itself";
        /// A login that is too long for a shared connection.
        LONG_LOGIN = "this login is too long; shorten the name or the password";
        /// A login that Redis does not accept from an unauthenticated connection.
        LARGE_LOGIN = "while Redis requires a password, a login may have at most 10 arguments of 16 KB each; \
            shorten it";
        /// A login in MULTI, to which newer servers may not reply.
        LOGIN_IN_MULTI = "this server may not reply to a login in a transaction; send it before MULTI";
        /// SYNC or PSYNC in MULTI.
        SYNC_IN_MULTI = "the replication stream cannot begin in a transaction; send SYNC or PSYNC outside of MULTI";
        /// PROXY DEBUG without `enable_debug_command`.
        NO_DEBUG = "PROXY DEBUG is not allowed; set enable_debug_command: true in config.yaml";
        /// PROXY in MULTI.
        PROXY_IN_MULTI = "PROXY is not part of a transaction; send it before MULTI";
        /// CLIENT REPLY OFF in MULTI.
        REPLY_IN_MULTI = "CLIENT REPLY OFF and SKIP would truncate the reply of EXEC; send them before MULTI";
        /// EVAL in MULTI after SCRIPT DEBUG YES.
        DEBUGGER_IN_MULTI = "the debugger's output in a transaction cannot be distinguished from replies; send EVAL \
            outside of MULTI, or SCRIPT DEBUG NO before it";
        /// After SCRIPT DEBUG YES: a command that may be EVAL under another name.
        UNKNOWN_TO_DEBUGGER = "this command is not in the server's COMMAND table, and could start the debugger; send SCRIPT DEBUG NO \
            before it";
        /// A client in MONITOR writes, or sends a command that Shortstop would have to answer.
        BESIDE_MONITOR = "not allowed during MONITOR; use another connection, or RESET";
        /// A value that begins with the mark of a compressed one, with compression off.
        MARK_WHILE_OFF = "the value looks like a compressed one, and compression is off, so that it could not be read again; it was not \
            stored. Set compression: read";
        /// More arguments than a script can take.
        TOO_MANY_ARGUMENTS = "too many arguments for a command that reads or changes a part of a string while \
            values may be compressed; send fewer at a time";
        /// A transaction that reads values and changes one that was put into an envelope because it looks like one.
        NEVER_PLAIN = "a value of this transaction looks like a compressed one; send the command that looks into it before MULTI";
        /// A transaction above `limits.query_buffer` with a command that looks into strings.
        LARGE_TRANSACTION = "this transaction is longer than limits.query_buffer, and has commands that look into strings, which may be \
            compressed; it was not executed, send less at a time";
        /// A command that makes a value look like a compressed one, by a user who has no right to SET.
        LOOKS_COMPRESSED_NOW = "the command was executed, but the value now looks like a compressed one, and this user has no right to SET \
            it in a form that can be read; SET the key again";
        /// SWAPDB or RESTORE before a command that looks into strings, in one transaction.
        BROUGHT_IN_TRANSACTION = "this transaction brings values to keys (SWAPDB, RESTORE, MIGRATE) and has commands that look into strings, \
            which may be compressed; it was not executed, send them in two transactions";
        /// APPEND or a similar command, on a value that other clients compress again each time.
        COMPRESSED_AGAIN = "other clients have compressed the value at this key again and again; send the command again";
        /// EXEC, or a script whose text is not known, while other clients change the strings that it looks into.
        CHANGED_AGAIN = "other clients have changed a key of this request again and again; it was not executed, send it again";
    }
    Upstream {
        /// The compressed values of several keys cannot be returned together.
        DAMAGED_AMONG = "a compressed value among these keys cannot be decompressed, or all together are larger \
            than limits.max_inflated; GET each key to find out";
        /// WAIT after a connection was lost.
        WRITES_NOT_PROVEN = "a connection to Redis was lost since the first of these writes, so it is unknown how \
            many replicas have them; write again, or ask Redis itself";
        /// A request on a connection that has ended for good.
        ENDED = "the connection to Redis has ended";
        /// A request of Shortstop's own that gets no reply.
        GIVEN_UP = "the connection to Redis was given up";
        /// All connections are moving to another server.
        MOVED = "the connection to Redis was given up: another server has taken its place";
    }
    Us {
        /// A subcommand of PROXY panicked.
        PROXY_FAILED = "this subcommand of PROXY has failed, which is a fault of Shortstop; the log has more";
        /// One of Shortstop's own connections leads to Shortstop.
        UPSTREAM_IS_ITSELF = "the upstream of this Shortstop leads to this Shortstop itself; name the address of Redis in `upstream` \
            (REDIS_URL)";
        /// Redis accepts an option of CLIENT KILL or CLIENT LIST that is not known here.
        UNKNOWN_OPTION = "Redis knows an option that this version of Shortstop does not; leave it out";
        /// BITFIELD with wide integers and an unknown operation.
        ROUNDED_BITFIELD = "the command was executed, but its reply has integers of more than 53 bits in an unknown \
            form; send each field in a BITFIELD of its own";
        /// Compressing panicked.
        NOT_COMPRESSED = "the value could not be compressed; it was not stored";
        /// Decompressing panicked.
        NOT_DECOMPRESSED = "the value could not be decompressed";
        /// A message cannot be distinguished from EXEC's reply.
        EXEC_IN_DOUBT = "a message arrived among the replies of EXEC and could not be distinguished from them; the \
            transaction was executed";
        /// Protected mode, before Redis has been asked whether it requires a password.
        PROTECTED_UNTIL_ASKED = "protected mode: Redis has not been reached yet, so it is unknown whether clients \
            need a password; try again later";
        /// `limits.max_sessions`.
        NO_SESSION = "too many clients have private connections to Redis; try again later, or raise \
            limits.max_sessions";
    }
}

/// PROXY FLUSH by a user who may not read Redis's configuration.
pub static NOT_ALLOWED: OwnError = OwnError {
    side: Side::Client,
    text: Cow::Borrowed("NOPERM shortstop: this is for users whom Redis allows CONFIG"),
};

/// Protected mode refuses a client. Redis's text, with Shortstop's settings.
pub static PROTECTED: OwnError = OwnError {
    side: Side::Client,
    text: Cow::Borrowed(
        "DENIED Shortstop is running in protected mode because protected mode is enabled and no password is needed: Redis lets its \
         default user in without one, or clients act as the user of the upstream URL (clients_without_auth: upstream). In this mode \
         connections are only accepted from the loopback interface and from Unix sockets. If you want to connect from external \
         computers to Shortstop you may adopt one of the following solutions: 1) Set a password for the default user of Redis, and \
         leave clients_without_auth at nobody: clients then have to send AUTH. 2) Ask clients for a certificate: set tls.listen and \
         tls.client_ca in config.yaml. 3) Disable protected mode by setting protected_mode to false in config.yaml, or \
         SHORTSTOP_PROTECTED_MODE=false in the environment, however MAKE SURE Shortstop is not publicly accessible from internet if \
         you do so. NOTE: You only need to do one of the above things in order for Shortstop to start accepting connections from the \
         outside.",
    ),
};

/// Appended to the error of a write that may have been executed.
pub const MAY_HAVE_RUN: &str = "; the command may have been executed";

/// An error whose text is made at run time.
fn made(side: Side, text: impl Display) -> OwnError {
    OwnError { side, text: format!("{PREFIX}{text}").into() }
}

/// Redis does not allow Shortstop's own user to look whether a value is compressed, or to turn it to plain.
pub fn no_right_to_convert(refusal: &[u8]) -> OwnError {
    let refusal = String::from_utf8_lossy(refusal.trim_ascii().strip_prefix(b"-").unwrap_or(refusal)).into_owned();
    let text = format_args!(
        "the value may be compressed, and Redis refuses Shortstop's own user to turn it to plain: {refusal}"
    );
    made(Side::Us, text)
}

/// A value that begins with the mark of a compressed one, and is too long to be compressed again.
pub fn too_long_with_mark(bytes: usize, max_inflated: usize) -> OwnError {
    let text = format_args!(
        "the value looks like a compressed one, and with {bytes} bytes is longer than limits.max_inflated \
         ({max_inflated}), so that it could not be read again; it was not stored. Raise that limit, or store less"
    );
    made(Side::Client, text)
}

/// A value that begins with the mark of a compressed one, and has become longer than Redis accepts.
pub fn too_long_for_redis(bytes: usize, most: usize) -> OwnError {
    let text = format_args!(
        "the value looks like a compressed one, and takes {bytes} bytes when stored, which is above Redis's \
         proto-max-bulk-len of {most}; raise it, or store less"
    );
    made(Side::Client, text)
}

/// A compressed value that is damaged or too long.
pub fn damaged(why: impl Display) -> OwnError {
    let text = format_args!(
        "the compressed value stored at this key cannot be decompressed: {why}; SET or DEL the \
        key"
    );
    made(Side::Upstream, text)
}

/// WAIT if Redis does not provide what WAIT needs. `why` is Redis's error.
pub fn replicas_not_known(why: impl Display) -> OwnError {
    let text = format_args!(
        "it is unknown what replicas have received; give the user in the upstream URL the right to ROLE, WAIT, \
         WAITAOF and SPUBLISH: {why}"
    );
    made(Side::Upstream, text)
}

/// `limits.upstream_pending`.
pub fn too_much_pending(bytes: usize) -> OwnError {
    let text =
        format_args!("{bytes} bytes wait for Redis on one connection (limits.upstream_pending); try again later");
    made(Side::Upstream, text)
}

/// There is no connection to Redis.
pub fn unreachable(address: impl Display, why: impl Display) -> OwnError {
    made(Side::Upstream, format_args!("Redis at {address} cannot be reached: {why}"))
}

/// The connection to Redis was lost.
pub fn lost(address: impl Display, why: impl Display) -> OwnError {
    made(Side::Upstream, format_args!("the connection to Redis at {address} was lost: {why}"))
}

/// Redis keeps the connection open but does not reply.
pub fn hung(address: impl Display, silent: Duration) -> OwnError {
    made(Side::Upstream, format_args!("Redis at {address} has not answered for {silent:.1?} (timeouts.reply)"))
}

/// Shortstop has closed a connection to Redis.
pub fn given_up(why: impl Display) -> OwnError {
    made(Side::Us, format_args!("the connection to Redis was given up: {why}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{FIXED, NOT_ALLOWED, PREFIX, Side, TOO_MANY_ARGUMENTS, damaged, unreachable};

    #[test]
    fn each_text_is_one_line_with_the_prefix() {
        let made = [unreachable("host:1", "refused"), damaged("too short")];
        for error in FIXED.iter().copied().chain(&made) {
            assert!(error.text().starts_with(PREFIX), "{error}");
            assert!(!error.reason().starts_with("ERR"), "{error}");
            assert!(!error.text().contains(['\r', '\n']) && !error.text().contains("  "), "{error}");
        }
        let mut texts: Vec<&str> = FIXED.iter().map(|error| error.text()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), FIXED.len(), "two errors have one text");
    }

    #[test]
    fn no_text_stands_in_another_file() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut directories = vec![source.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("the source is there") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    directories.push(path);
                } else if path != source.join("errors.rs") {
                    let text = String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned();
                    assert!(!text.contains(PREFIX), "{} has an error text of its own", path.display());
                }
            }
        }
    }

    #[test]
    fn an_error_has_a_side_and_a_frame() {
        assert_eq!(TOO_MANY_ARGUMENTS.side(), Side::Client);
        let error = unreachable("host:1", "line one\nline two");
        assert_eq!(error.side(), Side::Upstream);
        assert_eq!(error.frame(), b"-ERR shortstop: Redis at host:1 cannot be reached: line one line two\r\n");
        assert_eq!(NOT_ALLOWED.frame(), b"-NOPERM shortstop: this is for users whom Redis allows CONFIG\r\n");
    }
}
