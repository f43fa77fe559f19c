//! The ladder of delivery reports: a recipient climbs it and never goes down.

use serde::{Deserialize, Serialize};

use super::id::Msisdn;
use super::time::Timestamp;

/// A rung of the ladder. The order is the order of the ladder; among the failures of one rung the network's done date
/// decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rung {
    /// The network has it (ACCEPTD).
    AcceptedByNetwork,
    /// On its way (ENROUTE).
    EnRoute,
    /// It will not arrive.
    Ended(Ending),
    /// It arrived (DELIVRD).
    Delivered,
}

/// How a message that did not arrive ended. All of these share one rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ending {
    /// UNKNOWN.
    Unknown,
    /// UNDELIV.
    Failed,
    /// EXPIRED.
    Expired,
    /// DELETED.
    Deleted,
    /// REJECTD.
    Rejected,
}

impl Rung {
    /// The `stat` word of receipts (SMPP 3.4, appendix B).
    pub fn stat(self) -> &'static str {
        match self {
            Rung::AcceptedByNetwork => "ACCEPTD",
            Rung::EnRoute => "ENROUTE",
            Rung::Ended(Ending::Unknown) => "UNKNOWN",
            Rung::Ended(Ending::Failed) => "UNDELIV",
            Rung::Ended(Ending::Expired) => "EXPIRED",
            Rung::Ended(Ending::Deleted) => "DELETED",
            Rung::Ended(Ending::Rejected) => "REJECTD",
            Rung::Delivered => "DELIVRD",
        }
    }

    /// The rung of a `stat` word, in any case; `None` for a word that no specification knows.
    pub fn from_stat(stat: &str) -> Option<Rung> {
        Some(match stat.to_ascii_uppercase().as_str() {
            "DELIVRD" | "DELIVERED" => Rung::Delivered,
            "EXPIRED" => Rung::Ended(Ending::Expired),
            "DELETED" => Rung::Ended(Ending::Deleted),
            "UNDELIV" | "UNDELIVERABLE" | "UNDELIVERED" | "FAILED" => Rung::Ended(Ending::Failed),
            "ACCEPTD" | "ACCEPTED" => Rung::AcceptedByNetwork,
            "UNKNOWN" => Rung::Ended(Ending::Unknown),
            "REJECTD" | "REJECTED" => Rung::Ended(Ending::Rejected),
            "ENROUTE" | "BUFFERED" | "SCHEDULED" => Rung::EnRoute,
            _ => return None,
        })
    }

    /// The rung of a `message_state` parameter (SMPP 3.4, 5.2.28).
    pub fn from_message_state(state: u8) -> Option<Rung> {
        Some(match state {
            1 => Rung::EnRoute,
            2 => Rung::Delivered,
            3 => Rung::Ended(Ending::Expired),
            4 => Rung::Ended(Ending::Deleted),
            5 => Rung::Ended(Ending::Failed),
            6 => Rung::AcceptedByNetwork,
            7 => Rung::Ended(Ending::Unknown),
            8 => Rung::Ended(Ending::Rejected),
            _ => return None,
        })
    }

    /// Height on the ladder: endings share one.
    pub fn height(self) -> u8 {
        match self {
            Rung::AcceptedByNetwork => 1,
            Rung::EnRoute => 2,
            Rung::Ended(_) => 3,
            Rung::Delivered => 4,
        }
    }

    /// Whether nothing but DELIVRD can come after it.
    pub fn is_final(self, acceptd_is_final: bool) -> bool {
        match self {
            Rung::AcceptedByNetwork => acceptd_is_final,
            Rung::EnRoute => false,
            Rung::Ended(_) | Rung::Delivered => true,
        }
    }
}

/// A delivery report as it came from an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The message id, as the receipt has it.
    pub message_id: String,
    /// The number it was sent to, when the report has one.
    pub number: Option<Msisdn>,
    /// Our own reference, where the protocol carries one back: then no index is needed.
    pub reference: Option<String>,
    /// What it says.
    pub rung: Rung,
    /// The network's done date, in the provider's unstated zone, as seconds; only ever compared with others of its account.
    pub done: Option<i64>,
    /// The network's own error code.
    pub error: String,
    /// The whole report as text, kept (personal data).
    pub raw: String,
    /// When it came in.
    pub received: Timestamp,
}

