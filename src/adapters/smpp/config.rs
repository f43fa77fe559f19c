//! How an SMPP account is reached. What the stages must know as well (how long an answer is waited for, whether receipts are
//! wanted, how long messages travel) stands in [`crate::model::account::Account`] and not here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::adapters::secret::Secret;
use crate::adapters::vendor::VendorClass;
use crate::model::answer::{Class, smpp_class};
use crate::model::code::{Code, Fault};
use crate::model::hex;
use crate::model::schedule::seconds;

/// Octets of a PDU that any account may allow at most: one with the longest parameter of each kind that SMPP 3.4 knows for a
/// delivery is far shorter, and this much of an unfinished one is kept by each session.
const COMMAND_LENGTH_MAX: u32 = 1 << 20;

/// An SMPP account: where it is, how it is entered, and what it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmppConfig {
    /// Host name or address of the SMSC.
    pub host: String,
    /// Its port; 2775 is usual, 3550 with TLS.
    pub port: u16,
    /// The account's name over there, at most 15 characters.
    pub system_id: String,
    /// Its password. The standard allows 8 characters; longer ones, which some SMSCs use, are sent as they are.
    pub password: Secret,
    /// The kind of client, when the SMSC asks for one, at most 12 characters.
    pub system_type: String,
    /// Which kinds of sessions are bound.
    pub bind: BindMode,
    /// Sessions that send.
    pub binds: u32,
    /// Sessions that only receive, with `bind = "transmitter_receiver"`.
    pub receivers: u32,
    /// Sessions that only receive, kept by each gateway of a cluster, where the account allows them: receipts then come in
    /// while nothing is sent.
    pub gateway_receivers: u32,
    /// Parts outstanding on one session. SMPP's guideline is 10; ask the provider before raising it.
    pub window: u32,
    /// The sender: a number or a name of at most 20 characters, `ext_code` included.
    pub source_addr: String,
    /// Its type of number (SMPP 3.4, 5.2.5): 1 international, 3 network specific, 5 alphanumeric.
    pub source_ton: u8,
    /// Its numbering plan (5.2.6).
    pub source_npi: u8,
    /// The recipients' type of number.
    pub dest_ton: u8,
    /// The recipients' numbering plan.
    pub dest_npi: u8,
    /// The kind of service, when the SMSC asks for one, at most 5 characters.
    pub service_type: String,
    /// How long the SMSC tries, as SMPP writes it (7.1.1), such as `000001000000000R` for a day; empty for its own default.
    pub validity_period: String,
    /// `data_coding` of texts in the GSM 03.38 default alphabet.
    pub data_coding_gsm7: u8,
    /// `data_coding` of texts in UCS-2.
    pub data_coding_ucs2: u8,
    /// TLS.
    pub tls: TlsConfig,
    /// Seconds without a word from the SMSC after which it is asked for a sign of life.
    #[serde(with = "seconds")]
    pub enquire_link: Duration,
    /// Seconds that connecting and binding may take, each.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// Seconds before the first try to connect again.
    #[serde(with = "seconds")]
    pub reconnect_min: Duration,
    /// Seconds between tries to connect at most.
    #[serde(with = "seconds")]
    pub reconnect_max: Duration,
    /// What the SMSC's own status codes mean, such as `"0x00000401" = "throttled"`. Looked up before the standard's table.
    pub vendor_status: BTreeMap<Status, VendorClass>,
    /// Octets of the longest PDU taken from the SMSC, 1024 to 1048576; a longer one ends the session.
    pub max_command_length: u32,
}

impl Default for SmppConfig {
    fn default() -> SmppConfig {
        SmppConfig {
            host: "127.0.0.1".into(),
            port: 2775,
            system_id: String::new(),
            password: Secret::default(),
            system_type: String::new(),
            bind: BindMode::default(),
            binds: 1,
            receivers: 1,
            gateway_receivers: 0,
            window: 10,
            source_addr: String::new(),
            source_ton: 0,
            source_npi: 0,
            dest_ton: 1,
            dest_npi: 1,
            service_type: String::new(),
            validity_period: String::new(),
            data_coding_gsm7: 0,
            data_coding_ucs2: 8,
            tls: TlsConfig::default(),
            enquire_link: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            reconnect_min: Duration::from_millis(500),
            reconnect_max: Duration::from_secs(30),
            vendor_status: BTreeMap::new(),
            max_command_length: 128 * 1024,
        }
    }
}

/// Which kinds of sessions an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindMode {
    /// Sessions that send and receive.
    #[default]
    Transceiver,
    /// Sessions that send, and others that receive.
    TransmitterReceiver,
    /// Only sessions that send: somebody else takes the receipts.
    Transmitter,
    /// Only sessions that receive.
    Receiver,
}

/// TLS towards an SMSC.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Whether the connection is encrypted.
    pub on: bool,
    /// A PEM file with the authorities to trust; the public ones when there is none.
    pub ca_file: Option<PathBuf>,
    /// The name in the SMSC's certificate, when it is not `host`.
    pub server_name: Option<String>,
}

/// A `command_status`, written as hexadecimal (`0x00000401`) or decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Status(pub u32);

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0x{:08X}", self.0))
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Status, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => hex::number(&digits.to_ascii_lowercase()).and_then(|status| u32::try_from(status).ok()),
            None => Some(&text).filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok()),
        };
        parsed.map(Status).ok_or_else(|| serde::de::Error::custom("a status is written as \"0x00000401\" or \"1025\""))
    }
}

