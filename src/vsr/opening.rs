//! From a file to a replica that takes part.
//!
//! Superblock, checkpoint, log: each stage leaves the file in a state from which opening can start
//! over, so it may be interrupted anywhere. A cluster of one raises its view durably before
//! anything is answered, since clients never follow a view back, and replays its log before it
//! serves. A replica of a larger cluster takes part as soon as it knows its log: in the view it
//! was in, except that a primary does not go on where it was but leaves for the next view; if the
//! end of its log is uncertain, it waits for a view to tell it. One whose file was lost recovers
//! first: see [`recover`](super::recover).

use super::do_view_change::Suffix;
use super::fatal::Fatal;
use super::log_chain::LogChain;
use super::machine::StateMachine;
use super::recover::may_recover;
use super::replica::{Replica, Status};
use super::superblock::SuperblockError;
use super::upgrade::check_program;
use crate::mark;
use crate::protocol::PrepareHeader;

/// What an opening replica is doing; in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nothing yet.
    Start,
    /// Reading and repairing the superblock.
    Superblock,
    /// Writing the superblock with the next view: a cluster of one only.
    View,
    /// Loading the checkpoint.
    Checkpoint,
    /// Reading and repairing the log.
    Journal,
    /// Executing the log from the checkpoint on: a cluster of one only.
    Replay,
}

impl<M: StateMachine> Replica<M> {
    /// Goes on opening; whether there was progress.
    pub(super) fn pump_opening(&mut self) -> bool {
        let Status::Opening(stage) = self.status else { return false };
        // Another checkpoint is being taken over: it will be opened, by a replica of its view.
        if self.is_installing() {
            return false;
        }
        let next = match stage {
            Opening::Start => Ok(None),
            Opening::Superblock => self.open_superblock(),
            Opening::View => self.open_view(),
            Opening::Checkpoint => self.open_checkpoint(),
            Opening::Journal => self.open_journal(),
            Opening::Replay => Ok(self.open_replay()),
        };
        match next {
            Ok(None) => false,
            Ok(Some(status)) => {
                self.status = status;
                if status == Status::ViewChange {
                    self.begin_view_change();
                }
                true
            }
            Err(fatal) => {
                self.stop(fatal);
                false
            }
        }
    }

    fn open_superblock(&mut self) -> Result<Option<Status>, Fatal> {
        if !self.superblock.is_idle() {
            return Ok(None);
        }
        let durable = self.superblock.durable();
        let options = &self.options;
        let fields = [
            ("cluster", durable.cluster == options.cluster),
            ("replica", durable.replica == options.replica),
            ("config", durable.config == options.config),
            ("replica_count", durable.replica_count == options.replica_count),
            ("recovering", durable.recovering == 0 || may_recover(options.replica_count)),
        ];
        if let Some((field, _)) = fields.into_iter().find(|(_, holds)| !holds) {
            return Err(Fatal::Superblock(SuperblockError::Field { field }));
        }
        if !options.is_solo() {
            return Ok(Some(Status::Opening(Opening::View)));
        }
        let Some(view) = durable.view.checked_add(1) else {
            return Err(Fatal::Superblock(SuperblockError::Field { field: "view" }));
        };
        self.superblock.update(&mut self.outbox.storage, |superblock| {
            superblock.view = view;
            superblock.log_view = view;
        });
        Ok(Some(Status::Opening(Opening::View)))
    }

    fn open_view(&mut self) -> Result<Option<Status>, Fatal> {
        if !self.superblock.is_idle() {
            return Ok(None);
        }
        let durable = self.superblock.durable();
        self.view = durable.view;
        // A replica whose file was lost takes part in no view before it has all of one.
        self.log_view = if self.is_recovering() { 0 } else { durable.log_view };
        let op = durable.checkpoint.op;
        check_program(op, durable.checkpoint_release, self.options.program)?;
        let opened = self.machine.open(op, &durable.checkpoint_root());
        opened.map_err(|fault| Fatal::Checkpoint { op, fault })?;
        Ok(Some(Status::Opening(Opening::Checkpoint)))
    }

    fn open_checkpoint(&mut self) -> Result<Option<Status>, Fatal> {
        if !self.checkpoint_load()? {
            return Ok(None);
        }
        let checkpoint = self.superblock.durable().checkpoint;
        self.commit.op = checkpoint.op;
        self.commit.checksum = checkpoint.frame.checksum;
        self.commit_max = checkpoint.op;
        self.sync_opened();
        self.recovery.start(&checkpoint, &mut self.outbox.storage);
        Ok(Some(Status::Opening(Opening::Journal)))
    }

