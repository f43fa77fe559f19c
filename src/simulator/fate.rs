//! What happens to a message: a function of the seed, its number and how often that number was submitted before, so that a
//! test can tell it in advance.

use serde::{Deserialize, Serialize};

use super::config::{Delay, SimulatorConfig};

/// What happens to one submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The answer.
    pub answer: AnswerFate,
    /// How long the answer takes, in microseconds.
    pub latency_us: u32,
    /// The receipt, if the message is accepted and one was asked for.
    pub receipt: ReceiptFate,
    /// The text that the person writes back, as its place in `receipts.inbound_texts`.
    pub inbound: Option<u16>,
}

/// How a submit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFate {
    /// Accepted.
    Accepted,
    /// Refused for good with this code, however often it is tried.
    Permanent(u32),
    /// ESME_RMSGQFUL until `queue_full_ms` after the number's first submit; then whatever the same configuration without
    /// full queues says.
    QueueFull,
    /// Refused for now with this code.
    Transient(u32),
    /// Accepted, and nobody is told.
    NoAnswer,
    /// Accepted, and the session dropped before the answer.
    LostAnswer,
}

impl AnswerFate {
    /// Whether the message goes to the handset.
    pub fn is_accepted(self) -> bool {
        matches!(self, AnswerFate::Accepted | AnswerFate::NoAnswer | AnswerFate::LostAnswer)
    }
}

/// What receipts a message gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptFate {
    /// What the final one says.
    pub state: State,
    /// How long it takes, in microseconds.
    pub delay_us: u32,
    /// How often it comes: 0, 1 or 2 times.
    pub times: u8,
    /// Whether an ACCEPTD comes first.
    pub accepted_first: bool,
    /// Whether an ENROUTE comes after it.
    pub out_of_order: bool,
    /// Whether it comes before the answer.
    pub early: bool,
}

/// What a receipt says: `message_state` (SMPP 3.4, 5.2.28) and `stat` (appendix B).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// ENROUTE.
    EnRoute = 1,
    /// DELIVRD.
    Delivered = 2,
    /// EXPIRED.
    Expired = 3,
    /// DELETED.
    Deleted = 4,
    /// UNDELIV.
    Undelivered = 5,
    /// ACCEPTD.
    Accepted = 6,
    /// UNKNOWN.
    Unknown = 7,
    /// REJECTD.
    Rejected = 8,
}

impl State {
    /// The `stat` word.
    pub fn stat(self) -> &'static str {
        match self {
            State::EnRoute => "ENROUTE",
            State::Delivered => "DELIVRD",
            State::Expired => "EXPIRED",
            State::Deleted => "DELETED",
            State::Undelivered => "UNDELIV",
            State::Accepted => "ACCEPTD",
            State::Unknown => "UNKNOWN",
            State::Rejected => "REJECTD",
        }
    }

    /// The network's error code that goes with it.
    pub fn error(self) -> u16 {
        match self {
            State::EnRoute | State::Delivered | State::Accepted => 0,
            State::Expired => 27,
            State::Deleted => 40,
            State::Undelivered => 1,
            State::Unknown => 999,
            State::Rejected => 21,
        }
    }
}

/// The fate of the submit number `occurrence` (from 0, throttled ones not counted) for `number` (digits of E.164). Throttling,
/// windows and dropped sessions depend on time and are no part of it.
pub fn fate(config: &SimulatorConfig, number: u64, occurrence: u32) -> Fate {
    Fate {
        answer: answer(config, number, occurrence),
        latency_us: latency_us(config, number, occurrence),
        receipt: receipt(config, number, occurrence),
        inbound: inbound(config, number, occurrence),
    }
}

