//! The geometry of a data file: every size and interval that its bytes or its history depend on.
//!
//! It is stamped in the superblock when the file is created and never changes. Production,
//! development and tests run the same code with different values. Sizes of caches and the like,
//! which may differ from start to start, are not in here.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::protocol::SECTOR_SIZE;

/// Bytes of a create event: an account or a transfer.
const EVENT_SIZE: u32 = 128;
/// Bytes of a message that are not events: the header, and room for the batch trailer.
const MESSAGE_OVERHEAD: u32 = 256 + 128;
/// Bits of the hash that a merge of `fan_in` runs resolves.
const FAN_IN: u32 = 8;
/// Levels of runs at most.
pub const RUN_LEVELS_MAX: usize = 4;

/// Geometry of a data file; 128 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Config {
    /// Bytes of a grid block: a multiple of 4096, at least 8192.
    pub block_size: u32,
    /// Bytes of the largest request and prepare, header and body: a multiple of 4096.
    pub message_size_max: u32,
    /// Bytes of the largest reply, header and body: a multiple of 4096.
    pub reply_size_max: u32,
    /// Prepares that the write-ahead log holds.
    pub journal_slots: u32,
    /// Ops from checkpoint to checkpoint: op K > 0 makes one iff it is a multiple of this.
    pub checkpoint_interval: u32,
    /// Ops after a checkpoint at which the blocks released before it become free.
    pub release_delay: u32,
    /// Ops prepared and not yet committed at most.
    pub pipeline_max: u32,
    /// Sessions at most.
    pub clients_max: u32,
    /// Rows of events in an in-memory table: a power of two.
    pub event_bar_rows: u32,
    /// Rows of accounts in an in-memory table: a power of two.
    pub account_bar_rows: u32,
    /// Create events in one op at most: follows from `message_size_max`.
    pub batch_max: u32,
    /// Pending transfers that one pulse expires at most.
    pub pulse_max: u32,
    /// Runs that merge into one: 8.
    pub fan_in: u32,
    /// Levels of runs; those of the last never merge.
    pub run_levels_max: u32,
    /// Zero.
    pub reserved: [u8; 72],
}

static_assertions::const_assert_eq!(size_of::<Config>(), 128);

/// Why a configuration is refused: the field, its value, and the rule it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Name of the field.
    pub field: &'static str,
    /// Value found.
    pub value: u64,
    /// What it must be.
    pub expected: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is {}, but must be {}", self.field, self.value, self.expected)
    }
}

impl std::error::Error for ConfigError {}

/// Most create events that fit a message of `message_size_max` bytes.
const fn batch_max(message_size_max: u32) -> u32 {
    (message_size_max - MESSAGE_OVERHEAD) / EVENT_SIZE
}

impl Config {
    /// For real use: large blocks and messages.
    #[must_use]
    pub const fn production() -> Config {
        Config {
            block_size: 524_288,
            message_size_max: 1_048_576,
            reply_size_max: 1_048_576,
            journal_slots: 1024,
            checkpoint_interval: 768,
            release_delay: 64,
            pipeline_max: 8,
            clients_max: 64,
            event_bar_rows: 262_144,
            account_bar_rows: 65_536,
            batch_max: batch_max(1_048_576),
            pulse_max: batch_max(1_048_576) + 1,
            fan_in: FAN_IN,
            run_levels_max: 4,
            reserved: [0; 72],
        }
    }

    /// Kind to a laptop: small messages, a short log, a small file.
    #[must_use]
    pub const fn development() -> Config {
        Config {
            block_size: 65_536,
            message_size_max: 131_072,
            reply_size_max: 1_048_576,
            journal_slots: 256,
            checkpoint_interval: 160,
            release_delay: 16,
            pipeline_max: 8,
            clients_max: 64,
            event_bar_rows: 16_384,
            account_bar_rows: 16_384,
            batch_max: batch_max(131_072),
            pulse_max: batch_max(131_072) + 1,
            fan_in: FAN_IN,
            run_levels_max: 4,
            reserved: [0; 72],
        }
    }

    /// For tests and the simulator: everything so small that all of it happens often.
    #[must_use]
    pub const fn testing() -> Config {
        Config {
            block_size: 8_192,
            message_size_max: 16_384,
            reply_size_max: 16_384,
            journal_slots: 32,
            checkpoint_interval: 16,
            release_delay: 4,
            pipeline_max: 8,
            clients_max: 64,
            event_bar_rows: 512,
            account_bar_rows: 512,
            batch_max: batch_max(16_384),
            pulse_max: batch_max(16_384) + 1,
            fan_in: FAN_IN,
            run_levels_max: 4,
            reserved: [0; 72],
        }
    }

