//! Whether L1 answers a GET of a key, and why not: from the rules, from what L1 has, and from what the workers remember. Only looks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::coherence::{Look, Seen, State};
use crate::config::Config;
use crate::metrics::outcome::{LeftL1, NotKept, NotServed, Outcome};
use crate::near_cache::{EntryId, Question};
use crate::reads::Reads;
use crate::rules::{Rule, Rules};
use crate::traffic::Unkept;
use crate::worker_state::context::Mailboxes;

use super::Admin;
use super::view::View;

/// What the workers remember of a key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remembered {
    /// How often a worker was asked for it recently and asked Redis: the largest number of any worker.
    pub(super) times: u32,
    /// The last read that was not kept.
    pub(super) unkept: Option<Unkept>,
}

/// How long the workers may take to answer. A worker that is busy for longer is left out.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Asks the workers what they remember of these keys. `user`: only of the reads of this user.
pub(super) async fn remembered(mailboxes: &Mailboxes, ids: Vec<EntryId>, user: Option<u32>) -> Vec<Remembered> {
    let mut all = vec![Remembered::default(); ids.len()];
    let ids: Arc<[EntryId]> = ids.into();
    let answers = mailboxes.ask_all(Some(PATIENCE), move |context, answers| {
        let look = |id: &EntryId| Remembered {
            times: context.admission.borrow().times(*id),
            unkept: context.unkept.borrow().last(id.key()).filter(|read| user.is_none_or(|user| read.user == user)),
        };
        // If the receiver is gone, no answer is needed.
        let _ = answers.send(ids.iter().map(look).collect::<Vec<_>>());
    });
    for answer in answers.await {
        for (known, one) in all.iter_mut().zip(answer) {
            known.times = known.times.max(one.times);
            let later = [known.unkept, one.unkept].into_iter().flatten().max_by_key(|unkept| unkept.at);
            known.unkept = later;
        }
    }
    all
}

/// The configuration and its rules.
pub(super) struct Ruling {
    pub(super) config: Arc<Config>,
    pub(super) rules: Rules,
}

impl Ruling {
    /// Those in force.
    pub(super) fn of(admin: &Admin) -> Self {
        let config = admin.config.get();
        Ruling { rules: Rules::compile(&config), config }
    }

    /// Whether a rule keeps the reply to a GET of the key.
    pub(super) fn keeps_get(&self, key: &[u8]) -> bool {
        self.rules.of(key).cache.is_some_and(|cache| cache.reads.contains(Reads::GET))
    }

    /// The key as it is shown.
    pub(super) fn shown(&self, key: &[u8]) -> View {
        if self.config.redact_keys { View::text("(redacted)") } else { View::Bytes(key.to_vec()) }
    }

    /// Which rule a key has: its pattern, its number in the configuration from 1, and its line in the file.
    pub(super) fn rule(&self, key: &[u8]) -> View {
        let index = self.rules.index_of(key);
        let spec = index.and_then(|index| self.config.rules.get(index));
        View::Map(vec![
            ("match", View::text(spec.map_or("defaults", |spec| &spec.pattern))),
            ("number", View::maybe(index, |index| View::count(index + 1))),
            ("line", View::maybe(spec.and_then(|spec| spec.line.0), View::count)),
        ])
    }
}

/// A key, and what is known of it.
pub(super) struct KeyState<'a> {
    pub(super) key: &'a [u8],
    pub(super) rule: &'a Rule,
    pub(super) is_of_scripts: bool,
    pub(super) serves: bool,
    pub(super) look: Look,
    pub(super) remembered: Remembered,
    /// The user whose entries count. `None`: those of any user.
    pub(super) user: Option<u32>,
}

impl<'a> KeyState<'a> {
    pub(super) fn new(
        admin: &Admin,
        ruling: &'a Ruling,
        (db, key): (u32, &'a [u8]),
        user: Option<u32>,
        remembered: Remembered,
    ) -> Self {
        let now = Instant::now();
        KeyState {
            key,
            rule: ruling.rules.of(key),
            is_of_scripts: ruling.rules.is_of_scripts(key),
            serves: admin.coherence.permit(now).serves(),
            look: admin.coherence.look(Question::get(db, 0, key).id().key(), now),
            remembered,
            user,
        }
    }

    /// The entries that answer this user.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Seen> {
        let is_mine = |seen: &&Seen| self.user.is_none_or(|user| seen.entry.user() == user);
        self.look.entries.iter().filter(|seen| seen.entry.key() == self.key).filter(is_mine)
    }

