//! Assignments + command line + environment → one checked [`Config`], with the origin of every key.
//!
//! [`parse`] is pure; [`load`] is the one function that reads files. Every error is collected, so that one run shows
//! all of them; a file with any error configures nothing.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::error::{ConfigError, Origin, Position};
use super::ignore::parse_ignore;
use super::keys::{KEYS, Key, find, nearest};
use super::parse::{Assignment, assignments};
use super::{Config, Flags, combine};

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says, typed.
    pub config: Config,
    /// Every key of the table in its order: the text in force and where it comes from.
    pub settings: Vec<Setting>,
    /// The networks of IGNORE_FILE. [`parse`] leaves them empty.
    pub ignored: Vec<IpNet>,
    /// What the administrator should know, though nothing is wrong.
    pub warnings: Vec<ConfigError>,
    /// The configuration file.
    pub name: String,
    /// What it was read with, to read it again.
    overrides: Overrides,
}

impl Loaded {
    /// Reads the files again, with the same command line.
    ///
    /// # Errors
    /// Every error of both files.
    pub fn reload(&self) -> Result<Loaded, Vec<ConfigError>> {
        load(Path::new(&self.name), &self.overrides)
    }

    /// Where the value of the key `name` comes from.
    pub fn origin(&self, name: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| setting.key.name == name);
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }
}

/// The text in force for one key.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Which key.
    pub key: &'static Key,
    /// Its text; empty means not set.
    pub text: String,
    /// Where the text comes from.
    pub origin: Origin,
}

/// A key's text from elsewhere than the file. It wins over the file.
#[derive(Clone, Debug)]
pub struct Override {
    /// The key's name.
    pub key: &'static str,
    /// Its text.
    pub text: String,
    /// The flag or variable that it came by.
    pub origin: Origin,
}

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Flags and variables that set a key.
    pub settings: Vec<Override>,
    /// Flags that have no key.
    pub flags: Flags,
}

/// open(2)'s flags for both files as they reach the kernel.
pub const OPEN_FLAGS: i32 = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Longest file that is read, bytes: far above any real one, far below what would hurt.
const LONGEST_FILE: u64 = 1 << 20;

/// Reads the configuration file at `path` and the ignore file it names. Every error of both is returned at once.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Loaded, Vec<ConfigError>> {
    let name = path.display().to_string();
    let bytes = read(path).map_err(|reason| {
        let message = format!("cannot read the configuration: {reason}; name another file with -c FILE");
        vec![ConfigError::new(Origin::WholeFile(name.clone()), message)]
    })?;
    let (mut loaded, mut errors) = build(&name, &bytes, overrides);
    match ignore_file(&loaded) {
        Ok(networks) => loaded.ignored = networks,
        Err(more) => errors.extend(more),
    }
    outcome(loaded, errors)
}

/// Reads the configuration `bytes`; `name` stands in errors. Touches no file: `ignored` stays empty.
pub fn parse(name: &str, bytes: &[u8], overrides: &Overrides) -> Result<Loaded, Vec<ConfigError>> {
    let (loaded, errors) = build(name, bytes, overrides);
    outcome(loaded, errors)
}

/// CONTROL_SOCKET of the file at `path`, whatever else is wrong with it: an operator who must lift a block now is not
/// told to mend the file first. The default where the file or the key cannot be read.
pub fn control_socket(path: &Path) -> PathBuf {
    let bytes = read(path).unwrap_or_default();
    build(&path.display().to_string(), &bytes, &Overrides::default()).0.config.control_socket
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| error.to_string())?;
    // Whoever writes into it may never come, and a reload must not wait.
    if file.metadata().is_ok_and(|facts| facts.file_type().is_fifo()) {
        return Err("it is a pipe".into());
    }
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 > LONGEST_FILE {
        true => Err(format!("it is longer than {LONGEST_FILE} bytes")),
        false => Ok(bytes),
    }
}

fn ignore_file(loaded: &Loaded) -> Result<Vec<IpNet>, Vec<ConfigError>> {
    let Some(path) = &loaded.config.ignore_file else {
        return Ok(Vec::new());
    };
    let bytes = read(path).map_err(|reason| {
        let what =
            format!("cannot read IGNORE_FILE {}: {reason}; create it (it may be empty)", path.display());
        let message = format!("{what}, make it readable, or take the key out");
        vec![ConfigError::new(loaded.origin("IGNORE_FILE"), message)]
    })?;
    parse_ignore(&path.display().to_string(), &bytes)
}

