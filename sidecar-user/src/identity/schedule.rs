//! When to renew, and when to try again. Pure: time and chance are arguments; `chance` is from 0 to 1.

use std::time::{Duration, SystemTime};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(150);
/// Without a certificate in force the workload is cut off from the mesh: an authority that is back must not go
/// unasked for minutes. With jitter, a fleet of a thousand then asks it a hundred times a second at most.
const LAST_URGENT_RETRY: Duration = Duration::from_secs(10);
/// A missing file is looked for at this interval at least: whoever creates it is waiting.
const LAST_LOCAL_RETRY: Duration = Duration::from_secs(5);
/// However little time is left, an authority in trouble is not asked more often.
const SHORTEST_RETRY: Duration = Duration::from_millis(200);
/// A fleet that started together must not renew together.
const RENEWAL_JITTER: f64 = 0.1;
const RETRY_JITTER: f64 = 0.2;

/// Half of the life that is left when a certificate arrives, or `refresh` after it, or a little earlier. What is before
/// the arrival does not count: certificates are dated back by minutes, which may be longer than they live.
pub(super) fn next_renewal(
    arrived: SystemTime,
    not_after: SystemTime,
    refresh: Duration,
    chance: f64,
) -> SystemTime {
    let life = not_after.duration_since(arrived).unwrap_or_default();
    arrived + (life / 2).min(refresh).mul_f64(1.0 - RENEWAL_JITTER * chance)
}

/// The pause after `failures` failures in a row. `left` is the life of the certificate still in force: of
/// what is left an eighth at most is spent on waiting, so a short-lived one gets its attempts, too.
pub(super) fn next_retry(failures: u32, local: bool, left: Option<Duration>, chance: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let last = match (local, left) {
        (true, _) => LAST_LOCAL_RETRY,
        (false, None) => LAST_URGENT_RETRY,
        (false, Some(_)) => LAST_RETRY,
    };
    let spread = doubled
        .min(last)
        .mul_f64(1.0 - RETRY_JITTER + 2.0 * RETRY_JITTER * chance);
    let pause = spread.min(last);
    match left {
        Some(left) => pause.min((left / 8).max(SHORTEST_RETRY)),
        None => pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn renewal_is_at_half_life_or_a_tenth_of_it_earlier() {
        assert_eq!(
            next_renewal(at(1000), at(1000) + DAY, DAY, 0.0),
            at(1000) + DAY / 2
        );
        assert_eq!(
            next_renewal(at(1000), at(1000) + DAY, DAY, 1.0),
            at(1000) + DAY / 2 - DAY / 20
        );
    }

    #[test]
    fn a_long_lived_certificate_is_renewed_within_the_refresh_time() {
        let hour = DAY / 24;
        assert_eq!(next_renewal(at(1000), at(1000) + DAY, hour, 0.0), at(1000) + hour);
        assert_eq!(next_renewal(at(1000), at(1010), hour, 0.0), at(1005));
    }

    #[test]
    fn a_certificate_of_ten_seconds_is_renewed_after_five_though_dated_back_by_minutes() {
        assert_eq!(next_renewal(at(1000), at(1010), DAY, 0.0), at(1005));
    }

    #[test]
    fn a_certificate_that_has_ended_is_renewed_now() {
        assert_eq!(next_renewal(at(1000), at(900), DAY, 0.5), at(1000));
    }

    #[test]
    fn pauses_double_from_one_second_to_150() {
        let pauses: Vec<u64> = (1..=10)
            .map(|failures| next_retry(failures, false, Some(DAY), 0.5).as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]);
        assert_eq!(
            next_retry(u32::MAX, false, Some(DAY), 1.0),
            LAST_RETRY,
            "never beyond, whatever the chance"
        );
    }

    #[test]
    fn pauses_differ_by_a_fifth_to_both_sides() {
        assert_eq!(next_retry(3, false, Some(DAY), 0.0), Duration::from_millis(3200));
        assert_eq!(next_retry(3, false, Some(DAY), 1.0), Duration::from_millis(4800));
    }

    #[test]
    fn the_shorter_the_life_left_the_sooner_the_next_attempt() {
        let left = |seconds| next_retry(8, false, Some(Duration::from_secs(seconds)), 0.5);
        assert_eq!(left(80), Duration::from_secs(10));
        assert_eq!(left(4), Duration::from_millis(500));
        assert_eq!(left(0), SHORTEST_RETRY);
    }

    #[test]
    fn a_ten_second_certificate_gets_many_attempts_in_its_second_half() {
        let (mut left, mut attempts) = (Duration::from_secs(5), 0);
        while !left.is_zero() {
            attempts += 1;
            left = left.saturating_sub(next_retry(attempts, false, Some(left), 1.0));
        }
        assert!(attempts >= 10, "{attempts}");
    }

    #[test]
    fn without_a_certificate_the_authority_is_asked_every_ten_seconds() {
        assert_eq!(next_retry(20, false, None, 1.0), LAST_URGENT_RETRY);
    }

    #[test]
    fn a_missing_file_is_looked_for_every_few_seconds() {
        assert_eq!(next_retry(20, true, None, 0.5), LAST_LOCAL_RETRY);
    }
}