    fn open_journal(&mut self) -> Result<Option<Status>, Fatal> {
        if self.recovery.is_done() {
            self.recovery.open(&mut self.journal);
            let solo = self.options.is_solo();
            return Ok(Some(if solo { self.open_solo() } else { self.open_log() }));
        }
        if !self.recovery.is_read() {
            return Ok(None);
        }
        let storage = &mut self.outbox.storage;
        if self.options.is_solo() {
            let head = self.recovery.solo_head()?;
            self.chain = LogChain::new(&head);
            self.recovery.finish_solo(&head, storage);
        } else {
            self.recovery.finish_cluster(storage);
        }
        Ok(self.recovery.is_done().then_some(self.status))
    }

    /// A cluster of one: everything in the log is committed.
    fn open_solo(&mut self) -> Status {
        let head = *self.chain.head();
        self.link_chain();
        assert!(self.chain.op_min() <= self.commit.op + 1, "recovery has followed the chain");
        self.commit_max = head.op;
        self.view_op = head.op;
        self.clock.newest = head.timestamp;
        Status::Opening(Opening::Replay)
    }

    fn open_replay(&mut self) -> Option<Status> {
        assert!(self.commit.op <= self.commit_max);
        if self.commit.op < self.commit_max {
            return None;
        }
        self.timers.view_began(self.now.monotonic_ns);
        Some(Status::Normal)
    }

    /// A replica of a cluster: finds the head of its log, and what it may do with it.
    fn open_log(&mut self) -> Status {
        let checkpoint = self.superblock.durable().checkpoint;
        // What a view began with may be older than a checkpoint that was taken over from others; if
        // that is of a later view, then what the older one had after it was cut off.
        let overtaken = checkpoint.frame.view > self.log_view;
        let recorded = self.recorded_suffix();
        let recorded = recorded.filter(|it| it.head().op >= checkpoint.op && !overtaken);
        let known = recorded.as_ref().map_or(checkpoint, |suffix| *suffix.head());
        let base = if known.op >= checkpoint.op { known } else { checkpoint };
        let took_part = self.log_view == self.view && !self.is_recovering();
        assert!(!took_part || !overtaken, "a checkpoint is of no later view than this replica");
        let head = if took_part { self.newest_in_view(&base) } else { base };
        self.journal.remove_after(head.op);
        if took_part {
            self.journal.retain_view(base.op, self.log_view);
        }
        self.chain = LogChain::new(&head);
        self.change.suffix = recorded.unwrap_or_else(|| Suffix::new(&head));
        for header in self.change.suffix.clone().headers() {
            self.know_header(header);
        }
        self.know_header(&head);
        let pipeline = u64::from(self.options.config.pipeline_max);
        self.learn_commit(head.commit.max(head.op.saturating_sub(pipeline)));
        self.link_chain();
        self.clock.newest = head.timestamp;
        self.view_op = head.op;
        self.repair.restart();
        let uncertain = took_part && self.journal.may_hide_op_after(head.op, self.op_max());
        if uncertain && !crate::mutated!("trust_uncertain_head") {
            mark!("head_uncertain");
            // Another one after every restart, as time goes on.
            let nonce = self.timers.random() ^ self.now.monotonic_ns;
            self.repair.set_nonce(nonce | 1);
            self.view = self.view.max(self.superblock.durable().sync_view);
            return Status::RecoveringHead;
        }
        self.open_view_of_log(took_part)
    }

    /// Where a replica of a cluster goes on that knows its log.
    fn open_view_of_log(&mut self, took_part: bool) -> Status {
        let sync_view = self.superblock.durable().sync_view;
        if !took_part && self.starts_asking() {
            return Status::RecoveringHead;
        }
        let follows = sync_view > self.view;
        if self.options.is_standby() {
            if took_part && !follows {
                self.timers.view_began(self.now.monotonic_ns);
                return Status::Normal;
            }
            // Its log is of another view than the checkpoint: it waits to be told the log.
            self.view = self.view.max(sync_view);
            return Status::RecoveringHead;
        }
        if took_part && !follows && !self.is_primary_index() {
            self.timers.view_began(self.now.monotonic_ns);
            return Status::Normal;
        }
        if took_part {
            self.change.suffix = self.log_suffix();
            self.view += 1;
        }
        if follows {
            self.view = self.view.max(sync_view);
        }
        Status::ViewChange
    }

    /// The newest op that this replica prepared in the view it was in, or what that began with.
    fn newest_in_view(&self, base: &PrepareHeader) -> PrepareHeader {
        let mut newest = *base;
        for header in self.journal.headers() {
            let in_view = header.frame.view == self.log_view && header.op <= self.op_max();
            if in_view && header.op > newest.op {
                newest = *header;
            }
        }
        newest
    }
}
