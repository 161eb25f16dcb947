//! The state machine: accounts, transfers, chains, expiry, queries. Knows no replication.
