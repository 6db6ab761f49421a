//! The words of each service that a decoy can look like, with the document that they are from.
//!
//! Data, and how a line picks its answer. Pure, run by the sensor. Must never name a product version or a host.
#![forbid(unsafe_code)]

use super::Next::{self, Close, Listen};

/// Longest IMAP tag that is repeated, bytes. Clients use four to ten.
const TAG_LIMIT: usize = 32;

/// A line protocol: what is said to which command word. `$` stands for the IMAP tag.
#[derive(Debug)]
pub struct Script {
    pub(super) greeting: &'static str,
    tagged: bool,
    answers: &'static [(&'static str, &'static str, Next)],
    otherwise: &'static str,
}

/// A protocol in which only the order of lines matters. The last answer must close.
#[derive(Debug)]
pub struct Turns {
    pub(super) greeting: &'static [u8],
    pub(super) answers: &'static [(&'static [u8], Next)],
}

// RFC 959.
pub(super) static FTP: Script = Script {
    greeting: "220 FTP server ready.\r\n",
    tagged: false,
    answers: &[
        ("USER", "331 Please specify the password.\r\n", Listen),
        ("PASS", "530 Login incorrect.\r\n", Listen),
        ("AUTH", "502 Command not implemented.\r\n", Listen),
        ("QUIT", "221 Goodbye.\r\n", Close),
    ],
    otherwise: "530 Please login with USER and PASS.\r\n",
};

// RFC 5321, RFC 4954.
pub(super) static SMTP: Script = Script {
    greeting: "220 mail ESMTP\r\n",
    tagged: false,
    answers: &[
        ("EHLO", "250-mail\r\n250-SIZE 10485760\r\n250 8BITMIME\r\n", Listen),
        ("HELO", "250 mail\r\n", Listen),
        ("NOOP", "250 2.0.0 OK\r\n", Listen),
        ("RSET", "250 2.0.0 OK\r\n", Listen),
        ("MAIL", "530 5.7.0 Authentication required\r\n", Listen),
        ("RCPT", "530 5.7.0 Authentication required\r\n", Listen),
        ("AUTH", "535 5.7.8 Authentication credentials invalid\r\n", Listen),
        ("QUIT", "221 2.0.0 Bye\r\n", Close),
    ],
    otherwise: "502 5.5.2 Command not recognized\r\n",
};

// RFC 1939, RFC 2449.
pub(super) static POP3: Script = Script {
    greeting: "+OK POP3 server ready\r\n",
    tagged: false,
    answers: &[
        ("CAPA", "+OK\r\nUSER\r\nUIDL\r\n.\r\n", Listen),
        ("USER", "+OK\r\n", Listen),
        ("PASS", "-ERR [AUTH] Authentication failed.\r\n", Listen),
        ("QUIT", "+OK Logging out\r\n", Close),
    ],
    otherwise: "-ERR Unknown command.\r\n",
};

// RFC 3501, RFC 5530.
pub(super) static IMAP: Script = Script {
    greeting: "* OK [CAPABILITY IMAP4rev1] IMAP4 ready\r\n",
    tagged: true,
    answers: &[
        ("CAPABILITY", "* CAPABILITY IMAP4rev1\r\n$ OK Capability completed.\r\n", Listen),
        ("NOOP", "$ OK NOOP completed.\r\n", Listen),
        ("LOGIN", "$ NO [AUTHENTICATIONFAILED] Authentication failed.\r\n", Listen),
        ("AUTHENTICATE", "$ NO [AUTHENTICATIONFAILED] Authentication failed.\r\n", Listen),
        ("LOGOUT", "* BYE Logging out\r\n$ OK Logout completed.\r\n", Close),
    ],
    otherwise: "$ BAD Unknown command.\r\n",
};

// RFC 3977.
pub(super) static NNTP: Script = Script {
    greeting: "200 news server ready\r\n",
    tagged: false,
    answers: &[("QUIT", "205 Connection closing\r\n", Close)],
    otherwise: "480 Authentication required\r\n",
};

// RFC 9112: the server speaks after the empty line that ends the request's head.
pub(super) static HTTP: Script = Script {
    greeting: "",
    tagged: false,
    answers: &[("", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", Close)],
    otherwise: "",
};

// RFC 4253 §4.2: an identification string; hanging up afterwards is what a busy server does.
pub(super) static SSH: Turns = Turns { greeting: b"SSH-2.0-OpenSSH\r\n", answers: &[(b"", Close)] };

// RFC 854: IAC DO TERMINAL-TYPE, IAC DO TERMINAL-SPEED. No option is asked for whose answer would hold a line end.
pub(super) static TELNET: Turns = Turns {
    greeting: b"\xff\xfd\x18\xff\xfd\x20\r\nlogin: ",
    answers: &[
        (b"Password: ", Listen),
        (b"\r\nLogin incorrect\r\nlogin: ", Listen),
        (b"Password: ", Listen),
        (b"\r\nLogin incorrect\r\n", Close),
    ],
};

// A MySQL error packet (length 23, sequence 0, code 1040) in place of a handshake, which would have to name a version.
pub(super) static MYSQL: Turns =
    Turns { greeting: b"\x17\x00\x00\x00\xff\x10\x04Too many connections", answers: &[] };

// RFC 6143 §7.1: no security type, and the reason's length and text.
pub(super) static VNC: Turns = Turns {
    greeting: b"RFB 003.008\n",
    answers: &[(b"\x00\x00\x00\x00\x1aToo many security failures", Close)],
};

pub(super) static RSYNC: Turns =
    Turns { greeting: b"@RSYNCD: 31.0\n", answers: &[(b"", Listen), (b"@ERROR: access denied\n", Close)] };

impl Script {
    pub(super) fn answer(&self, line: &[u8], out: &mut Vec<u8>) -> Next {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let tag = if self.tagged { words.next().map_or("*", printable_tag) } else { "" };
        let word = words.next().unwrap_or(b"");
        let known = self.answers.iter().find(|(command, ..)| command.as_bytes().eq_ignore_ascii_case(word));
        let (text, next) = known.map_or((self.otherwise, Listen), |&(_, text, next)| (text, next));
        out.extend_from_slice(text.replace('$', tag).as_bytes());
        next
    }
}

/// The tag itself if it could be one (RFC 3501 §9), else the `*` of an untagged answer.
fn printable_tag(word: &[u8]) -> &str {
    let fit = word.len() <= TAG_LIMIT && word.iter().all(u8::is_ascii_alphanumeric);
    std::str::from_utf8(word).ok().filter(|_| fit).unwrap_or("*")
}
