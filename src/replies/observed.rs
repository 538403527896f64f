//! Replies to reads that are only observed: notes what L1 would have done.

use std::time::{Duration, Instant};

use crate::exchange::observed::Observed;
use crate::near_cache::{Entry, EntryId};
use crate::replies::sizes::value_size;
use crate::resp::{Bulk, bulk_of};
use crate::traffic::{Kept, What};
use crate::worker_state::context::Context;

/// Notes a complete reply, with its value decompressed.
pub(crate) fn note(context: &Context, id: EntryId, observed: Option<Box<Observed>>, reply: &[u8]) {
    let Some(observed) = observed else { return };
    let is_absent = bulk_of(reply) == Bulk::Null || observed.absent.is(reply);
    let lives = if is_absent { Some(observed.negative_life) } else { observed.life };
    let what = if matches!(reply.first(), Some(b'-' | b'!') | None) || (is_absent && observed.negative_life.is_zero()) {
        What::Absent
    } else {
        kept(&observed, lives, value_size(reply), reply.len())
    };
    let permit = context.shared.coherence.permit(Instant::now());
    context.accesses.note_observed(&permit, id, observed.place, what);
}

/// Notes a value of which only the size is known so far.
pub(crate) fn note_size(context: &Context, id: EntryId, observed: Option<&Observed>, size: usize) {
    if let Some(observed) = observed {
        let permit = context.shared.coherence.permit(Instant::now());
        let what = kept(observed, observed.life, size, size);
        context.accesses.note_observed(&permit, id, observed.place, what);
    }
}

fn kept(observed: &Observed, lives: Option<Duration>, value: usize, reply: usize) -> What {
    let fits = value <= observed.max_value;
    What::Observed(lives.filter(|_| fits).map(|lives| Kept::new(Entry::weight_of(observed.question, reply), lives)))
}