/// The part of [`fate`] that decides the answer.
pub(super) fn answer(config: &SimulatorConfig, number: u64, occurrence: u32) -> AnswerFate {
    let faults = &config.faults;
    if hit(faults.permanent_share, || draw(config.seed, Purpose::Permanent, number, 0)) {
        return AnswerFate::Permanent(choose(&faults.permanent_codes, draw(config.seed, Purpose::PermanentCode, number, 0)));
    }
    if hit(faults.queue_full_share, || draw(config.seed, Purpose::QueueFull, number, 0)) {
        return AnswerFate::QueueFull;
    }
    answer_of_a_good_handset(config, number, occurrence)
}

/// The answer of a handset whose queue is not, or no longer, full.
pub(super) fn answer_of_a_good_handset(config: &SimulatorConfig, number: u64, occurrence: u32) -> AnswerFate {
    let faults = &config.faults;
    if faults.transient_share + faults.no_answer_share + faults.lost_answer_share == 0.0 {
        return AnswerFate::Accepted;
    }
    let at = unit(draw(config.seed, Purpose::Answer, number, occurrence));
    if at < faults.transient_share {
        let code = draw(config.seed, Purpose::TransientCode, number, occurrence);
        AnswerFate::Transient(choose(&faults.transient_codes, code))
    } else if at < faults.transient_share + faults.no_answer_share {
        AnswerFate::NoAnswer
    } else if at < faults.transient_share + faults.no_answer_share + faults.lost_answer_share {
        AnswerFate::LostAnswer
    } else {
        AnswerFate::Accepted
    }
}

/// How long the answer takes, in microseconds.
pub(super) fn latency_us(config: &SimulatorConfig, number: u64, occurrence: u32) -> u32 {
    wait_us(&config.faults.latency, || draw(config.seed, Purpose::Latency, number, occurrence))
}

/// The part of [`fate`] that decides the receipts.
pub(super) fn receipt(config: &SimulatorConfig, number: u64, occurrence: u32) -> ReceiptFate {
    let receipts = &config.receipts;
    let draw = |purpose| draw(config.seed, purpose, number, occurrence);
    let never = hit(receipts.never_share, || draw(Purpose::Never));
    let twice = hit(receipts.twice_share, || draw(Purpose::Twice));
    ReceiptFate {
        state: state(config, || draw(Purpose::State)),
        delay_us: wait_us(&receipts.delay, || draw(Purpose::ReceiptDelay)),
        times: if never { 0 } else { 1 + u8::from(twice) },
        accepted_first: hit(receipts.accepted_first_share, || draw(Purpose::AcceptedFirst)),
        out_of_order: hit(receipts.out_of_order_share, || draw(Purpose::OutOfOrder)),
        early: hit(receipts.early_share, || draw(Purpose::Early)),
    }
}

/// The part of [`fate`] that decides whether the person writes back.
pub(super) fn inbound(config: &SimulatorConfig, number: u64, occurrence: u32) -> Option<u16> {
    let receipts = &config.receipts;
    let at = || draw(config.seed, Purpose::Inbound, number, occurrence);
    let texts = receipts.inbound_texts.len() as u64;
    (texts > 0 && hit(receipts.inbound_share, at))
        .then(|| (draw(config.seed, Purpose::InboundText, number, occurrence) % texts) as u16)
}

fn state(config: &SimulatorConfig, at: impl Fn() -> u64) -> State {
    let receipts = &config.receipts;
    let shares = [
        (receipts.undelivered_share, State::Undelivered),
        (receipts.expired_share, State::Expired),
        (receipts.deleted_share, State::Deleted),
        (receipts.rejected_share, State::Rejected),
        (receipts.unknown_share, State::Unknown),
    ];
    if shares.iter().all(|(share, _)| *share == 0.0) {
        return State::Delivered;
    }
    let mut left = unit(at());
    for (share, state) in shares {
        if left < share {
            return state;
        }
        left -= share;
    }
    State::Delivered
}

fn wait_us(mix: &[Delay], at: impl Fn() -> u64) -> u32 {
    if mix.is_empty() {
        return 0;
    }
    let random = at();
    let mut left = unit(random);
    for delay in mix {
        if left < delay.share {
            let span = f64::from(delay.max_ms - delay.min_ms) * 1_000.0;
            let within = unit(scramble(random));
            return delay.min_ms.saturating_mul(1_000).saturating_add((span * within) as u32);
        }
        left -= delay.share;
    }
    0
}

