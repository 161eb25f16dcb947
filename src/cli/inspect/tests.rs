//! Looking at files that were made for the purpose, without a server.

use super::*;
use crate::cli::exit::ExitClass;
use crate::cli::format;
use crate::io::file::tests::TemporaryPath;
use crate::storage::Config;
use crate::vsr::{Genesis, Superblock};
use std::os::unix::fs::FileExt;
use zerocopy::IntoBytes;

fn formatted(name: &str) -> TemporaryPath {
    let path = TemporaryPath::new(name);
    let genesis = Genesis {
        cluster: 9,
        replica: 0,
        replica_count: 1,
        config: Config::testing(),
        is_recovering: false,
    };
    format::create(&genesis, &path.0, true).unwrap();
    path
}

/// Goal: a fresh file has nothing but its root, and every subject says so.
#[test]
fn fresh_file() {
    let path = formatted("inspect-fresh");
    let path = || path.0.clone();
    for (subject, part) in [
        (Subject::Constants { path: Some(path()) }, "8,192"),
        (Subject::Superblock { path: path() }, "replica"),
        (Subject::Wal { slot: None, path: path() }, "root"),
        (Subject::Wal { slot: Some(0), path: path() }, "op 0"),
        (Subject::Replies { slot: None, path: path() }, "Sessions: none"),
        (Subject::Grid { block: None, list: false, path: path() }, "no checkpoint"),
        (Subject::Manifest { path: path() }, "no checkpoint"),
        (Subject::Log { row: None, accounts: false, path: path() }, "no checkpoint"),
        (Subject::Op { path: path(), op: 0 }, "root"),
        (Subject::Integrity { path: path() }, "intact"),
    ] {
        let (document, failure) = inspect(&subject).unwrap();
        assert_eq!(failure, None);
        assert!(document.human().contains(part), "{subject:?}: {}", document.human());
        let json: serde_json::Value = serde_json::from_str(&document.json()).unwrap();
        assert!(json.is_object());
    }
    let nothing = [
        Subject::Wal { slot: Some(32), path: path() },
        Subject::Replies { slot: Some(0), path: path() },
        Subject::Grid { block: Some(1), list: false, path: path() },
        Subject::Log { row: Some(0), accounts: true, path: path() },
        Subject::Op { path: path(), op: 1 },
    ];
    for subject in nothing {
        assert_eq!(inspect(&subject).unwrap_err().class, ExitClass::Usage, "{subject:?}");
    }
}

/// Goal: a file of another version is refused as such and not as damaged, with all copies shown.
#[test]
fn other_version() {
    let path = formatted("inspect-version");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path.0).unwrap();
    let mut superblock = Superblock::blank();
    file.read_exact_at(superblock.as_mut_bytes(), 0).unwrap();
    superblock.version += 1;
    superblock.seal();
    for copy in 0..4 {
        superblock.copy = copy;
        file.write_all_at(superblock.as_bytes(), u64::from(copy) * 16_384).unwrap();
    }
    let subject = Subject::Superblock { path: path.0.clone() };
    let (document, failure) = inspect(&subject).unwrap();
    assert!(document.human().contains("valid"));
    let failure = failure.unwrap();
    assert_eq!(failure.class, ExitClass::DataFile);
    let version = format!("format version {}", superblock.version);
    assert!(failure.message.contains(&version), "{failure}");
    let subject = Subject::Integrity { path: path.0.clone() };
    assert_eq!(inspect(&subject).unwrap_err().class, ExitClass::DataFile);
}

/// Goal: a slot that was torn, a header that rotted and a header that was not yet written are told
/// apart; only what fails a checksum is damage.
#[test]
fn log_slots() {
    let path = formatted("inspect-slots");
    let subject = Subject::Integrity { path: path.0.clone() };
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path.0).unwrap();
    let config = Config::testing();
    let zones = crate::storage::Zones::new(&config);
    let reserved = crate::vsr::journal_geometry::reserved_header(9, 0);
    let mut root = [0; 256];
    file.read_exact_at(&mut root, zones.wal_header_offset(0)).unwrap();
    file.write_all_at(reserved.as_bytes(), zones.wal_header_offset(0)).unwrap();
    let (document, failure) = inspect(&subject).unwrap();
    assert_eq!(failure, None);
    assert!(document.human().contains("not yet written"), "{}", document.human());
    file.write_all_at(&[1; 16], zones.wal_header_offset(0)).unwrap();
    let (document, failure) = inspect(&subject).unwrap();
    assert_eq!(failure.unwrap().class, ExitClass::Corruption);
    assert!(document.human().contains("redundant header"), "{}", document.human());
    file.write_all_at(&root, zones.wal_header_offset(0)).unwrap();
    file.write_all_at(&[1; 16], zones.wal_prepare_offset(5)).unwrap();
    let (document, failure) = inspect(&subject).unwrap();
    let offset = zones.wal_prepare_offset(5).to_string();
    assert!(failure.unwrap().message.contains(&offset));
    assert!(document.human().contains("it is not needed"), "{}", document.human());
}
