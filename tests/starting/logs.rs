//! Lines of the log: whole, with time, level and replica, and never a reason to stop.

use super::free_port::free_port;
use super::support::{BINARY, Directory, Process, florin, text, wait_for};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Whether a line begins as every event does.
fn is_event(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let (time, level) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let bytes = time.as_bytes();
    let shape = "dddd-dd-ddTdd:dd:dd.dddZ".as_bytes();
    let is_time = bytes.len() == shape.len()
        && bytes.iter().zip(shape).all(|(byte, shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    is_time && ["info", "warning", "error"].contains(&level)
}

/// Goal: three replicas may write to one terminal: each line is one replica's, and a table of
/// memory is not torn apart.
#[test]
fn three_replicas_in_one_terminal() {
    let directory = Directory::new("logs-three");
    let ports: [u16; 3] = std::array::from_fn(|_| free_port());
    let addresses = format!("--addresses={},{},{}", ports[0], ports[1], ports[2]);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut replicas: Vec<Process> = (0..3_u8)
        .map(|index| {
            let path = directory.format(&format!("0_{index}"), index, 3, &["--development"]);
            Process::spawn(
                Command::new(BINARY)
                    .args(["start", "--development", &addresses, &path])
                    .stderr(writer.try_clone().unwrap()),
            )
        })
        .collect();
    drop(writer);
    let (sender, receiver) = mpsc::channel();
    let lines = std::thread::spawn(move || {
        let lines: Vec<String> = BufReader::new(reader)
            .lines()
            .map(Result::unwrap)
            .inspect(|line| {
                let _ = sender.send(line.contains("following replica"));
            })
            .collect();
        lines
    });
    // Two of three follow.
    for _ in 0..2 {
        while !receiver.recv().unwrap() {}
    }
    for replica in &replicas {
        replica.signal("-TERM");
    }
    for replica in &mut replicas {
        replica.expect_zero("after SIGTERM");
    }
    let lines = lines.join().unwrap();
    let all = lines.join("\n");
    let is_row = |line: &String| line.starts_with("  ") && line.ends_with(" MiB");
    assert!(lines.iter().all(|line| is_event(line) || is_row(line)), "{all}");
    for index in 0..3 {
        let event = format!(" info    replica={index} memory reserved:");
        let start = lines.iter().position(|line| line.ends_with(&event)).unwrap();
        let rows = lines[start + 1..].iter().take_while(|line| is_row(line)).count();
        assert!(rows > 15 && lines[start + rows].starts_with("  total "), "{all}");
    }
}

/// Goal: standard error that nobody reads, that nobody holds, or that is closed stops no server.
#[test]
fn standard_error_that_takes_nothing() {
    let directory = Directory::new("logs-stuck");
    let (_reader, full) = std::io::pipe().unwrap();
    fill(&full);
    let (gone, widow) = std::io::pipe().unwrap();
    drop(gone);
    for (index, output) in [Stdio::from(full), Stdio::from(widow)].into_iter().enumerate() {
        let path = directory.path(&format!("{index}.florin"));
        let command = &mut Command::new(BINARY);
        serves(command.args(["dev", "--address=0", &path]).stderr(output));
    }
    let path = directory.path("closed.florin");
    let script = format!("exec {BINARY} dev --address=0 {path} 2>&-");
    serves(Command::new("sh").args(["-c", &script]).stderr(Stdio::null()));
}

/// Goal: a terminal that nobody reads stops no server: it claims to be writable with room for a
/// single character, and a write of a line then waits for a reader.
#[test]
fn a_terminal_that_nobody_reads() {
    let directory = Directory::new("logs-terminal");
    let (mut reader, mut terminal) = terminal_pair();
    set_blocking(&terminal, false);
    // What is written moves on inside the kernel for a moment, and makes room again.
    let mut full_rounds = 0;
    while full_rounds < 5 {
        full_rounds = if terminal.write(b".").is_ok() { 0 } else { full_rounds + 1 };
        if full_rounds > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    set_blocking(&terminal, true);
    // Room for some characters, but not for a line.
    reader.read_exact(&mut [0; 50]).unwrap();
    let path = directory.path("0.florin");
    serves(Command::new(BINARY).args(["dev", "--address=0", &path]).stderr(terminal));
}

/// Goal: the log's own writes never block on a pipe, and the pipe that others share blocks as it
/// did.
#[test]
fn a_shared_pipe_stays_as_it_was() {
    let directory = Directory::new("logs-shared");
    let (reader, writer) = std::io::pipe().unwrap();
    let path = directory.path("0.florin");
    let command = &mut Command::new(BINARY);
    let process = Process::spawn(command.args(["dev", "--address=0", &path]).stderr(writer));
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    lines.find(|line| line.contains("data file opened")).unwrap();
    let folder = format!("/proc/{}", process.0.id());
    let standard_error = std::fs::read_link(format!("{folder}/fd/2")).unwrap();
    let blocks: Vec<(String, bool)> = std::fs::read_dir(format!("{folder}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            let target = std::fs::read_link(format!("{folder}/fd/{name}"));
            target.is_ok_and(|target| target == standard_error)
        })
        .map(|name| {
            let info = std::fs::read_to_string(format!("{folder}/fdinfo/{name}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
            (name, flags & libc::O_NONBLOCK == 0)
        })
        .collect();
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    assert!(blocks.iter().all(|(name, blocks)| (name == "2") == *blocks), "{blocks:?}");
}

/// The two ends of a terminal: the one that shows it, and the one for programs.
#[allow(unsafe_code)]
fn terminal_pair() -> (File, File) {
    let (mut shows, mut programs) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: the pointers are those of live integers, or null, which the call allows.
    let result = unsafe {
        libc::openpty(&raw mut shows, &raw mut programs, null, std::ptr::null(), std::ptr::null())
    };
    assert_eq!(result, 0, "a terminal can be made");
    // SAFETY: the call has opened both descriptors, and nobody else owns them.
    unsafe { (File::from_raw_fd(shows), File::from_raw_fd(programs)) }
}

/// Makes writes to an open file wait, or not.
#[allow(unsafe_code)]
fn set_blocking(file: &File, blocking: bool) {
    let flags = libc::O_RDWR | if blocking { 0 } else { libc::O_NONBLOCK };
    // SAFETY: the call takes no pointers and the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
    assert_eq!(result, 0);
}

/// Writes until nothing more fits.
fn fill(pipe: &std::io::PipeWriter) {
    let (sender, receiver) = mpsc::channel();
    let mut writer = pipe.try_clone().unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_full);
    // A thread, which stays behind: its last write waits for a reader.
    std::thread::spawn(move || {
        while !ends.load(Ordering::SeqCst) && writer.write(&[b'.'; 4096]).is_ok() {
            let _ = sender.send(());
        }
    });
    while receiver.recv_timeout(Duration::from_secs(1)).is_ok() {}
    is_full.store(true, Ordering::SeqCst);
}

/// Asserts that a development server serves and ends.
fn serves(command: &mut Command) {
    let mut process = Process::spawn(command.stdout(Stdio::piped()));
    let mut address = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let addresses = format!("--addresses={}", address.trim());
    wait_for("a healthy server", || {
        let output = florin(&["status", &addresses]);
        text(&output.stdout).contains("healthy").then_some(())
    });
    process.signal("-TERM");
    process.expect_zero("with a standard error that takes nothing");
}

/// Goal: lines that were lost while nobody read are counted once somebody reads again.
#[test]
fn lost_lines_are_counted() {
    let directory = Directory::new("logs-lost");
    let (mut reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    let path = directory.path("0.florin");
    let mut process = Process::spawn(
        Command::new(BINARY)
            .args(["dev", "--address=0", &path])
            .stdout(Stdio::piped())
            .stderr(writer),
    );
    let mut address = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let log = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        text(&bytes)
    });
    std::thread::sleep(Duration::from_millis(300));
    process.signal("-TERM");
    process.expect_zero("after SIGTERM");
    drop(process);
    let log = log.join().unwrap();
    assert!(log.contains("log lines were lost: nothing read standard error"), "{log}");
    assert!(log.trim_end().ends_with("ended by SIGTERM"), "{log}");
}

/// Goal: every line of a JSON log is an object with the same fields.
#[test]
fn json() {
    let directory = Directory::new("logs-json");
    let path = directory.format("0_2", 2, 3, &["--development"]);
    let log = directory.path("log");
    let mut process = Process::spawn(
        Command::new(BINARY)
            .args(["start", "--development", "--log-format=json"])
            .arg(format!("--addresses=1,2,{}", free_port()))
            .arg(&path)
            .stderr(File::create(&log).unwrap()),
    );
    let read = || std::fs::read_to_string(&log).unwrap();
    wait_for("an open data file", || read().contains("data file opened").then_some(()));
    process.signal("-TERM");
    process.expect_zero("after SIGTERM");
    for (index, line) in read().lines().enumerate() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["time"].is_f64() && value["level"].is_string(), "{line}");
        assert!(value["message"].is_string(), "{line}");
        // The first line comes before the data file is read.
        assert_eq!(value["replica"].as_u64(), (index > 0).then_some(2), "{line}");
    }
}

/// Goal: a server reports that its data file was deleted, or cut off, while it runs.
#[test]
fn a_data_file_that_goes() {
    let directory = Directory::new("logs-file");
    for (name, part) in [("deleted", "the data file was deleted"), ("short", "was cut off: it had")]
    {
        let path = directory.format(name, 0, 1, &["--development"]);
        let mut command = Command::new(BINARY);
        let start = ["start", "--development", &format!("--addresses={}", free_port()), &path];
        let mut process = Process::spawn(command.args(start).stderr(Stdio::piped()));
        let lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        lines.find(|line| line.contains("data file opened")).unwrap();
        if name == "deleted" {
            std::fs::remove_file(&path).unwrap();
        } else {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
        }
        let line = lines.find(|line| line.contains(part)).unwrap();
        assert!(line.contains(" warning replica=0 "), "{line}");
    }
}
