//! Tests: named scenarios of view change, repair and recovery that random seeds seldom reach.
//!
//! The scenarios are texts in `scenarios/`, one file for each theme; their language is explained
//! in `scenarios/README.md`. `FLORIN_SCENARIO=words` runs only those whose names have these
//! words, and `FLORIN_MUTATION=name`, in a build with the feature `mutations`, makes a mistake that
//! they should find.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::test_script::{parse, run};

/// Runs all scenarios of one file and fails with every line that failed.
#[track_caller]
fn run_all(file: &str, count_min: usize) {
    #[cfg(feature = "mutations")]
    if let Ok(name) = std::env::var("FLORIN_MUTATION") {
        crate::protocol::mutations::choose(&name).expect("a mutation");
    }
    let path = format!("{}/src/vsr/scenarios/{file}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the scenarios are there");
    let wanted = std::env::var("FLORIN_SCENARIO").unwrap_or_default();
    let scenarios = parse(&text);
    assert!(scenarios.len() >= count_min, "{file} has its scenarios");
    let mut failures = String::new();
    for scenario in scenarios.iter().filter(|scenario| scenario.name.contains(&wanted)) {
        let explained = scenario.lines.first().is_some_and(|(_, line)| line.starts_with("why "));
        assert!(explained, "'{}' says why it matters", scenario.name);
        let mut at = 0;
        let result = catch_unwind(AssertUnwindSafe(|| run(scenario, &mut at)));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            let line = if at == 0 { "the end".to_owned() } else { format!("line {at}") };
            let name = &scenario.name;
            writeln!(failures, "{file}, '{name}', {line}: {text}").expect("to a string");
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// Goal: the start, normal operation, clients and standbys, in every size of a cluster.
#[test]
fn scenarios_of_normal_operation() {
    run_all("normal", 15);
}

/// Goal: nothing acknowledged is lost when primaries die or seem to, and service goes on.
#[test]
fn scenarios_of_view_changes() {
    run_all("view_change", 25);
}

/// Goal: messages of the past change nothing.
#[test]
fn scenarios_of_late_messages() {
    run_all("late_messages", 12);
}

/// Goal: what is damaged or missing is fetched; what can't be is waited for, and never forgotten.
#[test]
fn scenarios_of_repair() {
    run_all("repair", 25);
}

/// Goal: who has lost its file makes the cluster forget nothing, and is whole again.
#[test]
fn scenarios_of_lost_files() {
    run_all("recover", 7);
}

/// Goal: timestamps are right and increase as long as a majority of clocks is right.
#[test]
fn scenarios_of_time() {
    run_all("time", 10);
}

/// Goal: checkpoints and a log that wraps around hold in a cluster, with replicas that lag.
#[test]
fn scenarios_of_checkpoints() {
    run_all("checkpoint", 10);
}

/// Goal: who has fallen out of the log comes back with a checkpoint of others, and no more than it.
#[test]
fn scenarios_of_sync() {
    run_all("sync", 4);
}

/// Goal: a cluster of one that executes ahead of its log tells nobody before it is durable.
#[test]
fn scenarios_of_one_alone() {
    run_all("alone", 5);
}
