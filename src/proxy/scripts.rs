//! Scripts and functions of clients. Turns the verdict of `crate::scripts` into a write guard, and logs warnings.

use smallvec::SmallVec;

use crate::command::ScriptBy;
use crate::exchange::pending::OnReply;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::write_guard::WriteGuard;
use crate::proxy::call::Call;
use crate::proxy::client::Client;
use crate::scripts::{Name, Reach};
use crate::worker_state::policy::View;

impl Client {
    /// What waits for the reply to EVAL, EVALSHA, FCALL or one of their read-only forms.
    pub(super) fn script(&self, view: &View, call: Call<'_>, by: ScriptBy, read_only: bool) -> OnReply {
        let scripts = &self.context.shared.scripts;
        let subject = call.args.get(1).copied().unwrap_or_default();
        let compresses = view.policy.compresses_from.is_some() && scripts.is_first_beside_compression(by);
        if compresses || !read_only {
            let judgement = scripts.judge(&view.table, by, subject, read_only);
            if compresses {
                warn_of_compression(&judgement.name);
            }
            if call.row.is_write() {
                let mut guard = self.write_guard(view, call);
                guard.always();
                judgement.functions.into_iter().for_each(|number| guard.relies_on(number));
                match judgement.reach {
                    Reach::Nothing => return self.reads(view, call, judgement.functions),
                    Reach::Declared => {}
                    Reach::Anything(why) => {
                        guard.add_unproven();
                        if !scripts.are_trusted() && scripts.is_to_be_named(&judgement) {
                            warn_of_flush(&judgement.name, why);
                        }
                    }
                }
                return OnReply::Write { guard, shape: ReplyShape::Nothing };
            }
        }
        self.unkept(view, call)
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
        "{name} runs while values are compressed: scripts and functions read values as they are stored. Give the keys that they \
         read or write a rule with compress: false, and SET them again"
    );
}
