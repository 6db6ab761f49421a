//! The ignore file → networks: one address or network a line, `#` begins a comment anywhere.
//!
//! Pure and total. Host bits are masked, so that `10.0.0.1/8` means what its author meant.
#![forbid(unsafe_code)]

use ipnet::IpNet;

use super::error::{ConfigError, Fault, Origin, few};
use super::networks::{doubt, parse_network};
use super::parse::{lines, readable};

/// Every network of the ignore file `name` with the text `bytes`, or everything that is wrong with it.
pub fn parse_ignore(name: &str, bytes: &[u8]) -> Result<Vec<IpNet>, Vec<ConfigError>> {
    let (mut networks, mut errors) = (Vec::new(), Vec::new());
    for (start, line) in lines(bytes) {
        let content = line.split(|&byte| byte == b'#').next().unwrap_or(line);
        match readable(content).and_then(entry) {
            Ok(network) => networks.extend(network),
            Err(fault) => {
                let shown = String::from_utf8_lossy(content.get(..fault.offset).unwrap_or(content));
                let at = start.advanced(&shown, shown.len());
                errors.push(ConfigError::new(Origin::File(name.into(), at), fault.message));
            }
        }
    }
    if errors.is_empty() { Ok(networks) } else { Err(errors) }
}

/// What is doubtful about a right ignore file.
pub fn doubts_of_ignore(name: &str, bytes: &[u8]) -> Vec<ConfigError> {
    let told = lines(bytes).filter_map(|(start, line)| {
        let content = readable(line.split(|&byte| byte == b'#').next()?).ok()?;
        let at = start.advanced(content, content.len() - content.trim_start().len());
        Some(ConfigError::new(Origin::File(name.into(), at), doubt(content.trim())?))
    });
    few(told)
}

fn entry(content: &str) -> Result<Option<IpNet>, Fault> {
    let item = content.trim();
    if item.is_empty() {
        return Ok(None);
    }
    let begin = content.len() - content.trim_start().len();
    if let Some(blank) = item.find(char::is_whitespace) {
        return Err(Fault::new(begin + blank, "only one address or network a line; begin a comment with #"));
    }
    parse_network(item).map(Some).map_err(|fault| fault.shifted(begin))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<String> {
        parse_ignore("ignore", text.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form_that_people_write_is_read() {
        let text = "\u{feff}# comment\r\n127.0.0.1/32\r\n\n  0.0.0.0 \n10.0.0.1/8 # our net\n2001:DB8::1/32#x\n\
                    172.16.5.4/255.240.0.0\n192.0.2.7";
        let expected =
            ["127.0.0.1/32", "0.0.0.0/32", "10.0.0.0/8", "2001:db8::/32", "172.16.0.0/12", "192.0.2.7/32"];
        assert_eq!(read(text), expected);
        assert_eq!(read(""), Vec::<String>::new());
    }

    #[test]
    fn every_bad_line_is_listed_with_its_place() {
        let errors =
            parse_ignore("ig", b"10.0.0.0/33\nok.example\n::1\n1.2.3.4 5.6.7.8\n\xff\n").unwrap_err();
        let places: Vec<String> =
            errors.iter().map(|error| error.to_string().split(": ").next().unwrap().to_string()).collect();
        assert_eq!(places, ["ig:1:10", "ig:2:1", "ig:4:8", "ig:5:1"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse_ignore("x", &bytes);
        }
    }
}