/// The errors stand in the order of the text.
fn outcome(loaded: Loaded, mut errors: Vec<ConfigError>) -> Result<Loaded, Vec<ConfigError>> {
    errors.sort();
    errors.dedup();
    if errors.is_empty() { Ok(loaded) } else { Err(errors) }
}

fn build(name: &str, bytes: &[u8], overrides: &Overrides) -> (Loaded, Vec<ConfigError>) {
    let (found, unreadable) = assignments(bytes);
    let in_file = |at, message: String| ConfigError::new(Origin::File(name.into(), at), message);
    let mut errors: Vec<ConfigError> =
        unreadable.into_iter().map(|line| in_file(line.at, line.message)).collect();
    errors.extend(found.iter().filter(|a| find(a.key).is_none()).map(|a| in_file(a.key_at, unknown(a.key))));
    let settings: Vec<Setting> = KEYS.iter().map(|key| setting(key, name, &found, overrides)).collect();
    let mut config = Config { flags: overrides.flags, block_with: Vec::new(), ..Config::default() };
    let faults: Vec<ConfigError> =
        settings.iter().filter_map(|setting| apply(setting, &mut config)).collect();
    let mut loaded = Loaded {
        config,
        settings,
        ignored: Vec::new(),
        warnings: Vec::new(),
        name: name.into(),
        overrides: overrides.clone(),
    };
    let warnings = repeated(&found).into_iter().chain(skipped(&found));
    loaded.warnings = warnings.map(|(at, message)| in_file(at, message)).collect();
    loaded.warnings.sort();
    let unfit = combine::finish(&mut loaded, &faults);
    errors.extend(unfit.into_iter().chain(faults));
    (loaded, errors)
}

fn unknown(key: &str) -> String {
    match nearest(key) {
        Some(near) => format!("unknown key {key}; did you mean {}?", near.name),
        None => format!("unknown key {key}; `portsentry-rs check` on a right file lists all keys"),
    }
}

/// The last one that counts: command line or environment, then the file's last line, then the default.
fn setting(key: &'static Key, name: &str, found: &[Assignment<'_>], overrides: &Overrides) -> Setting {
    let is_set = |text: &str| !text.trim().is_empty();
    let outside = overrides.settings.iter().rev().find(|o| o.key == key.name && is_set(&o.text));
    let inside = found.iter().rev().find(|a| a.key == key.name).filter(|a| is_set(a.value));
    let (text, origin) = match (outside, inside) {
        (Some(o), _) => (o.text.clone(), o.origin.clone()),
        (None, Some(a)) => (a.value.into(), Origin::File(name.into(), a.value_at)),
        (None, None) => (key.default.into(), Origin::Default),
    };
    Setting { key, text, origin }
}

fn apply(setting: &Setting, config: &mut Config) -> Option<ConfigError> {
    if setting.text.is_empty() {
        return None;
    }
    let fault = setting.key.kind.set(config, &setting.text).err()?;
    let origin = setting.origin.advanced(&setting.text, fault.offset);
    Some(ConfigError::new(origin, format!("{}: {}", setting.key.name, fault.message)))
}

