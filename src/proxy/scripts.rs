//! Scripts and functions of clients. Turns the verdict of `crate::scripts` into a write guard, and logs warnings.

use smallvec::SmallVec;

use crate::command::ScriptBy;
use crate::exchange::pending::OnReply;
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::script_request::{Command, ScriptRequest};
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::call::{Call, Target, Wire};
use crate::proxy::client::Client;
use crate::scripts::{Judgement, Name, Reach};
use crate::worker_state::policy::View;

impl Client {
    /// What waits for the reply to EVAL, EVALSHA, FCALL or one of their read-only forms, and the bytes to send.
    pub(super) fn script(
        &self,
        view: &View,
        call: Call<'_>,
        (by, read_only): (ScriptBy, bool),
        target: &Target,
    ) -> (OnReply, Wire) {
        let scripts = &self.context.shared.scripts;
        let subject = call.args.get(1).copied().unwrap_or_default();
        let may_be_compressed = view.policy.may_be_compressed();
        if read_only && !may_be_compressed {
            return (self.unkept(view, call), Wire::AsIs);
        }
        let judgement = scripts.judge(&view.table, by, subject, read_only);
        let then = if call.row.is_write() { self.writes(view, call, &judgement) } else { self.unkept(view, call) };
        if !may_be_compressed || !judgement.looks {
            return (then, Wire::AsIs);
        }
        if !judgement.sees_only_its_keys
            && view.policy.compresses_from.is_some()
            && scripts.may_read_compressed(&judgement)
        {
            warn_of_compression(&judgement.name);
        }
        let strings: Vec<Vec<u8>> = call.keys.places.iter().map(|at| call.args[*at as usize].to_vec()).collect();
        if strings.is_empty() {
            return (then, Wire::AsIs);
        }
        let may_replace = self.state.profile.identity().rights(&self.context.shared.users).scripts;
        let Some(script) = judgement.guard.as_ref().filter(|_| may_replace) else {
            return (then, Wire::Alone(strings));
        };
        let command = Command::Script { with_text: by == ScriptBy::Text };
        let request = ScriptRequest::new(script, !call.row.is_write(), &call.args[2..], command);
        let strings = (self.state.profile.db(), Strings::Of(strings));
        self.guarded(request, target, strings, None, then)
    }

    /// What waits for the reply to a script that is not called by a read-only form.
    fn writes(&self, view: &View, call: Call<'_>, judgement: &Judgement) -> OnReply {
        let scripts = &self.context.shared.scripts;
        let mut guard = self.write_guard(view, call);
        guard.always();
        judgement.functions.into_iter().for_each(|number| guard.relies_on(number));
        match judgement.reach {
            Reach::Nothing => return self.reads(view, call, judgement.functions),
            Reach::Declared => {}
            Reach::Anything(why) => {
                guard.add_unproven();
                if !scripts.are_trusted() && scripts.is_to_be_named(judgement) {
                    warn_of_flush(&judgement.name, why);
                }
            }
        }
        OnReply::Write { guard, shape: ReplyShape::Nothing }
    }

    /// A script that writes no key. Unlike a read it is not repeated after a lost connection: it may have published a message.
    fn reads(&self, view: &View, call: Call<'_>, functions: Option<u64>) -> OnReply {
        let mut guard = WriteGuard::default();
        functions.into_iter().for_each(|number| guard.relies_on(number));
        let observed = if view.policy.caches { self.ids(call) } else { SmallVec::new() };
        OnReply::Elements { guard: Some(Box::new(guard)), observed, shape: ReplyShape::Nothing }
    }
}

fn warn_of_flush(name: &Name, why: &str) {
    crate::seldom!(
        warn,
        "L1 is flushed each time that {name} runs, because it may write any key: {why}. Take every key that it \
         writes from KEYS, or say in config.yaml which keys scripts write (scripts: declared, or patterns of keys)"
    );
}

fn warn_of_compression(name: &Name) {
    crate::seldom!(
        warn,
        "{name} may read compressed values: only the keys that a script declares are turned to plain before it runs. Take every key \
         whose string it reads from KEYS, or give those keys a rule with compress: false and SET them again"
    );
}