/// One random stream per purpose: a new purpose is appended, so that the others keep what they draw.
#[derive(Clone, Copy)]
enum Purpose {
    Permanent,
    PermanentCode,
    QueueFull,
    Answer,
    TransientCode,
    Latency,
    State,
    ReceiptDelay,
    Never,
    Twice,
    AcceptedFirst,
    OutOfOrder,
    Early,
    Inbound,
    InboundText,
}

fn hit(share: f64, at: impl FnOnce() -> u64) -> bool {
    share > 0.0 && unit(at()) < share
}

fn choose(codes: &[u32], random: u64) -> u32 {
    if codes.is_empty() { super::pdu::status::SYSTEM_ERROR } else { codes[(random % codes.len() as u64) as usize] }
}

/// 53 random bits as a fraction from 0 to just below 1.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

fn draw(seed: u64, purpose: Purpose, number: u64, occurrence: u32) -> u64 {
    let place = u64::from(occurrence) << 8 | purpose as u64;
    scramble(scramble(scramble(seed) ^ number) ^ place)
}

/// The finishing step of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub(super) fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SimulatorConfig {
        let mut config = SimulatorConfig::local();
        config.faults.permanent_share = 0.10;
        config.faults.transient_share = 0.20;
        config.faults.no_answer_share = 0.05;
        config.faults.lost_answer_share = 0.02;
        config.receipts.undelivered_share = 0.25;
        config.receipts.never_share = 0.10;
        config.faults.latency = vec![Delay { share: 0.5, min_ms: 10, max_ms: 20 }];
        config
    }

    #[test]
    fn shares_are_kept_and_a_permanent_refusal_stays() {
        let config = config();
        const NUMBERS: u64 = 100_000;
        let fates: Vec<Fate> = (0..NUMBERS).map(|n| fate(&config, 8_613_800_000_000 + n, 0)).collect();
        let share = |holds: &dyn Fn(&Fate) -> bool| fates.iter().filter(|f| holds(f)).count() as f64 / NUMBERS as f64;
        let expected: [(&str, f64, f64); 7] = [
            ("permanent", share(&|f| matches!(f.answer, AnswerFate::Permanent(_))), 0.10),
            ("transient", share(&|f| matches!(f.answer, AnswerFate::Transient(_))), 0.9 * 0.20),
            ("unanswered", share(&|f| f.answer == AnswerFate::NoAnswer), 0.9 * 0.05),
            ("lost", share(&|f| f.answer == AnswerFate::LostAnswer), 0.9 * 0.02),
            ("undelivered", share(&|f| f.receipt.state == State::Undelivered), 0.25),
            ("never", share(&|f| f.receipt.times == 0), 0.10),
            ("slow", share(&|f| (10_000..=20_000).contains(&f.latency_us)), 0.5),
        ];
        for (name, is, should) in expected {
            assert!((is - should).abs() < 0.006, "{name}: {is} for {should}");
        }
        let refused =
            (0..100).map(|n| 8_613_800_000_000 + n).find(|&n| matches!(answer(&config, n, 0), AnswerFate::Permanent(_)));
        let refused = refused.expect("a tenth is refused");
        assert!((0..50).all(|occurrence| answer(&config, refused, occurrence) == answer(&config, refused, 0)));
    }

    #[test]
    fn the_seed_and_the_occurrence_change_the_fate() {
        let config = config();
        let other = SimulatorConfig { seed: 2, ..config.clone() };
        let row = |config: &SimulatorConfig, occurrence| (0..64).map(|n| fate(config, n, occurrence)).collect::<Vec<_>>();
        assert_eq!(row(&config, 0), row(&config, 0));
        assert_ne!(row(&config, 0), row(&config, 1));
        assert_ne!(row(&config, 0), row(&other, 0));
    }
}