/// Lines that a later one makes void.
fn repeated(found: &[Assignment<'_>]) -> Vec<(Position, String)> {
    let void = |key: &Key| {
        let mut all: Vec<&Assignment<'_>> = found.iter().filter(|a| a.key == key.name).collect();
        let last = all.pop().map_or(0, |last| last.key_at.line);
        let message = format!("{} is set again in line {last}, and that one counts", key.name);
        all.into_iter().map(move |a| (a.key_at, message.clone())).collect::<Vec<_>>()
    };
    KEYS.iter().flat_map(void).collect()
}

/// Text after a value that is no comment: PortSentry skips it, and so do we, but not without a word.
fn skipped<'a>(found: &'a [Assignment<'a>]) -> impl Iterator<Item = (Position, String)> + 'a {
    let message = |key: &str| format!("{key} ends at its closing quote; what stands after it is skipped");
    found.iter().filter_map(move |a| a.skipped_at.map(|at| (at, message(a.key))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{BlockMode, FOREVER, Interfaces, LogFormat, Watch};
    use crate::protocol::settings::Response;

    fn good(text: &str) -> Loaded {
        parse("conf", text.as_bytes(), &Overrides::default()).unwrap()
    }

    fn bad(text: &str) -> Vec<String> {
        let errors = parse("conf", text.as_bytes(), &Overrides::default()).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    }

    fn with_flags(text: &str, tcp: Watch, udp: Watch) -> Result<Loaded, Vec<ConfigError>> {
        let flags = Flags { tcp, udp, ..Flags::default() };
        parse("conf", text.as_bytes(), &Overrides { flags, ..Overrides::default() })
    }

    #[test]
    fn the_smallest_file_gets_every_default() {
        let loaded = good("TCP_PORTS=1");
        let config = &loaded.config;
        assert_eq!((config.block_time, config.block_time_max, config.block_time_factor), (3_600, 604_800, 2));
        assert_eq!((config.table_size, config.workers, config.scan_trigger), (16_384, None, 0));
        assert_eq!((config.block_tcp, config.block_udp), (BlockMode::Log, BlockMode::Log));
        assert_eq!((&config.interfaces, config.log_format), (&Interfaces::AllButLoopback, LogFormat::Auto));
        assert_eq!(config.block_with, [Response::Nftables]);
        assert_eq!(config.control_socket, Path::new("/run/portsentry-rs/control.sock"));
        assert_eq!(loaded.settings.len(), KEYS.len());
        assert!(loaded.warnings.is_empty());
    }

    #[test]
    fn all_errors_come_at_once_in_the_order_of_the_file() {
        let text = "TCP_PORTS=\"1,0\"\nUPD_PORTS=\"7\"\nBLOCK_TCP=\"3\"\nBLOCK_TIME = \"1 parsec\"\nNEVER_BLOCK=\"::1, x\"\nK";
        let errors = bad(text);
        let starts = ["conf:1:14: ", "conf:2:1: ", "conf:3:12: ", "conf:4:17: ", "conf:5:19: ", "conf:6:2: "];
        assert_eq!(errors.len(), starts.len(), "{errors:#?}");
        for (error, start) in errors.iter().zip(starts) {
            assert!(error.starts_with(start), "{error} should begin with {start}");
        }
        assert!(errors[1].contains("did you mean UDP_PORTS?"), "{}", errors[1]);
    }

    #[test]
    fn keys_match_whole_and_never_by_their_beginning() {
        assert!(bad("TCP_PORTS=1\nTCP_PORTSX=2")[0].starts_with("conf:2:1: unknown key TCP_PORTSX"));
        assert!(bad("TCP_PORTS=1\nTCP=2")[0].starts_with("conf:2:1: unknown key TCP;"));
        assert!(bad("TCP_PORTS=1\nK=2")[0].starts_with("conf:2:1: unknown key K;"));
    }

    #[test]
    fn the_last_duplicate_wins_and_the_others_are_warned_of() {
        let loaded = good("TCP_PORTS=\"bad\"\nTCP_PORTS=\"7\"\n");
        assert_eq!(loaded.config.tcp_ports.to_string(), "7");
        assert_eq!(loaded.warnings.len(), 1);
        assert!(loaded.warnings[0].to_string().starts_with("conf:1:1: TCP_PORTS is set again in line 2"));
        assert!(
            bad("TCP_PORTS=\"7\"\nTCP_PORTS=\"\"")[0].contains("no port to watch"),
            "emptied by the last one"
        );
    }

    #[test]
    fn an_empty_value_means_not_set() {
        let loaded = good("TCP_PORTS=\"1\"\nBLOCK_TIME=\"\"\nIGNORE_FILE=\"\"\nPORT_BANNER=\"\"");
        assert_eq!(loaded.config.block_time, 3_600);
        assert_eq!((loaded.config.ignore_file, loaded.config.port_banner), (None, None));
    }

    #[test]
    fn something_must_be_watched() {
        assert_eq!(bad("").len(), 1);
        assert!(bad("TCP_PORTS=\"\"")[0].starts_with("conf: there is no port to watch"));
        assert!(bad("TCP_PORTS=\",\"")[0].contains("no port to watch"));
        assert_eq!(bad("TCP_PORTS=\"x\"").len(), 1, "a list with a mistake is not an empty list");
        good("DECOY_UDP_PORTS=53");
    }

    #[test]
    fn the_command_line_and_the_environment_win_over_the_file() {
        let set = |key, text: &str, origin| Override { key, text: text.into(), origin };
        let mut overrides = Overrides::default();
        overrides.settings.push(set("INTERFACES", "eth0,lo", Origin::CommandLine("-i")));
        overrides.settings.push(set("LOG_FORMAT", "classic", Origin::Environment("PORTSENTRY_LOG_FORMAT")));
        let text = b"TCP_PORTS=1\nINTERFACES=any\nLOG_FORMAT=json";
        let loaded = parse("conf", text, &overrides).unwrap();
        assert_eq!(loaded.config.interfaces, Interfaces::Named(vec!["eth0".into(), "lo".into()]));
        assert_eq!(loaded.config.log_format, LogFormat::Classic);
        assert_eq!(loaded.origin("INTERFACES").to_string(), "command line -i");
        overrides.settings[1].text = "xml".into();
        let errors = parse("conf", text, &overrides).unwrap_err();
        assert!(errors[0].to_string().starts_with("environment PORTSENTRY_LOG_FORMAT: LOG_FORMAT: `xml`"));
        overrides.settings[1].text = String::new();
        assert_eq!(parse("conf", text, &overrides).unwrap().config.log_format, LogFormat::Json);
    }

    #[test]
    fn classic_keys_imply_their_responses_in_portsentrys_order() {
        use Response::{Command, HostsDeny, Iptables, Nftables, RunCommand};
        let all = "TCP_PORTS=1\nKILL_ROUTE=\"/sbin/x $TARGET$\"\nKILL_HOSTS_DENY=\"ALL: $TARGET$\"\nKILL_RUN_CMD=\"x\"\n";
        let order = |more: &str| good(&format!("{all}{more}")).config.block_with;
        assert_eq!(order(""), [HostsDeny, Command, RunCommand]);
        assert_eq!(order("KILL_RUN_CMD_FIRST=1"), [RunCommand, HostsDeny, Command]);
        assert_eq!(order("BLOCK_WITH=nftables,command"), [Nftables, Command, HostsDeny, RunCommand]);
        assert_eq!(good("TCP_PORTS=1\nKILL_RUN_CMD=x").config.block_with, [Nftables, RunCommand]);
        let loaded = good("TCP_PORTS=1\nBLOCK_WITH=\"hosts_deny iptables\"");
        assert_eq!(loaded.config.block_with, [HostsDeny, Iptables]);
        assert_eq!(loaded.config.kill_hosts_deny.as_deref(), Some("ALL: $TARGET$"));
    }

    #[test]
    fn a_block_that_could_not_be_made_is_refused() {
        assert!(bad("TCP_PORTS=1\nKILL_ROUTE=\"/sbin/x\"")[0].contains("$TARGET$ is missing"));
        assert!(
            bad("TCP_PORTS=1\nBLOCK_WITH=command")[0]
                .starts_with("conf:2:12: BLOCK_WITH: command needs KILL_ROUTE")
        );
        assert!(bad("TCP_PORTS=1\nBLOCK_WITH=run_command")[0].contains("not allowed here"));
        assert!(bad("TCP_PORTS=1\nBLOCK_UDP=2")[0].starts_with("conf:2:11: BLOCK_UDP=2 needs KILL_RUN_CMD"));
    }

    #[test]
    fn the_longest_block_follows_the_first_unless_both_are_set() {
        assert_eq!(good("TCP_PORTS=1\nBLOCK_TIME=-1").config.block_time_max, FOREVER);
        assert_eq!(good("TCP_PORTS=1\nBLOCK_TIME=2w").config.block_time_max, 1_209_600);
        assert!(
            bad("TCP_PORTS=1\nBLOCK_TIME=2h\nBLOCK_TIME_MAX=1h")[0]
                .starts_with("conf:3:16: BLOCK_TIME_MAX is less")
        );
    }

    #[test]
    fn a_flag_of_1_2_watches_its_protocol_alone() {
        let text =
            "TCP_PORTS=1\nUDP_PORTS=2\nDECOY_UDP_PORTS=3\nADVANCED_PORTS_TCP=10\nADVANCED_EXCLUDE_TCP=2-8";
        let loaded = with_flags(text, Watch::Advanced, Watch::Nothing).unwrap();
        assert_eq!(loaded.config.tcp_ports.to_string(), "1,9");
        assert!(loaded.config.udp_ports.is_empty() && loaded.config.decoy_udp_ports.is_empty());
        let loaded = with_flags("UDP_PORTS=2", Watch::Nothing, Watch::Advanced).unwrap();
        assert_eq!(loaded.config.udp_ports.to_string(), "1-1023");
        let errors = with_flags("UDP_PORTS=2", Watch::Listed, Watch::Nothing).unwrap_err();
        assert!(errors[0].to_string().contains("set TCP_PORTS or DECOY_TCP_PORTS"));
    }

    #[test]
    fn a_missing_ignore_file_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (conf, ignore) = (folder.path().join("conf"), folder.path().join("ignore"));
        std::fs::write(&conf, format!("TCP_PORTS=1\nIGNORE_FILE={}", ignore.display())).unwrap();
        let errors = load(&conf, &Overrides::default()).unwrap_err();
        assert!(errors[0].to_string().contains(":2:13: cannot read IGNORE_FILE"), "{}", errors[0]);
        assert!(errors[0].message.contains("create it"));
        std::fs::write(&ignore, "10.0.0.1/8\n::1 # me").unwrap();
        assert_eq!(load(&conf, &Overrides::default()).unwrap().ignored.len(), 2);
        std::fs::write(&ignore, "10.0.0.1/8\nme").unwrap();
        assert!(load(&conf, &Overrides::default()).unwrap_err()[0].to_string().contains("ignore:2:1: "));
        assert!(load(&ignore.join("x"), &Overrides::default()).unwrap_err()[0].message.contains("-c FILE"));
    }

    #[test]
    fn the_control_socket_is_found_in_a_file_full_of_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("conf");
        std::fs::write(&conf, "TCP_PORTS=0\nCONTROL_SOCKET=/run/x\nK").unwrap();
        assert_eq!(control_socket(&conf), Path::new("/run/x"));
        assert_eq!(control_socket(&folder.path().join("none")), Config::default().control_socket);
    }

    #[test]
    fn the_shipped_files_load_and_mention_every_key() {
        let text = include_str!("../../config/portsentry.conf");
        let loaded = good(text);
        assert_eq!((loaded.config.block_tcp, loaded.config.block_udp), (BlockMode::Block, BlockMode::Block));
        assert!(loaded.warnings.is_empty());
        for key in KEYS {
            assert!(
                text.contains(&format!("\n{}=\"", key.name)) || text.contains(&format!("\n#{}=\"", key.name))
            );
        }
        let ignored = parse_ignore("ignore", include_bytes!("../../config/portsentry.ignore")).unwrap();
        assert_eq!(ignored.len(), 2);
    }

    #[test]
    fn every_example_in_the_shipped_file_is_a_right_value() {
        let text = include_str!("../../config/portsentry.conf");
        let commented = text.lines().filter_map(|line| line.strip_prefix('#'));
        let is_example =
            |line: &&str| line.contains("=\"") && line.starts_with(|c: char| c.is_ascii_uppercase());
        let examples: Vec<&str> = commented.filter(is_example).collect();
        let examples = examples.join("\n");
        let (found, unreadable) = assignments(examples.as_bytes());
        assert!(unreadable.is_empty() && found.len() > 20);
        for example in found {
            let key = find(example.key).unwrap();
            assert_eq!(key.kind.set(&mut Config::default(), example.value), Ok(()), "{}", key.name);
        }
    }

    proptest! {
        #[test]
        fn no_value_of_any_key_makes_it_panic_and_every_refusal_has_a_place(
            key in 0..KEYS.len(),
            value in "\\PC{0,40}|[-0-9,. /:a-z$%]{0,40}|[0-9]{1,30}",
        ) {
            let text = format!("TCP_PORTS=\"1\"\n{}=\"{value}\"", KEYS[key].name);
            for error in parse("conf", text.as_bytes(), &Overrides::default()).err().unwrap_or_default() {
                let shown = error.to_string();
                prop_assert!(shown.starts_with("conf:2:") || shown.starts_with("conf: there is no port"), "{shown}");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse("conf", &bytes, &Overrides::default());
        }
    }
}