impl SmppConfig {
    /// Checks what serde cannot: lengths, characters and relations.
    pub fn check(&self) -> Result<(), Fault> {
        let refuse = |what: &str| Err(Fault::new(Code::ConfigInvalid, format!("smpp account: {what}")));
        let short = |text: &str, most: usize| text.len() <= most && text.is_ascii() && !text.contains('\0');
        if self.host.is_empty() {
            return refuse("host is missing");
        }
        if self.binds == 0 && self.bind != BindMode::Receiver || self.receivers == 0 && self.receives_apart() {
            return refuse("binds and receivers begin at 1");
        }
        if !(1..=65_535).contains(&self.window) {
            return refuse("window is 1 to 65535");
        }
        if !short(&self.system_id, 15) || !short(&self.system_type, 12) || !short(&self.service_type, 5) {
            return refuse("system_id has 15, system_type 12, service_type 5 ASCII characters at most");
        }
        if self.password.expose().contains('\0') {
            return refuse("password has a NUL character");
        }
        if !short(&self.source_addr, 20) {
            return refuse("source_addr has 20 ASCII characters at most");
        }
        if !matches!(self.validity_period.len(), 0 | 16) || !short(&self.validity_period, 16) {
            return refuse("validity_period has 16 characters, such as 000001000000000R");
        }
        if !(1_024..=COMMAND_LENGTH_MAX).contains(&self.max_command_length) {
            return refuse("max_command_length is 1024 to 1048576");
        }
        if [self.enquire_link, self.connect_timeout, self.reconnect_min].iter().any(Duration::is_zero) {
            return refuse("enquire_link, connect_timeout and reconnect_min are more than 0 seconds");
        }
        Ok(())
    }

    /// What a `command_status` means on this account.
    pub fn class(&self, status: u32) -> Class {
        match self.vendor_status.get(&Status(status)) {
            Some(class) if status != 0 => class.class(),
            _ => smpp_class(status),
        }
    }

    /// The account as a gateway has it: only its own receiving sessions.
    pub fn receiving(&self) -> SmppConfig {
        SmppConfig { bind: BindMode::Receiver, receivers: self.gateway_receivers, ..self.clone() }
    }

    fn receives_apart(&self) -> bool {
        matches!(self.bind, BindMode::TransmitterReceiver | BindMode::Receiver)
    }

    /// The sessions this account keeps, in order.
    pub(super) fn sessions(&self) -> Vec<Role> {
        let (binds, receivers) = (self.binds as usize, self.receivers as usize);
        match self.bind {
            BindMode::Transceiver => vec![Role::Transceiver; binds],
            BindMode::Transmitter => vec![Role::Transmitter; binds],
            BindMode::Receiver => vec![Role::Receiver; receivers],
            BindMode::TransmitterReceiver => [vec![Role::Transmitter; binds], vec![Role::Receiver; receivers]].concat(),
        }
    }
}

/// What one session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Sends and receives.
    Transceiver,
    /// Sends.
    Transmitter,
    /// Receives.
    Receiver,
}

impl Role {
    /// Whether it submits messages.
    pub fn sends(self) -> bool {
        self != Role::Receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::answer::NotNow;

    #[test]
    fn a_configuration_is_read_and_its_password_is_not_printed() {
        let text =
            "host='smsc.example'\npassword='geheim'\nenquire_link=2.5\n[vendor_status]\n'0x401'='throttled'\n'1026'='permanent'";
        let config: SmppConfig = toml::from_str(text).expect("it is valid");
        assert_eq!(config.enquire_link, Duration::from_millis(2_500));
        assert_eq!(config.class(0x401), Class::NotNow(NotNow::Throttled));
        assert_eq!(config.class(0x402), Class::Permanent);
        assert_eq!(config.class(0x58), Class::NotNow(NotNow::Throttled));
        let printed = format!("{config:?}{}", toml::to_string(&config).expect("it is written"));
        assert!(!printed.contains("geheim"));
        assert!(toml::from_str::<SmppConfig>("hots='x'").is_err(), "unknown keys are refused");
        for status in ["0x+401", "+1026", "0x", "", "0x1ffffffff"] {
            let text = format!("[vendor_status]\n'{status}'='throttled'");
            assert!(toml::from_str::<SmppConfig>(&text).is_err(), "{status}");
        }
    }

    #[test]
    fn what_cannot_be_encoded_is_refused_before_anything_is_sent() {
        assert!(SmppConfig::default().check().is_ok());
        let bad: [fn(&mut SmppConfig); 9] = [
            |c| c.host.clear(),
            |c| c.binds = 0,
            |c| c.window = 0,
            |c| c.system_id = "x".repeat(16),
            |c| c.source_addr = "café".into(),
            |c| c.validity_period = "1".into(),
            |c| c.enquire_link = Duration::ZERO,
            |c| c.max_command_length = 1_023,
            |c| c.max_command_length = COMMAND_LENGTH_MAX + 1,
        ];
        for (at, change) in bad.iter().enumerate() {
            let mut config = SmppConfig::default();
            change(&mut config);
            assert_eq!(config.check().map_err(|fault| fault.code), Err(Code::ConfigInvalid), "case {at}");
        }
    }
}
