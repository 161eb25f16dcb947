//! State sync: how a replica that has fallen out of the others' logs comes back.
//!
//! The others' logs reach back a fixed number of ops, or to a checkpoint that they took over. Who
//! needs an older one asks them for a newer checkpoint, which is the same on all that have made it,
//! and takes it over: writes it to the superblock together with the mark that its blocks need not
//! be here, and starts again from it. Opening it fetches what is not here block by block, as if it
//! were damaged; what is here already stays. Then it takes part again, and a walk over all blocks
//! fetches the rest meanwhile: first the directories of indexes, before any op is executed (merges
//! do not read them, but who opens the checkpoint again may need them), then all others. Until the
//! walk has ended the checkpoint does not count as durable here: nothing is acknowledged that lets
//! others reuse what only older checkpoints need.
//!
//! A newer checkpoint may be taken over at any time in between, in the opening too, when nobody has
//! a block any more. The log is not touched: what was acknowledged before stays in it.

use super::fatal::Fatal;
use super::machine::StateMachine;
use super::opening::Opening;
use super::replica::{Replica, Status};
use super::upgrade::check_program;
use crate::protocol::peer::{
    COMPLETE, CheckpointState, INCOMPLETE, SHARED, checkpoint_state, prepare_header, write_headers,
};
use crate::protocol::{Command, Message, PrepareHeader};
use crate::storage::grid_repair::WALKING;
use crate::storage::walk::WalkPart;
use crate::{mark, mutated};

/// A replica that gets no block, or no op, that it needs for so long looks for a newer checkpoint.
pub(super) const STUCK_NS: u64 = 1_000_000_000;
/// A checkpoint of which nobody knows whether a quorum has it is taken over after so long only: if
/// who told of it goes, others could neither get its blocks nor go on without who waits for them.
const UNSHARED_NS: u64 = 5_000_000_000;
/// Between questions for a newer checkpoint.
const ASK_NS: u64 = 100_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// The superblock is being written; then this replica starts again.
    Installing {
        op: u64,
    },
    /// Walking over roots and directories: nothing is executed.
    Directories,
    /// Walking over everything else.
    Rest,
    /// Writing down that all blocks are here.
    Clearing,
}

/// The sync in progress.
#[derive(Debug)]
pub struct Sync {
    stage: Stage,
    /// When others were asked for a checkpoint last.
    asked_ns: u64,
    /// The newest op executed when it was looked at last, and since when it is.
    executed: u64,
    executed_ns: u64,
}

impl Sync {
    /// None in progress.
    #[must_use]
    pub fn new() -> Sync {
        Sync { stage: Stage::Idle, asked_ns: 0, executed: 0, executed_ns: 0 }
    }
}

impl Default for Sync {
    fn default() -> Sync {
        Sync::new()
    }
}

impl<M: StateMachine> Replica<M> {
    /// Whether the others' logs need not hold what this replica must execute next: only a newer
    /// checkpoint helps.
    #[must_use]
    pub fn waits_for_sync(&self) -> bool {
        self.commit_max > self.commit.op + u64::from(self.options.config.journal_slots)
    }

