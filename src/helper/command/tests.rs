//! Programs that are run, watched and ended. Tests.
#![forbid(unsafe_code)]

use nix::sys::signal::{SigSet, SigmaskHow};

use super::*;
use crate::protocol::wording::words;

fn end_of(text: &str, limit: Duration) -> Result<(), Failure> {
    let mut running = Running::start(&words(text), limit)?;
    loop {
        if let Some(end) = running.look(Instant::now()) {
            return end;
        }
        let mut fds: Vec<PollFd<'_>> = running.watch().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let left = running.deadline().saturating_duration_since(Instant::now()).as_millis() + 1;
        poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
    }
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn the_exit_status_and_the_first_line_of_standard_error_are_told() {
    assert_eq!(end_of("true", LONG), Ok(()));
    let failure = end_of("echo out; echo why >&2; echo more >&2; exit 3", LONG).unwrap_err();
    assert_eq!(failure, Failure { fault: Fault::Exit(3), text: "why".into() });
    assert_eq!(end_of("kill -9 $$", LONG).unwrap_err().fault, Fault::Signal(9));
    assert_eq!(end_of("/nonexistent/x 192.0.2.7", LONG).unwrap_err().fault, Fault::Errno(libc::ENOENT));
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let begun = Instant::now();
    let failure = end_of("sleep 30 & wait", Duration::from_millis(200)).unwrap_err();
    assert!(matches!(failure.fault, Fault::Hung(_)) && begun.elapsed() < LONG);
}

#[test]
fn a_flood_is_read_and_dropped_and_a_background_child_holds_up_nobody() {
    let flood = "i=0; while [ $i -lt 2000 ]; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa >&2; i=$((i+1)); done";
    assert_eq!(end_of(flood, LONG), Ok(()));
    let begun = Instant::now();
    assert_eq!(end_of("sleep 3 >/dev/null 2>&1 & exit 0", LONG), Ok(()));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_program_that_has_closed_its_standard_error_wakes_nobody_until_it_ends() {
    let mut running = Running::start(&words("exec 2>&-; sleep 30; true"), LONG).unwrap();
    while running.stderr.is_some() {
        assert_eq!(running.look(Instant::now()), None);
    }
    let mut fds: Vec<PollFd<'_>> = running.watch().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    assert_eq!(poll(&mut fds, PollTimeout::from(300u16)).unwrap(), 0);
}

#[test]
fn a_program_that_cannot_be_watched_is_ended_and_taken_for_one_that_was_cut_short() {
    let (mut command, name) = prepared(&words("sleep 60")).unwrap();
    let child = command.stdin(Stdio::null()).spawn().unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    assert!(process.exists());
    let none_left = |_| Err(io::Error::from_raw_os_error(libc::EMFILE));
    let failure = Running::watched(child, &name, LONG, none_left).unwrap_err();
    assert!(
        failure.fault.is_cut_short() && failure.text.starts_with("sleep cannot be watched"),
        "{failure:?}"
    );
    assert!(!process.exists());
}

#[test]
fn a_program_whose_end_somebody_else_has_taken_has_ended_all_the_same() {
    let mut running = Running::start(&words("true"), LONG).unwrap();
    nix::sys::wait::waitpid(Pid::from_raw(running.child.id().try_into().unwrap()), None).unwrap();
    let failure = running.look(Instant::now()).unwrap().unwrap_err();
    assert!(failure.fault.is_cut_short() && failure.text.starts_with("its end was not seen"), "{failure:?}");
}

#[test]
fn a_program_is_found_on_the_path_or_nowhere() {
    assert!(found("sh").is_some() && found("/bin/sh").is_some());
    assert!(found("no-such-program").is_none() && found("/etc/passwd").is_none() && found("").is_none());
}

#[test]
fn input_is_given_and_signals_are_not_blocked() {
    let grep = ["grep", "-q", "right", "-"];
    assert_eq!(run_to_end(&grep, "left\nright\n", LONG), Ok(()));
    assert_eq!(run_to_end(&grep, "left\n", LONG).unwrap_err().fault, Fault::Exit(1));
    // As the helper does.
    let before =
        SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP]).thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
    let blocks_none = ["grep", "-q", "^SigBlk:[[:space:]]*0*$", "/proc/self/status"];
    assert_eq!(run_to_end(&blocks_none, "", LONG), Ok(()));
    // Which sends it SIGTERM, and no other signal.
    assert_eq!(end_of("timeout 0.1 sleep 60", LONG).unwrap_err().fault, Fault::Exit(124));
    before.thread_set_mask().unwrap();
}

#[test]
fn what_a_program_says_is_read_and_no_more_of_it_than_was_asked_for() {
    assert_eq!(run_and_read(&["echo", "one"], LONG, 5), Ok(Some("one\n".into())));
    assert_eq!(run_and_read(&["true"], LONG, 5), Ok(Some(String::new())));
    assert_eq!(run_and_read(&["echo", "four"], LONG, 5), Ok(None));
    assert_eq!(run_and_read(&["cat", "/dev/zero"], LONG, 100_000), Ok(None));
    let (lines, begun) = (run_and_read(&["seq", "30000"], LONG, 1 << 20).unwrap().unwrap(), Instant::now());
    assert_eq!(lines.lines().count(), 30_000);
    assert_eq!(run_and_read(&["cat", "/nonexistent"], LONG, 9).unwrap_err().fault, Fault::Exit(1));
    assert!(begun.elapsed() < LONG);
}

#[test]
fn a_program_sees_the_two_variables_that_it_is_told_of_and_says_no_more_than_a_line() {
    let seen = run_and_read(&["env"], Duration::from_secs(10), 4096).unwrap().unwrap();
    let mut names: Vec<&str> = seen.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "PATH"]);
    let words = ["sh", "-c", "printf %0999d 7 >&2; exit 1"];
    let failure = run_to_end(&words, "", Duration::from_secs(10)).unwrap_err();
    assert_eq!((failure.fault, failure.text.len()), (Fault::Exit(1), FIRST_LINE));
}
