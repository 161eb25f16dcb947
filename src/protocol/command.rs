//! What a frame is: the command byte of its header.
//!
//! Covers the commands between client and server and the replicas' own ones in use. A byte that is
//! not listed here is never sent and closes the connection it arrives on.

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Client to replica: are you there, and in which view?
    PingClient = 3,
    /// Replica to client: the answer.
    PongClient = 4,
    /// Client to replica: register a session or execute an operation.
    Request = 5,
    /// Primary to backup, and in the log: requests with their place in history.
    Prepare = 6,
    /// Replica to client: the result of a request.
    Reply = 8,
    /// Primary to client: the session is over, and why.
    Eviction = 18,
}

/// A command byte that no frame of ours carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandUnknown(pub u8);

impl TryFrom<u8> for Command {
    type Error = CommandUnknown;

    fn try_from(value: u8) -> Result<Command, CommandUnknown> {
        match value {
            3 => Ok(Command::PingClient),
            4 => Ok(Command::PongClient),
            5 => Ok(Command::Request),
            6 => Ok(Command::Prepare),
            8 => Ok(Command::Reply),
            18 => Ok(Command::Eviction),
            unknown => Err(CommandUnknown(unknown)),
        }
    }
}

impl From<Command> for u8 {
    fn from(command: Command) -> u8 {
        command as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: exactly the six known bytes are commands and each converts back to itself.
    #[test]
    fn bytes() {
        let mut known = Vec::new();
        for byte in 0..=u8::MAX {
            match Command::try_from(byte) {
                Ok(command) => {
                    assert_eq!(u8::from(command), byte);
                    known.push(byte);
                }
                Err(error) => assert_eq!(error, CommandUnknown(byte)),
            }
        }
        assert_eq!(known, [3, 4, 5, 6, 8, 18]);
    }
}