    /// Whether the values are usable, alone and together.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_sizes()?;
        self.validate_ops()?;
        self.validate_rows()?;
        let reserved = self.reserved.iter().map(|byte| u64::from(*byte)).sum();
        require(reserved == 0, "reserved", reserved, "zero")
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let block = self.block_size;
        let sectors = "a multiple of 4096 from 8192 to 16 MiB";
        let fits = |size: u32| {
            size.is_multiple_of(SECTOR_SIZE) && (8192..=16 * 1024 * 1024).contains(&size)
        };
        require(fits(block), "block_size", block.into(), sectors)?;
        let message = self.message_size_max;
        require(fits(message), "message_size_max", message.into(), sectors)?;
        let reply = self.reply_size_max;
        require(fits(reply), "reply_size_max", reply.into(), sectors)
    }

    fn validate_ops(&self) -> Result<(), ConfigError> {
        let clients = self.clients_max;
        require((1..=64).contains(&clients), "clients_max", clients.into(), "from 1 to 64")?;
        let pipeline = self.pipeline_max;
        require((1..=64).contains(&pipeline), "pipeline_max", pipeline.into(), "from 1 to 64")?;
        let delay = self.release_delay;
        let interval = self.checkpoint_interval;
        let short = delay > 0 && delay < interval;
        require(short, "release_delay", delay.into(), "above 0 and below checkpoint_interval")?;
        let needed = u64::from(interval) + u64::from(delay) + u64::from(pipeline);
        let slots = self.journal_slots;
        let known = slots <= 65_536 && needed <= u64::from(slots);
        let rule = "at most 65536, and no less than checkpoint_interval + release_delay + \
                    pipeline_max";
        require(known, "journal_slots", slots.into(), rule)
    }

    fn validate_rows(&self) -> Result<(), ConfigError> {
        let batch = self.batch_max;
        let exact = batch == batch_max(self.message_size_max);
        require(exact, "batch_max", batch.into(), "what message_size_max admits")?;
        let pulse = self.pulse_max;
        let small = pulse > 0 && pulse <= batch + 1;
        require(small, "pulse_max", pulse.into(), "from 1 to batch_max + 1")?;
        let rule = "a power of two up to 2^24 with room for two full batches";
        for (field, rows) in
            [("event_bar_rows", self.event_bar_rows), ("account_bar_rows", self.account_bar_rows)]
        {
            let roomy = rows >= 2 * (batch + 1) && rows <= 1 << 24;
            require(rows.is_power_of_two() && roomy, field, rows.into(), rule)?;
        }
        require(self.fan_in == FAN_IN, "fan_in", self.fan_in.into(), "8")?;
        let levels = self.run_levels_max;
        let max = u32::try_from(RUN_LEVELS_MAX).expect("a few");
        require((1..=max).contains(&levels), "run_levels_max", levels.into(), "from 1 to 4")
    }
}

fn require(
    holds: bool,
    field: &'static str,
    value: u64,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { field, value, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the built-in configurations keep their own rules and the documented figures.
    #[test]
    fn presets_are_valid() {
        for config in [Config::production(), Config::development(), Config::testing()] {
            assert_eq!(config.validate(), Ok(()));
        }
        assert_eq!(Config::production().batch_max, 8189);
        assert_eq!(Config::production().pulse_max, 8190);
        assert_eq!(Config::development().batch_max, 1021);
    }

    /// Goal: each broken field is named, and every bit of garbage from disk is survived.
    #[test]
    fn broken_fields_are_named() {
        let field_of = |change: fn(&mut Config)| {
            let mut config = Config::production();
            change(&mut config);
            config.validate().unwrap_err().field
        };
        assert_eq!(field_of(|config| config.block_size = 4096), "block_size");
        assert_eq!(field_of(|config| config.message_size_max = 5000), "message_size_max");
        assert_eq!(field_of(|config| config.reply_size_max = 0), "reply_size_max");
        assert_eq!(field_of(|config| config.journal_slots = 800), "journal_slots");
        assert_eq!(field_of(|config| config.release_delay = 768), "release_delay");
        assert_eq!(field_of(|config| config.clients_max = 0), "clients_max");
        assert_eq!(field_of(|config| config.pipeline_max = 100), "pipeline_max");
        assert_eq!(field_of(|config| config.batch_max = 8190), "batch_max");
        assert_eq!(field_of(|config| config.pulse_max = 0), "pulse_max");
        assert_eq!(field_of(|config| config.event_bar_rows = 300_000), "event_bar_rows");
        assert_eq!(field_of(|config| config.account_bar_rows = 512), "account_bar_rows");
        assert_eq!(field_of(|config| config.fan_in = 4), "fan_in");
        assert_eq!(field_of(|config| config.run_levels_max = 9), "run_levels_max");
        assert_eq!(field_of(|config| config.reserved[71] = 1), "reserved");
        let garbage = Config::read_from_bytes(&[0xff; 128]).unwrap();
        assert_eq!(
            garbage.validate().unwrap_err().to_string(),
            "block_size is 4294967295, but must be a multiple of 4096 from 8192 to 16 MiB"
        );
    }
}
