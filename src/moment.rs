//! Moments that every format can write: those whose year is one of 0 to 9999.

use time::{OffsetDateTime, UtcOffset};

/// The moment this long after the beginning of 1970; none if not every format can write it.
pub fn of_unix(seconds: i64, nanos: i32) -> Option<OffsetDateTime> {
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    writable(OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?)
}

/// The same moment; none if not every format can write it, in UTC or with the offset that it has.
pub fn writable(time: OffsetDateTime) -> Option<OffsetDateTime> {
    let in_utc = time.checked_to_offset(UtcOffset::UTC)?;
    [time, in_utc].iter().all(|time| (0..=9999).contains(&time.year())).then_some(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_years_0_to_9999_can_be_written() {
        for time in [datetime!(0000-01-01 00:00 UTC), datetime!(9999-12-31 23:59:59.999_999_999 UTC)] {
            assert_eq!(writable(time), Some(time));
            assert_eq!(of_unix(time.unix_timestamp(), time.nanosecond().cast_signed()), Some(time));
        }
        assert_eq!(of_unix(datetime!(0000-01-01 00:00 UTC).unix_timestamp(), -1), None);
        assert_eq!(of_unix(datetime!(9999-12-31 23:59:59 UTC).unix_timestamp(), 1_000_000_000), None);
        // The year of the text, and that of UTC.
        for time in [datetime!(0000-01-01 00:00 +1), datetime!(9999-12-31 23:30 -1), datetime!(-0001-12-31 23:30 -1)] {
            assert_eq!(writable(time), None, "{time}");
        }
    }

    proptest! {
        #[test]
        fn what_can_be_written_is_written(seconds: i64, century in -400_000_000_000_i64..400_000_000_000, nanos: i32) {
            for seconds in [seconds, century] {
                if let Some(time) = of_unix(seconds, nanos) {
                    prop_assert!(time.format(&Rfc3339).is_ok());
                }
            }
        }
    }
}
