//! Moments as people type them, on the command line and in requests.

use crate::model::code::{Code, Fault};
use crate::model::time::Timestamp;

/// Reads RFC 3339 (`2024-05-01T09:00:00+02:00`, `…Z`), or a date and time of this machine's own zone
/// (`2024-05-01T09:00`, `2024-05-01 09:00`).
pub fn moment(text: &str) -> Result<Timestamp, Fault> {
    let text = text.trim();
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(instant.as_millisecond()));
    }
    let local = text.parse::<jiff::civil::DateTime>().ok();
    match local.and_then(|local| jiff::tz::TimeZone::system().to_zoned_datetime(local).ok()) {
        Some(zoned) => Ok(Timestamp(zoned.timestamp().as_millisecond())),
        None => Err(Fault::new(Code::InputInvalid, format!("{text:?} is no moment such as 2024-05-01T09:00:00+02:00"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(Timestamp(1_000)));
        assert_eq!(moment(" 1970-01-01T02:00:00+02:00"), Ok(Timestamp(0)));
        assert!(moment("2024-05-01T09:00").is_ok() && moment("2024-05-01 09:00:30").is_ok());
        for wrong in ["", "tomorrow", "2024-13-01T00:00:00Z", "9:00"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
