//! What travels and is stored: headers, commands, checksum, multi-batch, record types.
