//! Clients that have not authenticated, on a Redis that requires a login. Shortstop answers them with Redis's errors.
//!
//! Such clients share one connection to Redis. Redis closes an unauthenticated connection at a request with more than 10 arguments
//! or an argument of more than 16 KB; newer servers also close it when 1 KB of replies is due. So Shortstop sends only what Redis
//! alone can answer, one request at a time: unknown or disabled commands, a wrong number of arguments, HELLO. The connection's
//! handshake shows whether Redis requires a login. Requests wait until it has ended. Must not decide about clients that have a
//! login.

use std::rc::Rc;
use std::time::Duration;

use crate::coherence::ServePermit;
use crate::command::{Facts, Flags, ProxySubcommand, Verb};
use crate::exchange::pending::Link;
use crate::proxy::call::Call;
use crate::proxy::client::{Client, Next};
use crate::upstream::{NOAUTH, Reply};
use crate::worker_state::windows::Access;

/// The number of arguments that Redis accepts before authentication (networking.c, processMultibulkBuffer).
const MOST_WITHOUT_LOGIN: usize = 10;

/// The size of an argument that Redis accepts before authentication (same function).
const LONGEST_ARGUMENT: usize = 16 << 10;

/// How long the control connection's last finding that Redis requires a login is trusted. It checks once a second.
const REMEMBERED: Duration = Duration::from_secs(3);

/// How long a connection's handshake is trusted when the control connection has not found the same.
const HANDSHAKE_COUNTS: Duration = Duration::from_secs(1);

/// Whether Redis accepts commands without a login.
enum Admission {
    /// It does, or Redis is away.
    Open,
    /// Not known until this connection's handshake has ended.
    Unknown(Link),
    /// It does not.
    Locked,
}

impl Client {
    /// Handles a request of a client that has no login. `None` if the request is to be handled like that of any other client.
    pub(super) fn before_auth(&mut self, permit: &ServePermit, call: Call<'_>) -> Option<Next> {
        let row = call.row;
        if matches!(row.verb, Verb::Quit | Verb::Reset | Verb::Http) {
            return None;
        }
        match (self.admission(), row.verb) {
            (Admission::Open, _) => return None,
            // PROXY INFO is needed most while Redis does not answer.
            (Admission::Unknown(_), Verb::Proxy(subcommand)) if subcommand != ProxySubcommand::Debug => return None,
            (Admission::Unknown(lane), _) => return Some(self.wait_for(&lane)),
            (Admission::Locked, Verb::Proxy(subcommand)) => {
                let access = self.context.shared.windows.access(subcommand);
                return if access == Access::Anybody { None } else { Some(self.refuse(NOAUTH)) };
            }
            (Admission::Locked, _) => {}
        }
        let exists = row.number > 0 && (row.subs().is_empty() || call.args.len() == 1);
        let is_whole = exists && row.arity_ok(call.args.len());
        let may_come = row.flags.contains(Flags::NO_AUTH) || matches!(row.verb, Verb::Hello | Verb::Auth);
        // Redis checks first whether these commands are enabled.
        let needs_enabling = row.facts.contains(Facts::NEEDS_ENABLING);
        if is_whole && !may_come && !needs_enabling {
            return Some(match row.verb {
                Verb::Exec => self.refuse(&format!("EXECABORT Transaction discarded because of: {NOAUTH}")),
                _ => self.refuse(NOAUTH),
            });
        }
        if call.args.len() > MOST_WITHOUT_LOGIN {
            self.refuse("ERR Protocol error: unauthenticated multibulk length");
            return Some(Next::Close);
        }
        if !is_small(call.args) {
            self.refuse("ERR Protocol error: unauthenticated bulk length");
            return Some(Next::Close);
        }
        // Redis reports the error.
        if is_whole && may_come { None } else { Some(self.pass_to_be_refused(permit, call)) }
    }

    /// [`Client::before_auth`] for a known command that has a valid number of arguments and needs a login.
    pub(super) fn read_before_auth(&mut self) -> Option<Next> {
        match self.admission() {
            Admission::Open => None,
            Admission::Unknown(lane) => Some(self.wait_for(&lane)),
            Admission::Locked => Some(self.refuse(NOAUTH)),
        }
    }

    fn admission(&self) -> Admission {
        let profile = &self.state.profile;
        let Ok(mut lane) = self.context.lane_of(profile) else { return Admission::Open };
        let word_counts =
            |locked_for| locked_for <= HANDSHAKE_COUNTS || self.context.shared.users.locked_within(REMEMBERED);
        if lane.is_retired() || lane.locked_for().is_some_and(|locked_for| !word_counts(locked_for)) {
            if !lane.is_retired() {
                self.context.renew_lane(&profile.identity(), profile.db(), profile.version());
            }
            profile.forget_lane();
            match self.context.lane_of(profile) {
                Ok(another) => lane = another,
                Err(_) => return Admission::Open,
            }
        }
        match lane.locked_for() {
            _ if lane.is_connecting() => Admission::Unknown(lane),
            Some(_) => Admission::Locked,
            None => Admission::Open,
        }
    }

    /// Takes the request again when the connection attempt has ended.
    pub(super) fn wait_for(&self, link: &Link) -> Next {
        // The client gets no reply from this slot. It only holds back later requests.
        let (link, reply_queue, slot) = (link.clone(), Rc::clone(&self.reply_queue), self.reply_queue.open(true));
        tokio::task::spawn_local(async move {
            link.settled().await;
            reply_queue.fill(slot, Reply::Borrowed(b""));
        });
        Next::Again
    }
}

/// Whether Redis accepts this number and size of arguments on an unauthenticated connection.
pub(super) fn is_small(args: &[&[u8]]) -> bool {
    args.len() <= MOST_WITHOUT_LOGIN && args.iter().all(|arg| arg.len() <= LONGEST_ARGUMENT)
}

#[cfg(test)]
mod tests {
    use super::is_small;

    #[test]
    fn limits_are_those_of_redis() {
        let (longest, longer) = (vec![b'x'; 16384], vec![b'x'; 16385]);
        assert!(is_small(&[b"x".as_slice(); 10]) && is_small(&[b"GET", &longest]));
        assert!(!is_small(&[b"x".as_slice(); 11]) && !is_small(&[b"GET", &longer]));
    }
}
