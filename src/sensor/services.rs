//! What a decoy says: the greeting of the service that usually lives on its port, and answers to a client's first lines.
//!
//! Pure, run by the sensor. Total: any bytes yield a bounded answer, never a panic. Names no product version and no
//! host, never lets anybody in, and repeats nothing a client sent but an IMAP tag.
#![forbid(unsafe_code)]

mod scripts;

use self::Next::{Close, Listen};
use self::scripts::{FTP, HTTP, IMAP, MYSQL, NNTP, POP3, RSYNC, SMTP, SSH, Script, TELNET, Turns, VNC};

/// Longest line that is looked at, bytes; the rest of a longer one is dropped.
const LINE_LIMIT: usize = 128;
/// Answers to one visitor, at most.
pub const ANSWER_LIMIT: u8 = 8;
/// Bytes of answers to one visitor, at most: [`ANSWER_LIMIT`] of the longest.
pub const SPEECH_LIMIT: usize = ANSWER_LIMIT as usize * 256;

/// Whether the conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for the next line.
    Listen,
    /// Say goodbye.
    Close,
}

/// The kinds of service that a decoy can look like.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// Accepts and says nothing.
    Silent,
    /// Answers a line by its command word.
    Spoken(&'static Script),
    /// Answers the first line, the second and so on, whatever they say.
    Counted(&'static Turns),
    /// RESP: a command is an array, announced by its head line.
    Redis,
}

impl Service {
    /// The service that usually lives on a TCP port, or on the port it is often moved to.
    pub fn at(port: u16) -> Service {
        match port {
            21 | 2121 => Service::Spoken(&FTP),
            22 | 2222 => Service::Counted(&SSH),
            23 | 2323 => Service::Counted(&TELNET),
            25 | 587 => Service::Spoken(&SMTP),
            80 | 81 | 8000 | 8080 | 8888 => Service::Spoken(&HTTP),
            110 => Service::Spoken(&POP3),
            119 => Service::Spoken(&NNTP),
            143 => Service::Spoken(&IMAP),
            873 => Service::Counted(&RSYNC),
            3306 => Service::Counted(&MYSQL),
            5900..=5903 => Service::Counted(&VNC),
            6379 => Service::Redis,
            _ => Service::Silent,
        }
    }

    /// What is said before the client says anything.
    pub fn greeting(self) -> (&'static [u8], Next) {
        match self {
            Service::Silent | Service::Redis => (b"", Listen),
            Service::Spoken(script) => (script.greeting.as_bytes(), Listen),
            Service::Counted(turns) if turns.answers.is_empty() => (turns.greeting, Close),
            Service::Counted(turns) => (turns.greeting, Listen),
        }
    }
}

/// One visitor's side of a conversation: the line that is not whole yet, and how far it got.
#[derive(Debug)]
pub struct Talk {
    service: Service,
    line: Vec<u8>,
    /// Lines answered; for Redis the argument lines that are still to come.
    turn: u8,
    answers: u8,
}

impl Talk {
    /// A conversation in which nothing was heard yet.
    pub fn new(service: Service) -> Talk {
        Talk { service, line: Vec::new(), turn: 0, answers: 0 }
    }

    /// Takes what a client sent, in pieces of any size, and appends the answers to `out`: [`SPEECH_LIMIT`] bytes at
    /// most over a whole conversation.
    pub fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Next {
        for &byte in bytes {
            // Telnet's Return may be CR NUL (RFC 854); no other protocol here has a NUL in its first lines.
            let line_ends = matches!(byte, b'\n' | 0);
            if line_ends && (self.answer_line(out) == Close || self.answers >= ANSWER_LIMIT) {
                return Close;
            }
            if !line_ends && self.line.len() < LINE_LIMIT {
                self.line.push(byte);
            }
        }
        Listen
    }

    fn answer_line(&mut self, out: &mut Vec<u8>) -> Next {
        let line = std::mem::take(&mut self.line);
        let before = out.len();
        let next = match self.service {
            Service::Silent => Listen,
            Service::Spoken(script) => script.answer(&line, out),
            Service::Counted(turns) => self.take_turn(turns, out),
            Service::Redis => self.answer_redis(&line, out),
        };
        self.answers = self.answers.saturating_add(u8::from(out.len() > before));
        next
    }

    fn take_turn(&mut self, turns: &Turns, out: &mut Vec<u8>) -> Next {
        let answer = turns.answers.get(usize::from(self.turn));
        self.turn = self.turn.saturating_add(1);
        out.extend_from_slice(answer.map_or(b"", |answer| answer.0));
        answer.map_or(Close, |answer| answer.1)
    }

    /// An array's head `*N` is followed by N pairs of a `$LENGTH` line and the argument; anything else is an inline command.
    fn answer_redis(&mut self, line: &[u8], out: &mut Vec<u8>) -> Next {
        let line = line.trim_ascii();
        if self.turn > 0 {
            self.turn = self.turn.saturating_sub(1);
            return Listen;
        }
        if let Some(count) = line.strip_prefix(b"*") {
            let count = std::str::from_utf8(count).ok().and_then(|text| text.parse::<u8>().ok());
            self.turn = count.unwrap_or(0).saturating_mul(2);
        }
        if !line.is_empty() {
            out.extend_from_slice(b"-NOAUTH Authentication required.\r\n");
        }
        Listen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said_to(port: u16, bytes: &[u8]) -> (String, Next) {
        let mut out = Vec::new();
        let next = Talk::new(Service::at(port)).hear(bytes, &mut out);
        (String::from_utf8_lossy(&out).into_owned(), next)
    }

    #[test]
    fn ftp_asks_for_a_password_and_refuses_it() {
        let (text, next) = said_to(21, b"user root\r\nPASS toor\r\nQUIT\r\nUSER again\r\n");
        let codes: Vec<&str> = text.lines().map(|line| &line[..3]).collect();
        assert_eq!((codes, next), (vec!["331", "530", "221"], Close));
    }

    #[test]
    fn imap_answers_under_the_tag_that_was_sent() {
        let (text, _) = said_to(143, b"a1 CAPABILITY\r\na2 LOGIN x y\r\na3 FETCH 1\r\n");
        assert!(text.contains("\r\na1 OK ") && text.contains("a2 NO ") && text.contains("a3 BAD "), "{text}");
        let (text, _) = said_to(143, b"\x1b[31m$%s LOGIN x y\r\n");
        assert!(text.starts_with("* NO "), "{text}");
    }

    #[test]
    fn http_waits_for_the_end_of_the_head() {
        assert_eq!(said_to(80, b"GET / HTTP/1.1\r\nHost: x\r\n"), (String::new(), Listen));
        let (text, next) = said_to(8080, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 403 ") && text.ends_with("\r\n\r\n") && next == Close);
    }

    #[test]
    fn telnet_takes_both_forms_of_return() {
        for line_end in ["\r\n", "\r\0"] {
            let typed = ["root", "toor", "root", "toor", ""].join(line_end);
            let (text, next) = said_to(23, typed.as_bytes());
            assert_eq!((text.matches("Password: ").count(), text.matches("incorrect").count()), (2, 2));
            assert_eq!(next, Close);
        }
    }

    #[test]
    fn redis_answers_once_to_an_array_and_once_to_an_inline_command() {
        for command in [&b"*1\r\n$4\r\nPING\r\n"[..], b"PING\r\n", b"*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n"] {
            assert_eq!(said_to(6379, command).0.matches("-NOAUTH").count(), 1);
        }
    }

    #[test]
    fn mysql_hangs_up_with_a_well_formed_error_packet() {
        let (packet, next) = Service::at(3306).greeting();
        assert_eq!((usize::from(packet[0]), next), (packet.len() - 4, Close));
    }

    #[test]
    fn vnc_states_the_length_of_its_reason() {
        let mut out = Vec::new();
        Talk::new(Service::at(5900)).hear(b"RFB 003.008\n", &mut out);
        assert_eq!(usize::from(out[4]), out.len() - 5);
    }

    #[test]
    fn a_port_that_nothing_usually_lives_on_is_silent() {
        assert_eq!(Service::at(54321).greeting(), (&b""[..], Listen));
        assert_eq!(said_to(54321, b"hello\r\n\r\n"), (String::new(), Listen));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_the_answers_stay_bounded(
            port in prop::sample::select(vec![21, 22, 23, 25, 80, 110, 119, 143, 873, 3306, 5900, 6379, 4]),
            pieces in prop::collection::vec(prop::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\n'), Just(b' '), Just(b'$'), Just(b'*')], 0..200), 0..20),
        ) {
            let (mut talk, mut out) = (Talk::new(Service::at(port)), Vec::new());
            for piece in pieces {
                if talk.hear(&piece, &mut out) == Close {
                    break;
                }
                prop_assert!(talk.line.capacity() <= 2 * LINE_LIMIT);
            }
            prop_assert!(out.len() <= SPEECH_LIMIT);
        }
    }
}
