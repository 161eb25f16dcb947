//! What a frame is: the command byte of its header.
//!
//! Covers the commands between client and server and the replicas' own ones. A byte that is not
//! listed here is never sent.

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Replica to replica: are you there? Tells where the sender is.
    Ping = 1,
    /// Replica to replica: the answer, with the time.
    Pong = 2,
    /// Client to replica: are you there, and in which view?
    PingClient = 3,
    /// Replica to client: the answer.
    PongClient = 4,
    /// Client to replica: register a session or execute an operation.
    Request = 5,
    /// Primary to backup, and in the log: requests with their place in history.
    Prepare = 6,
    /// Backup to primary: the prepare is durable here.
    PrepareOk = 7,
    /// Replica to client: the result of a request.
    Reply = 8,
    /// Primary to backup: alive, and so far committed.
    Commit = 9,
    /// Replica to replica: a vote to leave the view.
    StartViewChange = 10,
    /// Replica to the new primary: the log here, as the view that is left had it.
    DoViewChange = 11,
    /// Replica to primary: what does your view begin with?
    RequestStartView = 13,
    /// Replica to replica: send headers of a range of ops.
    RequestHeaders = 14,
    /// Replica to replica: send this prepare.
    RequestPrepare = 15,
    /// Replica to replica: headers of prepares.
    Headers = 17,
    /// Primary to client: the session is over, and why.
    Eviction = 18,
    /// Replica to replica: send this block of the grid.
    RequestBlock = 19,
    /// Replica to replica: a block of the grid.
    Block = 20,
    /// Replica to replica: which checkpoint do you have?
    RequestCheckpoint = 21,
    /// Replica to replica: the newest checkpoint here.
    Checkpoint = 22,
    /// Primary to replica: the view begins, with this log.
    StartView = 24,
    /// Anybody to replica: how are you?
    RequestStatus = 25,
    /// Replica to anybody who asked: how it is.
    Status = 26,
    /// Replica to replica, first of all: who this is, and whom it expects.
    Hello = 27,
}

/// A command byte that no frame of ours carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandUnknown(pub u8);

impl TryFrom<u8> for Command {
    type Error = CommandUnknown;

    fn try_from(value: u8) -> Result<Command, CommandUnknown> {
        match value {
            1 => Ok(Command::Ping),
            2 => Ok(Command::Pong),
            3 => Ok(Command::PingClient),
            4 => Ok(Command::PongClient),
            5 => Ok(Command::Request),
            6 => Ok(Command::Prepare),
            7 => Ok(Command::PrepareOk),
            8 => Ok(Command::Reply),
            9 => Ok(Command::Commit),
            10 => Ok(Command::StartViewChange),
            11 => Ok(Command::DoViewChange),
            13 => Ok(Command::RequestStartView),
            14 => Ok(Command::RequestHeaders),
            15 => Ok(Command::RequestPrepare),
            17 => Ok(Command::Headers),
            18 => Ok(Command::Eviction),
            19 => Ok(Command::RequestBlock),
            20 => Ok(Command::Block),
            21 => Ok(Command::RequestCheckpoint),
            22 => Ok(Command::Checkpoint),
            24 => Ok(Command::StartView),
            25 => Ok(Command::RequestStatus),
            26 => Ok(Command::Status),
            27 => Ok(Command::Hello),
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

    /// Goal: exactly the known bytes are commands and each converts back to itself.
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
        assert_eq!(
            known,
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17, 18, 19, 20, 21, 22, 24, 25, 26, 27]
        );
    }
}