    /// The entry that answers GET; without a user, any entry if there is none for GET.
    pub(super) fn entry(&self) -> Option<&Seen> {
        let get = self.entries().filter(|seen| seen.entry.asked().is_none()).last();
        get.or_else(|| self.entries().last().filter(|_| self.user.is_none()))
    }

    /// Why L1 does not answer: a name and a sentence. `None`: it does.
    pub(super) fn why_not(&self) -> Option<(&'static str, &'static str)> {
        let is_kept = self.rule.cache.is_some_and(|cache| self.user.is_none() || cache.reads.contains(Reads::GET));
        let own = |why: NotServed| Some((why.name(), not_served(why)));
        let left = |why: LeftL1| Some((why.name(), left_l1(why)));
        if !self.serves {
            return own(NotServed::NotServing);
        }
        if !is_kept {
            return own(if self.is_of_scripts { NotServed::Scripts } else { NotServed::Rule });
        }
        let state = self.entry().map(|seen| seen.state);
        match state {
            Some(State::Good) => return None,
            _ if self.look.written => return own(NotServed::WriteInFlight),
            _ if self.look.quarantined.is_some() => return own(NotServed::Quarantined),
            _ if self.look.fetched => return own(NotServed::FetchInFlight),
            Some(State::Stale) => return own(NotServed::Stale),
            Some(State::Expired) => return left(LeftL1::Expired),
            Some(State::Flushed) => return left(LeftL1::Flushed),
            None => {}
        }
        let departed = self.look.departure.map(|gone| (gone.at.elapsed().unwrap_or_default(), gone.why));
        let unkept = self.remembered.unkept.map(|read| (read.at.elapsed(), read.why));
        match (departed, unkept) {
            (Some((ago, why)), unkept) if unkept.is_none_or(|(since, _)| ago <= since) => left(why),
            (_, Some((_, why))) => Some((why.name(), not_kept(why))),
            _ if self.remembered.times == 0 => own(NotServed::NeverRequested),
            _ if !self.admits_next(0) => Some((NotKept::NotAdmitted.name(), not_kept(NotKept::NotAdmitted))),
            _ => own(NotServed::Unknown),
        }
    }

    /// Whether the rule keeps the key after so many more requests.
    pub(super) fn admits_next(&self, more: u32) -> bool {
        self.rule.cache.is_some_and(|cache| self.remembered.times + more >= cache.admit_after.min(255))
    }
}

fn not_served(why: NotServed) -> &'static str {
    match why {
        NotServed::NotServing => "L1 serves nothing in its mode; mode_reason says why.",
        NotServed::Rule => "The rule of the key does not keep the replies to GET.",
        NotServed::Scripts => "The setting `scripts` says that scripts may write the key without declaring it.",
        NotServed::WriteInFlight => "A write of the key, or one that shares its guard, is in flight.",
        NotServed::Quarantined => "The outcome of a write is unknown, so the key is not kept for max_staleness.",
        NotServed::FetchInFlight => "The key is being read from Redis at this moment.",
        NotServed::Stale => "The entry is older than the staleness that this mode allows.",
        NotServed::NeverRequested => "No recent GET of the key is known.",
        NotServed::Unknown => "It was requested often enough, and is not in L1; nothing else is known.",
    }
}

fn left_l1(why: LeftL1) -> &'static str {
    match why {
        LeftL1::Written => "A client of this instance wrote the key.",
        LeftL1::Invalidated => "A message over NATS said that the key was written.",
        LeftL1::Overtaken => "A reply that is not kept was newer than the entry, or may have been.",
        LeftL1::Evicted => "L1 needed the room for other keys (l1.max_memory, l1.max_entries).",
        LeftL1::Expired => "Its time was over: the rule's ttl, the key's own, or max_staleness.",
        LeftL1::Flushed => "L1 was flushed, or the keys of a pattern were; PROXY EVENTS says why.",
    }
}

fn not_kept(why: NotKept) -> &'static str {
    match why {
        NotKept::NotAdmitted => "It was not requested often enough yet (admit_after).",
        NotKept::Blocked => "When it was read last, a write was in flight or had an unknown outcome.",
        NotKept::Changed => "When it was read last, it was written before the reply arrived.",
        NotKept::TtlUnknown => "The user may not use PTTL; grant +pttl.",
        NotKept::Expired => "When it was read last, it was about to expire in Redis.",
        NotKept::Absent => "When it was read last, it did not exist (negative_ttl).",
        NotKept::TooLarge => "When it was read last, it was larger than the rule's max_value.",
        NotKept::NotAValue => "When it was read last, the reply was an error or no string.",
    }
}