/// Which of two reports of one part stands: the higher rung; on one rung the later done date; then the one that came later.
pub fn stands<'a>(a: &'a Report, b: &'a Report) -> &'a Report {
    let key = |report: &Report| (report.rung.height(), report.done.unwrap_or(i64::MIN), report.received, report.rung);
    if key(b) > key(a) { b } else { a }
}

/// What receipts say of a whole recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Every part arrived.
    Delivered,
    /// Some part did not arrive and will not.
    Undelivered,
    /// Some part's receipt has not come yet.
    Pending,
    /// Some part's receipt was waited for long enough, or says UNKNOWN.
    Unknown,
}

impl Delivery {
    /// The name that people and other programs see.
    pub fn name(self) -> &'static str {
        match self {
            Delivery::Delivered => "delivered",
            Delivery::Undelivered => "undelivered",
            Delivery::Pending => "pending",
            Delivery::Unknown => "unknown",
        }
    }
}

/// What the parts' standing rungs mean together. `waited` says that the account's receipt time has passed.
pub fn delivery(parts: u8, rungs: &[(u8, Rung)], one_per_message: bool, acceptd_is_final: bool, waited: bool) -> Delivery {
    let needed = if one_per_message { 1 } else { usize::from(parts.max(1)) };
    let best = |part: u8| rungs.iter().filter(|(p, _)| *p == part).map(|(_, rung)| *rung).max();
    let standing: Vec<Option<Rung>> =
        if one_per_message { vec![rungs.iter().map(|(_, rung)| *rung).max()] } else { (0..needed as u8).map(best).collect() };
    if standing.iter().all(|rung| *rung == Some(Rung::Delivered)) {
        return Delivery::Delivered;
    }
    let is_final = |rung: &Option<Rung>| rung.is_some_and(|rung| rung.is_final(acceptd_is_final));
    if standing.iter().any(|rung| matches!(rung, Some(Rung::Ended(ending)) if *ending != Ending::Unknown)) {
        return Delivery::Undelivered;
    }
    if standing.iter().all(is_final) || waited { Delivery::Unknown } else { Delivery::Pending }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rung: Rung, done: Option<i64>, received: i64) -> Report {
        Report {
            message_id: "1".into(),
            number: None,
            reference: None,
            rung,
            done,
            error: String::new(),
            raw: String::new(),
            received: Timestamp(received),
        }
    }

    #[test]
    fn nobody_goes_down_the_ladder() {
        let delivered = report(Rung::Delivered, Some(5), 1);
        let late = report(Rung::EnRoute, Some(9), 2);
        assert_eq!(stands(&delivered, &late), &delivered);
        assert_eq!(stands(&late, &delivered), &delivered);
    }

    #[test]
    fn within_a_rung_the_done_date_decides() {
        let expired = report(Rung::Ended(Ending::Expired), Some(10), 1);
        let failed = report(Rung::Ended(Ending::Failed), Some(20), 0);
        assert_eq!(stands(&expired, &failed), &failed);
        assert_eq!(stands(&failed, &expired), &failed);
    }

    #[test]
    fn a_recipient_is_delivered_when_every_part_is() {
        let two = [(0, Rung::Delivered), (1, Rung::Delivered)];
        assert_eq!(delivery(2, &two, false, false, false), Delivery::Delivered);
        assert_eq!(delivery(2, &two[..1], false, false, false), Delivery::Pending);
        assert_eq!(delivery(2, &two[..1], true, false, false), Delivery::Delivered);
        assert_eq!(delivery(2, &two[..1], false, false, true), Delivery::Unknown);
        assert_eq!(
            delivery(2, &[(0, Rung::Delivered), (1, Rung::Ended(Ending::Failed))], false, false, false),
            Delivery::Undelivered
        );
        assert_eq!(delivery(1, &[(0, Rung::AcceptedByNetwork)], false, false, false), Delivery::Pending);
    }

    #[test]
    fn words_and_states_read_back() {
        for state in 1..=8 {
            let rung = Rung::from_message_state(state).expect("a state of the table");
            assert_eq!(Rung::from_stat(rung.stat()), Some(rung));
        }
        assert_eq!(Rung::from_message_state(9), None);
        assert_eq!(Rung::from_stat("MA:0001"), None);
    }
}
