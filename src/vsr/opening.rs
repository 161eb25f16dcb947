//! From a file to a serving replica.
//!
//! Superblock, view, checkpoint, log, replay: each stage leaves the file in a state from which
//! opening can start over, so it may be interrupted anywhere. The view is raised durably before
//! anything is answered, since clients never follow a view back.

use super::fatal::Fatal;
use super::machine::{CheckpointRoot, StateMachine};
use super::replica::{Replica, Status};
use super::superblock::SuperblockError;
use crate::storage::Zones;

/// What an opening replica is doing; in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nothing yet.
    Start,
    /// Reading and repairing the superblock.
    Superblock,
    /// Writing the superblock with the next view.
    View,
    /// Loading the checkpoint.
    Checkpoint,
    /// Reading and repairing the log.
    Journal,
    /// Executing the log from the checkpoint on.
    Replay,
}

impl<M: StateMachine> Replica<M> {
    /// Goes on opening; whether there was progress.
    pub(super) fn pump_opening(&mut self) -> bool {
        let Status::Opening(stage) = self.status else { return false };
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
            ("replica_count", durable.replica_count == 1),
        ];
        if let Some((field, _)) = fields.into_iter().find(|(_, holds)| !holds) {
            return Err(Fatal::Superblock(SuperblockError::Field { field }));
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
        let op = durable.checkpoint.op;
        let config = &self.options.config;
        let grid_size = durable.storage_size.saturating_sub(Zones::new(config).file_size(0));
        let address_max = grid_size / u64::from(config.block_size);
        let opened = self.machine.open(op, &CheckpointRoot { bytes: durable.root, address_max });
        opened.map_err(|fault| Fatal::Checkpoint { op, fault })?;
        Ok(Some(Status::Opening(Opening::Checkpoint)))
    }

    fn open_checkpoint(&mut self) -> Result<Option<Status>, Fatal> {
        if !self.checkpoint_load()? {
            return Ok(None);
        }
        let checkpoint = self.superblock.durable().checkpoint;
        self.commit.op = checkpoint.op;
        self.recovery.start(&checkpoint, &mut self.outbox.storage);
        Ok(Some(Status::Opening(Opening::Journal)))
    }

    fn open_journal(&mut self) -> Result<Option<Status>, Fatal> {
        if self.recovery.is_read() {
            self.head = self.recovery.solo_head()?;
            self.clock.newest = self.head.timestamp;
            self.recovery.finish_solo(&self.head, &mut self.outbox.storage);
        }
        if !self.recovery.is_done() {
            return Ok(None);
        }
        self.recovery.open(&mut self.journal);
        Ok(Some(Status::Opening(Opening::Replay)))
    }

    fn open_replay(&mut self) -> Option<Status> {
        assert!(self.commit.op <= self.head.op);
        if self.commit.op < self.head.op { None } else { Some(Status::Normal) }
    }
}
