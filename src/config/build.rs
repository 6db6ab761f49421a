//! Assignments + command line + environment → one checked [`Config`], with the origin of every key.
//!
//! Pure but for `files`, the one room that reads any. Every error is collected, so that one run shows all of them; a
//! file with any error configures nothing.
#![forbid(unsafe_code)]

mod files;
mod loaded;
mod setting;

use super::error::{ConfigError, Origin, few};
use super::keys::{KEYS, find, nearest};
use super::parse::assignments;
use super::{Config, combine};

pub use self::files::{OPEN_FLAGS, control_socket, load};
pub use self::loaded::Loaded;
pub use self::setting::{Override, Overrides, Setting};
use self::setting::{apply, repeated, setting, skipped};

/// Reads the configuration `bytes`; `name` stands in errors. Touches no file: `ignored` stays empty.
pub fn parse(name: &str, bytes: &[u8], overrides: &Overrides) -> Result<Loaded, Vec<ConfigError>> {
    let (loaded, errors) = build(name, bytes, overrides);
    outcome(loaded, errors)
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
    let mut void = repeated(&found);
    void.sort();
    loaded.warnings = few(void.into_iter().map(|(at, message)| in_file(at, message)));
    loaded.warnings.extend(few(skipped(&found).map(|(at, message)| in_file(at, message))));
    loaded.warnings.sort();
    let unfit = combine::finish(&mut loaded, &faults);
    errors.extend(unfit.into_iter().chain(faults));
    (loaded, errors)
}

/// Debian has the modes in /etc/default/portsentry, and many a file has them too: 1.2 passes over what it does not know.
const MODES: &str = "the mode is a flag of the command line: -tcp, -stcp or -atcp, -udp, -sudp or -audp";

fn unknown(key: &str) -> String {
    match (key, nearest(key)) {
        ("TCP_MODE" | "UDP_MODE", _) => format!("unknown key {key}; {MODES}"),
        (_, Some(near)) => format!("unknown key {key}; did you mean {}?", near.name),
        (_, None) => format!("unknown key {key}; `portsentry-rs check` on a right file lists all keys"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::ignore::parse_ignore;
    use crate::config::{BlockMode, Interfaces, LogFormat};
    use crate::detect::weights::HALF_LIFE;
    use crate::protocol::settings::Response;

    pub(in crate::config) fn good(text: &str) -> Loaded {
        parse("conf", text.as_bytes(), &Overrides::default()).unwrap()
    }

    pub(in crate::config) fn bad(text: &str) -> Vec<String> {
        let errors = parse("conf", text.as_bytes(), &Overrides::default()).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_smallest_file_gets_every_default() {
        let loaded = good("TCP_PORTS=1");
        let config = &loaded.config;
        assert_eq!((config.block_time, config.block_time_max, config.block_time_factor), (3_600, 604_800, 2));
        assert_eq!((config.table_size, config.workers, config.scan_trigger), (16_384, None, 0));
        assert_eq!(u64::from(config.score_window), HALF_LIFE.as_secs());
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
        assert!(bad("TCP_PORTS=1\nBLOCK_FILE=2")[0].ends_with("did you mean BLOCKED_FILE?"));
        assert!(bad("TCP_PORTS=1\nUDP_MODE=\"audp\"")[0].contains("UDP_MODE; the mode is a flag"));
        assert!(bad("TCP_PORTS=1\nTCP=2")[0].starts_with("conf:2:1: unknown key TCP;"));
        assert!(bad("TCP_PORTS=1\nK=2")[0].starts_with("conf:2:1: unknown key K;"));
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
        // Servers that this host calls ask back at 113: one probe would shut them out.
        assert!(!loaded.config.tcp_ports.contains(113));
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
