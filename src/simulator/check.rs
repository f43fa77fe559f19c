//! Whether a configuration makes sense.

use super::config::{Delay, SimulatorConfig};
use crate::model::code::{Code, Fault};

/// The first thing that is wrong with `config`.
pub(super) fn check(config: &SimulatorConfig) -> Result<(), Fault> {
    let faults = &config.faults;
    let receipts = &config.receipts;
    let submit_shares = [faults.transient_share, faults.no_answer_share, faults.lost_answer_share];
    let state_shares = [
        receipts.undelivered_share,
        receipts.expired_share,
        receipts.deleted_share,
        receipts.rejected_share,
        receipts.unknown_share,
    ];
    shares("faults.transient_share, no_answer_share and lost_answer_share", &submit_shares)?;
    shares("faults.permanent_share", &[faults.permanent_share])?;
    shares("faults.queue_full_share", &[faults.queue_full_share])?;
    shares("receipts' states", &state_shares)?;
    for (name, share) in [
        ("receipts.accepted_first_share", receipts.accepted_first_share),
        ("receipts.out_of_order_share", receipts.out_of_order_share),
        ("receipts.never_share", receipts.never_share),
        ("receipts.twice_share", receipts.twice_share),
        ("receipts.early_share", receipts.early_share),
        ("receipts.inbound_share", receipts.inbound_share),
    ] {
        shares(name, &[share])?;
    }
    delays("faults.latency", &faults.latency)?;
    delays("receipts.delay", &receipts.delay)?;
    require(faults.rate == 0 || faults.burst_ms > 0, "faults.burst_ms must not be 0 when there is a rate")?;
    require(faults.transient_share == 0.0 || !faults.transient_codes.is_empty(), "faults.transient_codes is empty")?;
    require(faults.permanent_share == 0.0 || !faults.permanent_codes.is_empty(), "faults.permanent_codes is empty")?;
    require(receipts.window > 0, "receipts.window must not be 0")?;
    require(receipts.inbound_share == 0.0 || !receipts.inbound_texts.is_empty(), "receipts.inbound_texts is empty")?;
    require(
        receipts.inbound_texts.iter().all(|text| text.encode_utf16().count() <= if text.is_ascii() { 140 } else { 70 }),
        "receipts.inbound_texts have 140 characters at most, 70 when they are not ASCII",
    )?;
    require(config.ids.pad_answer <= 40 && config.ids.pad_receipt <= 40, "ids are padded to 40 digits at most")?;
    require(matches!(config.http.throttle_status, 429 | 503), "http.throttle_status is 429 or 503")?;
    require(
        config.http.callback_batch > 0 && config.http.callback_connections > 0,
        "http.callback_batch and callback_connections must not be 0",
    )?;
    let callback = &config.http.callback_url;
    require(callback.is_empty() || callback.starts_with("http://"), "http.callback_url must begin with http://")?;
    let inbound = &config.http.inbound_url;
    require(inbound.is_empty() || inbound.starts_with("http://"), "http.inbound_url must begin with http://")
}

fn shares(name: &str, shares: &[f64]) -> Result<(), Fault> {
    let sum: f64 = shares.iter().sum();
    let each = shares.iter().all(|share| (0.0..=1.0).contains(share));
    require(each && sum <= 1.0 + 1e-9, &format!("{name} must lie between 0 and 1, their sum too"))
}

fn delays(name: &str, delays: &[Delay]) -> Result<(), Fault> {
    shares(name, &delays.iter().map(|delay| delay.share).collect::<Vec<_>>())?;
    require(delays.iter().all(|delay| delay.min_ms <= delay.max_ms), &format!("{name} has a max_ms below its min_ms"))
}

fn require(holds: bool, context: &str) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::new(Code::ConfigInvalid, context)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_and_defaults_are_not() {
        type Spoil = fn(&mut SimulatorConfig);
        let cases: [Spoil; 7] = [
            |c| c.faults.transient_share = 1.5,
            |c| (c.faults.transient_share, c.faults.no_answer_share) = (0.6, 0.6),
            |c| c.receipts.undelivered_share = f64::NAN,
            |c| c.faults.latency = Delay::always(9, 3),
            |c| c.receipts.window = 0,
            |c| c.http.callback_url = "https://127.0.0.1".into(),
            |c| (c.faults.permanent_share, c.faults.permanent_codes) = (0.1, Vec::new()),
        ];
        assert_eq!(SimulatorConfig::default().check(), Ok(()));
        assert_eq!(SimulatorConfig::everyday().check(), Ok(()));
        for (nth, spoil) in cases.into_iter().enumerate() {
            let mut config = SimulatorConfig::default();
            spoil(&mut config);
            assert_eq!(config.check().map_err(|fault| fault.code), Err(Code::ConfigInvalid), "case {nth}");
        }
    }

    #[test]
    fn configuration_reads_back_and_refuses_unknown_keys() {
        let config = SimulatorConfig { http_listen: None, ..SimulatorConfig::local() };
        let text = toml::to_string(&config).expect("a configuration is written");
        assert_eq!(toml::from_str::<SimulatorConfig>(&text).expect("it is read"), config);
        assert!(toml::from_str::<SimulatorConfig>("[faults]\nrat = 5").is_err());
    }
}
