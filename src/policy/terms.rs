//! Whether a message can be taken on the terms that its MAIL asks for, as far as
//! that depends on the time. What a listener does not offer at all is refused by
//! the engine.
//!
//! RFC 2852 (DELIVERBY), RFC 4865 (FUTURERELEASE).

use std::time::Duration;

use crate::base::{EnhancedCode, Reply, UnixMillis};
use crate::proto::smtp::asks::Asks;

/// Why a message that comes `now` is not taken on these terms, if so; `hold_max` is
/// the longest that one is held.
pub fn refusal(asks: &Asks, now: UnixMillis, hold_max: Duration) -> Option<Reply> {
    let until = asks.hold?.until(now);
    let refused = |text: String| Some(Reply::new(501, EnhancedCode(5, 5, 4), text));
    if until > now.plus(hold_max) {
        return refused(format!("mail is held for {} seconds at most", hold_max.as_secs()));
    }
    // RFC 4865, 5.2.2: whatever is done when the time is up.
    if asks.by?.from(now).at() <= until {
        return refused("the message would be held until its time is up".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::smtp::asks::{By, Hold};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn code(hold: Option<Hold>, by: Option<&str>) -> Option<u16> {
        let by = by.map(|text| By::parse(text.as_bytes()).unwrap());
        let asks = Asks { hold, by, ..Asks::default() };
        refusal(&asks, NOW, Duration::from_secs(60)).map(|reply| reply.code)
    }

    #[test]
    fn mail_is_held_no_longer_than_is_allowed() {
        let until = |seconds| Some(Hold::Until(NOW.plus(Duration::from_secs(seconds))));
        assert_eq!(code(None, None), None);
        assert_eq!(code(Some(Hold::For(60)), None), None);
        assert_eq!(code(Some(Hold::For(61)), None), Some(501));
        assert_eq!(code(until(60), None), None);
        assert_eq!(code(until(61), None), Some(501));
        assert_eq!(code(Some(Hold::Until(UnixMillis(0))), None), None, "a time that is over");
    }

    #[test]
    fn mail_is_not_held_until_it_is_too_late() {
        let hold = Some(Hold::For(30));
        assert_eq!(code(hold, Some("31;R")), None);
        assert_eq!(code(hold, Some("30;R")), Some(501));
        assert_eq!(code(hold, Some("31;N")), None);
        assert_eq!(code(hold, Some("1;N")), Some(501));
        assert_eq!(code(hold, Some("-1;N")), Some(501));
        assert_eq!(code(None, Some("1;R")), None);
    }
}
