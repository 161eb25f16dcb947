//! The `florin` binary.

use florin::io::allocator::FrozenAllocator;
use std::process::ExitCode;

/// Counts what is allocated, and refuses once a server has started.
#[global_allocator]
static ALLOCATOR: FrozenAllocator = FrozenAllocator;

fn main() -> ExitCode {
    florin::cli::run()
}
