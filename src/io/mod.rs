//! The real world: io_uring event loop, data file, message bus, clock, allocator, worker.