    /// Whether blocks of the checkpoint may still be missing here.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.sync.stage != Stage::Idle
    }

    /// Whether execution waits for the directories of indexes.
    pub(super) fn sync_holds_commits(&self) -> bool {
        self.sync.stage == Stage::Directories
    }

    /// The checkpoint that counts as durable here: the last one before what is being fetched.
    pub(super) fn checkpoint_counted(&self) -> u64 {
        let durable = self.superblock.durable();
        if durable.sync_op_max == 0 || mutated!("count_syncing_checkpoint") {
            return durable.checkpoint.op;
        }
        durable.sync_op_max - u64::from(self.options.config.checkpoint_interval)
    }

    /// The durable checkpoint here, as others are told of it.
    pub(super) fn checkpoint_state(&self) -> CheckpointState {
        let durable = self.superblock.durable();
        let op = durable.checkpoint.op;
        // So far nobody acknowledges before the checkpoint is whole there.
        let is_shared = self.commit_max >= op + u64::from(self.options.config.release_delay);
        let standing = match durable.sync_op_max {
            0 if is_shared || op == 0 => SHARED,
            0 => COMPLETE,
            _ => INCOMPLETE,
        };
        CheckpointState {
            header: durable.checkpoint,
            root: durable.root,
            storage_size: durable.storage_size,
            release: durable.checkpoint_release,
            standing,
            reserved: [0; 243],
        }
    }

    pub(super) fn on_request_checkpoint(&mut self, message: &Message) {
        self.send_checkpoint(message.header().frame.replica, 0);
    }

    /// Says that this op, or its header, is not here.
    pub(super) fn refuse_op(&mut self, replica: u8, op: u64) {
        if self.send_checkpoint(replica, op) {
            mark!("op_refused");
        }
    }

    /// Tells a replica of the checkpoint here, and which op is not here, if that was asked for;
    /// whether it could.
    fn send_checkpoint(&mut self, replica: u8, missing: u64) -> bool {
        let Some(mut answer) = self.control(Command::Checkpoint) else { return false };
        answer.peer_mut().op = missing;
        answer.peer_mut().commit = self.commit_max;
        // What others conclude from a view must hold after a crash too.
        answer.peer_mut().frame.view = self.superblock.durable().view;
        write_headers(&mut answer, Some(&self.checkpoint_state()), [].iter());
        self.send_control(replica, answer);
        true
    }

    /// Looks whether the checkpoint that another replica tells of is needed here.
    pub(super) fn consider_checkpoint(&mut self, message: &Message) {
        if self.is_asking_for_views() {
            // What is found out about views would have to be found out again.
            return;
        }
        self.note_refusal(message);
        let state = *checkpoint_state(message);
        let cluster = self.options.cluster;
        let Some(header) = prepare_header(state.header.header(), cluster).copied() else { return };
        let newer = header.op > self.checkpoint_op() && header.op > self.commit.op
            || mutated!("checkpoint_backwards");
        let slots = u64::from(self.options.config.journal_slots);
        // While it opens its checkpoint it has executed nothing yet.
        let executed = self.commit.op.max(self.checkpoint_op());
        let behind = message.peer().commit.max(self.commit_max) > executed + slots;
        let interval = u64::from(self.options.config.checkpoint_interval);
        // Who lacks blocks itself sends nobody after them.
        let executed_ns = self.sync.executed_ns;
        let is_stuck =
            executed_ns > 0 && self.now.monotonic_ns.saturating_sub(executed_ns) >= UNSHARED_NS;
        let standing = state.standing == SHARED || state.standing == COMPLETE && is_stuck;
        let possible = newer && standing && header.op.is_multiple_of(interval);
        let alone = self.lacks_blocks() || self.nobody_has_op();
        let wanted = possible && (behind || alone);
        if !wanted || self.machine.blocks().is_none() {
            return;
        }
        // Nobody executes ops of a release that it does not know.
        if let Err(fatal) = check_program(header.op, header.program, self.options.program) {
            return self.stop(fatal);
        }
        if self.superblock.is_idle() && !matches!(self.sync.stage, Stage::Installing { .. }) {
            self.install(&header, &state, message.peer().frame.view);
        }
    }

    /// Takes over a checkpoint of which a replica in this view tells.
    fn install(&mut self, header: &PrepareHeader, state: &CheckpointState, view: u32) {
        assert!(header.op > self.checkpoint_op(), "checkpoints do not go back");
        mark!("sync_started");
        self.superblock.update(&mut self.outbox.storage, |superblock| {
            let first = superblock.checkpoint.op + 1;
            if superblock.sync_op_max == 0 {
                superblock.sync_op_min = first;
            }
            superblock.sync_op_max = header.op;
            if mutated!("forget_sync_range") {
                (superblock.sync_op_min, superblock.sync_op_max) = (0, 0);
            }
            superblock.checkpoint = *header;
            // That view has begun: nothing of what an older one had after this op is left.
            superblock.view = superblock.view.max(header.frame.view);
            // In a view before that of the sender this op need not be the one that is committed,
            // even if it was prepared there or earlier; but what was acknowledged there counts.
            superblock.sync_view = superblock.sync_view.max(view);
            superblock.root = state.root;
            superblock.storage_size = state.storage_size;
            superblock.checkpoint_release = state.release;
        });
        self.sync.stage = Stage::Installing { op: header.op };
    }

    /// Whether the superblock is about to name a checkpoint that was not made here.
    pub(super) fn is_installing(&self) -> bool {
        matches!(self.sync.stage, Stage::Installing { .. })
    }

    /// The checkpoint was opened: goes on with what is missing of it.
    pub(super) fn sync_opened(&mut self) {
        let last = self.superblock.durable().sync_op_max;
        if last > 0
            && let Some(blocks) = self.machine.blocks()
        {
            blocks.walk_start(WalkPart::Directories, last);
            self.sync.stage = Stage::Directories;
        }
    }

    /// Goes on with the sync; whether there was progress.
    pub(super) fn pump_sync(&mut self) -> bool {
        match self.sync.stage {
            Stage::Idle => false,
            Stage::Installing { op } => {
                if self.superblock.durable().checkpoint.op < op {
                    return false;
                }
                self.stop(Fatal::Synced { op });
                false
            }
            Stage::Directories => self.pump_walk(Stage::Rest),
            Stage::Rest => {
                if !self.superblock.is_idle() {
                    return false;
                }
                self.pump_walk(Stage::Clearing)
            }
            Stage::Clearing => {
                if self.superblock.durable().sync_op_max > 0 {
                    return false;
                }
                mark!("sync_completed");
                self.sync.stage = Stage::Idle;
                self.acknowledge_all();
                true
            }
        }
    }

    /// Goes on with the walk, and with `next` if it has ended.
    fn pump_walk(&mut self, next: Stage) -> bool {
        let Some(blocks) = self.machine.blocks() else { return false };
        if !mutated!("skip_sync_walk") && blocks.walk_step(WALKING).is_wait() {
            return false;
        }
        self.sync.stage = next;
        let last = self.superblock.durable().sync_op_max;
        if next == Stage::Rest {
            blocks.walk_start(WalkPart::Rest, last);
        } else {
            self.superblock.update(&mut self.outbox.storage, |superblock| {
                superblock.sync_op_min = 0;
                superblock.sync_op_max = 0;
            });
        }
        true
    }

    /// Whether nobody has sent a block that is needed here.
    fn lacks_blocks(&self) -> bool {
        self.blocks_stuck_ns() >= STUCK_NS
    }

    /// Lets time pass: asks for a newer checkpoint if need be.
    pub(super) fn sync_tick(&mut self) {
        if self.options.is_solo() {
            return;
        }
        self.missing_tick();
        let now_ns = self.now.monotonic_ns;
        if self.sync.executed_ns == 0 || self.sync.executed != self.commit.op {
            self.sync.executed = self.commit.op;
            self.sync.executed_ns = now_ns;
        }
        let opening = self.status == Status::Opening(Opening::Checkpoint);
        let opened = !matches!(self.status, Status::Opening(_));
        let wanted = opened && self.waits_for_sync() || (opened || opening) && self.lacks_blocks();
        if wanted && now_ns.saturating_sub(self.sync.asked_ns) >= ASK_NS {
            self.sync.asked_ns = now_ns;
            let replica = self.next_peer();
            if let Some(message) = self.control(Command::RequestCheckpoint) {
                self.send_control(replica, message);
            }
        }
    }
}
