//! Mutations: deliberate mistakes that the simulator must notice.
//!
//! `mutated!("name")` is false, and costs nothing, unless the program was built with the feature
//! `mutations` and this one was chosen with [`choose`]. They test the checkers: a checker that
//! never caught anything is not trusted. Production is built without the feature.

/// All mutations, in alphabetical order.
pub const MUTATIONS: [&str; 25] = [
    "ack_before_durable",
    "ack_beyond_checkpoint",
    "answer_ahead",
    "checkpoint_backwards",
    "commit_without_quorum",
    "count_syncing_checkpoint",
    "cut_without_quorum",
    "drop_chain_rollback",
    "execute_twice",
    "forget_log_view",
    "forget_sync_range",
    "nack_damaged",
    "recover_leads",
    "retry_sync",
    "reuse_blocks_early",
    "serve_unverified",
    "skip_block_repair",
    "skip_chain_check",
    "skip_log_scrub",
    "skip_sync",
    "skip_sync_walk",
    "trust_one_clock",
    "trust_uncertain_head",
    "upgrade_hastily",
    "vote_after_recover",
];

/// Whether the named mistake is to be made now.
#[macro_export]
macro_rules! mutated {
    ($name:literal) => {{
        const INDEX: usize =
            $crate::protocol::names::position(&$crate::protocol::mutations::MUTATIONS, $name);
        $crate::protocol::mutations::is_chosen(INDEX)
    }};
}

#[cfg(feature = "mutations")]
static CHOSEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(usize::MAX);

/// Whether the mutation with this index was chosen; see [`mutated!`].
#[cfg(feature = "mutations")]
#[must_use]
pub fn is_chosen(index: usize) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == index
}

/// Never: this program was built without mistakes.
#[cfg(not(feature = "mutations"))]
#[must_use]
pub const fn is_chosen(_index: usize) -> bool {
    false
}

/// Chooses the one mistake that this process makes from now on.
///
/// # Errors
///
/// What is wrong, for people: there is none of that name, or none was built in.
#[cfg(feature = "mutations")]
pub fn choose(name: &str) -> Result<(), String> {
    let Some(index) = MUTATIONS.iter().position(|known| *known == name) else {
        return Err(format!("no mutation '{name}'; there are {}", MUTATIONS.join(", ")));
    };
    CHOSEN.store(index, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

/// Refuses: this program was built without mistakes.
///
/// # Errors
///
/// Always.
#[cfg(not(feature = "mutations"))]
pub fn choose(name: &str) -> Result<(), String> {
    Err(format!("mutation '{name}': build with --features mutations to have it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the list is sorted, nothing is chosen by itself, and unknown names are refused.
    #[test]
    fn off_by_default() {
        assert!(MUTATIONS.is_sorted());
        assert!(!mutated!("ack_before_durable"));
        assert!(choose("no_such_mistake").is_err());
    }
}
