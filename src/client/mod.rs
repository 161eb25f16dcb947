//! A client of the wire protocol in Rust.
