//! A log whose reader is slow, stuck or gone.

use std::io::{PipeReader, PipeWriter, Read, pipe};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::*;

/// Longer than any of it takes, unless it never ends.
const SOON: Duration = Duration::from_secs(30);

fn log() -> (Arc<Queue>, PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let queue = Arc::new(Queue::default());
    let out = writer.try_clone().unwrap();
    start(queue.clone(), Arc::default(), out).unwrap();
    (queue, reader, writer)
}

/// More than a pipe and the thread's hands can hold.
fn flood(queue: &Queue) -> u64 {
    let line = [b"x".repeat(999), b"\n".to_vec()].concat();
    let lines = (4 * ROOM / line.len()) as u64;
    for _ in 0..lines {
        queue.push(&line);
    }
    lines
}

fn read_all(mut reader: PipeReader) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn lines_come_out_in_order_and_all_of_them_before_the_end() {
    let (queue, reader, writer) = log();
    drop(writer);
    let text = read_all(reader);
    for n in 0..1000 {
        queue.push(format!("{n}\n").as_bytes());
    }
    queue.finish(SOON);
    let expected: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    assert!(text.join().unwrap().lines().eq(expected));
    assert_eq!(queue.dropped(), 0);
}

#[test]
fn a_reader_that_is_stuck_holds_up_nobody_and_what_is_lost_is_counted() {
    let (queue, reader, _writer) = log();
    let lines = flood(&queue);
    let dropped = queue.dropped();
    assert!(0 < dropped && dropped < lines, "{dropped} of {lines}");
    queue.finish(Duration::from_millis(1));
    assert!(!queue.state().ended);
    drop(reader);
}

#[test]
fn lines_come_again_when_the_reader_does() {
    let (queue, reader, writer) = log();
    drop(writer);
    let lines = flood(&queue);
    let dropped = queue.dropped();
    let text = read_all(reader);
    // Before the last one there must be room for it.
    let mut state = queue.state();
    while !state.lines.is_empty() {
        drop(state);
        thread::yield_now();
        state = queue.state();
    }
    drop(state);
    queue.push(b"the last one\n");
    queue.finish(SOON);
    let text = text.join().unwrap();
    assert_eq!(text.lines().count() as u64, lines - dropped + 1);
    assert!(text.ends_with("x\nthe last one\n"));
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let (queue, reader, writer) = log();
    drop((reader, writer));
    queue.push(b"one\n");
    queue.push(b"two\n");
    queue.finish(SOON);
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn a_log_that_somebody_has_made_non_blocking_loses_nothing() {
    let (queue, reader, writer) = log();
    // The flag belongs to the description, which the thread's end of the pipe shares.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    drop(writer);
    for _ in 0..200 {
        queue.push(&[b"y".repeat(999), b"\n".to_vec()].concat());
    }
    let text = read_all(reader);
    queue.finish(SOON);
    assert_eq!(text.join().unwrap().lines().count(), 200);
    assert_eq!(queue.dropped(), 0);
}

#[test]
fn a_panic_is_logged_with_its_place_and_its_backtrace() {
    // The hook is the process's: this is the only test that sets it, and it takes it back.
    let queue = Arc::new(Queue::default());
    let before = super::super::panics::panics();
    let old = std::panic::take_hook();
    let reports = queue.clone();
    super::super::panics::install(move |report| reports.report(report));
    let ended = thread::Builder::new()
        .name("unlucky".to_owned())
        .spawn(|| panic!("a bug"))
        .unwrap()
        .join();
    std::panic::set_hook(old);
    assert!(ended.is_err());
    assert!(super::super::panics::panics() > before);
    let reports = mem::take(&mut queue.state().reports);
    let lines = Arc::new(Queue::default());
    let out = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || Line(out.clone()))
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut teller = Teller::default();
        for report in &reports {
            teller.tell(report, Instant::now());
        }
    });
    let text = String::from_utf8(lines.state().lines.clone()).unwrap();
    for part in [
        "ERROR",
        "a bug",
        "unlucky",
        "lifecycle/writer/tests.rs:",
        "a_panic_is_logged",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}
