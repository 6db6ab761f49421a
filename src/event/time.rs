//! Microseconds since 1970 UTC → text in local time. The zone is read once, at the start: later no file can be opened.
#![forbid(unsafe_code)]

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The system's time zone, fully loaded; UTC where it cannot be read.
pub fn local_zone() -> TimeZone {
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}

/// Suricata EVE's form: `2026-11-22T00:38:01.758123+0000`.
pub fn eve(micros: u64, zone: &TimeZone) -> String {
    formatted("%Y-%m-%dT%H:%M:%S%.6f%z", micros, zone)
}

/// The history file's form: `2026-11-22T00:38:01.758+0000`.
pub fn history(micros: u64, zone: &TimeZone) -> String {
    formatted("%Y-%m-%dT%H:%M:%S%.3f%z", micros, zone)
}

/// RFC 3164's form, which local syslog daemons read in local time: `Nov  2 00:38:01`.
pub fn syslog(micros: u64, zone: &TimeZone) -> String {
    formatted("%b %e %H:%M:%S", micros, zone)
}

/// For people: `2026-11-22 00:38:01`.
pub fn plain(micros: u64, zone: &TimeZone) -> String {
    formatted("%Y-%m-%d %H:%M:%S", micros, zone)
}

fn formatted(format: &str, micros: u64, zone: &TimeZone) -> String {
    jiff::fmt::strtime::format(format, &zoned(micros, zone)).unwrap_or_default()
}

/// Times beyond the year 9999 are shown as its end.
fn zoned(micros: u64, zone: &TimeZone) -> Zoned {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX).to_zoned(zone.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: u64 = 1_795_307_881_758_123;

    #[test]
    fn each_form_is_exact() {
        let zone = TimeZone::UTC;
        assert_eq!(eve(MOMENT, &zone), "2026-11-22T00:38:01.758123+0000");
        assert_eq!(history(MOMENT, &zone), "2026-11-22T00:38:01.758+0000");
        assert_eq!(syslog(MOMENT - 20 * 86_400_000_000, &zone), "Nov  2 00:38:01");
        assert_eq!(plain(MOMENT, &zone), "2026-11-22 00:38:01");
        assert_eq!(eve(1_000_000, &zone), "1970-01-01T00:00:01.000000+0000");
    }

    #[test]
    fn local_time_carries_its_offset() {
        let zone = TimeZone::posix("<-0330>3:30<-0230>,M3.2.0,M11.1.0").unwrap();
        assert_eq!(eve(MOMENT, &zone), "2026-11-21T21:08:01.758123-0330");
    }

    #[test]
    fn no_time_is_too_late_to_be_written() {
        assert!(eve(u64::MAX, &TimeZone::UTC).starts_with("9999-"));
    }
}
