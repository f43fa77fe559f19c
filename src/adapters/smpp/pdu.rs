//! PDUs as they are written.

use bytes::{BufMut, Bytes, BytesMut};
use rusmpp::encode::Length;
use rusmpp::encode::owned::Encode;
use rusmpp::pdus::{DataSmResp, DeliverSmResp, SubmitSm};
use rusmpp::tlvs::MessageSubmissionRequestTlvValue;
use rusmpp::types::{AnyOctetString, COctetString, EmptyOrFullCOctetString, OctetString};
use rusmpp::values::{DataCoding, EsmClass, MessagePayload, Npi, RegisteredDelivery, ServiceType, Ton};
use rusmpp::{Command, CommandStatus, Pdu};

use super::config::{Role, SmppConfig};
use crate::model::account::{Account, LongMessage};
use crate::model::code::{Code, Fault};
use crate::model::text::{Encoded, Encoding};
use crate::ports::provider::Submit;

/// Octets of a PDU's header (SMPP 3.4, 3.2).
pub const HEADER: usize = 16;
/// The bit that tells an answer from a request in a command id.
pub const ANSWER: u32 = 0x8000_0000;
/// Command ids (SMPP 3.4, 5.1.2.1).
pub const BIND_RECEIVER: u32 = 0x01;
/// Binds a session that sends.
pub const BIND_TRANSMITTER: u32 = 0x02;
/// Says good-bye.
pub const UNBIND: u32 = 0x06;
/// Binds a session that does both.
pub const BIND_TRANSCEIVER: u32 = 0x09;
/// A message or a receipt for us.
pub const DELIVER_SM: u32 = 0x05;
/// A wish of the SMSC's to be bound to: nothing on a bound session.
pub const OUTBIND: u32 = 0x0B;
/// Asks for a sign of life.
pub const ENQUIRE_LINK: u32 = 0x15;
/// A handset can be reached again; has no answer.
pub const ALERT_NOTIFICATION: u32 = 0x102;
/// Another form of a message or a receipt for us.
pub const DATA_SM: u32 = 0x103;
/// The answer to a submit.
pub const SUBMIT_SM_RESP: u32 = 0x8000_0004;
/// The answer to what could not be read.
pub const GENERIC_NACK: u32 = 0x8000_0000;

/// Status of a command that is not known (ESME_RINVCMDID).
pub const INVALID_COMMAND: u32 = 0x03;
/// Status of a submit on a session that is not bound (ESME_RINVBNDSTS).
pub const INVALID_BIND_STATE: u32 = 0x04;

/// `esm_class` of a message that begins with a header (SMPP 3.4, 5.2.12).
const UDH_INDICATOR: u8 = 0x40;

/// The longest `short_message`; what is longer travels as `message_payload` (SMPP 3.4, 4.4.1).
const SHORT_MESSAGE_MAX: usize = 254;

/// Writes a PDU that is a header only.
pub fn put_header_only(out: &mut BytesMut, command: u32, status: u32, sequence: u32) {
    out.put_u32(HEADER as u32);
    out.put_u32(command);
    out.put_u32(status);
    out.put_u32(sequence);
}

/// Writes the answer to a `deliver_sm` or `data_sm`: taken.
pub fn put_taken(out: &mut BytesMut, command: u32, sequence: u32) {
    let pdu = if command == DATA_SM { Pdu::from(DataSmResp::default()) } else { Pdu::from(DeliverSmResp::default()) };
    put(out, &Command::new(CommandStatus::EsmeRok, sequence, pdu));
}

/// Writes a bind, as version 3.4, with the password as it is now. Written by hand because the codec refuses passwords over 8 characters, which the standard
/// forbids and some SMSCs give out.
pub fn put_bind(out: &mut BytesMut, config: &SmppConfig, role: Role, sequence: u32) {
    let command = match role {
        Role::Transceiver => BIND_TRANSCEIVER,
        Role::Transmitter => BIND_TRANSMITTER,
        Role::Receiver => BIND_RECEIVER,
    };
    let start = out.len();
    put_header_only(out, command, 0, sequence);
    for text in [&config.system_id, config.password.now().expose(), &config.system_type] {
        out.put_slice(text.as_bytes());
        out.put_u8(0);
    }
    // Interface version 3.4, then ton, npi and address range, all left to the SMSC.
    out.put_slice(&[0x34, 0, 0, 0]);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn put(out: &mut BytesMut, command: &Command) {
    let length = 4 + command.length();
    out.reserve(length);
    out.put_u32(length as u32);
    command.encode(out);
}

/// What all submits of an account have in common, checked once.
pub struct Template {
    submit: SubmitSm,
    source: String,
    ext_code_max: usize,
    long: LongMessage,
    gsm7: DataCoding,
    ucs2: DataCoding,
}

impl Template {
    /// Refuses what the codec could not encode.
    pub fn new(account: &Account, config: &SmppConfig) -> Result<Template, Fault> {
        let refuse = |what: &str| Fault::new(Code::ConfigInvalid, format!("smpp account {}: {what}", account.name));
        let mut submit = SubmitSm::default();
        submit.service_type = ServiceType::new(text(&config.service_type).ok_or_else(|| refuse("service_type"))?);
        // The codec's own default is 0x08, a delivery acknowledgement.
        submit.esm_class = EsmClass::from(0);
        submit.source_addr_ton = Ton::from(config.source_ton);
        submit.source_addr_npi = Npi::from(config.source_npi);
        submit.source_addr = text(&config.source_addr).ok_or_else(|| refuse("source_addr"))?;
        submit.dest_addr_ton = Ton::from(config.dest_ton);
        submit.dest_addr_npi = Npi::from(config.dest_npi);
        submit.registered_delivery = RegisteredDelivery::from(u8::from(account.receipts.wanted));
        if !config.validity_period.is_empty() {
            let octets = terminated(config.validity_period.as_bytes());
            submit.validity_period = EmptyOrFullCOctetString::from_bytes(octets).map_err(|_| refuse("validity_period"))?;
        }
        Ok(Template {
            submit,
            source: config.source_addr.clone(),
            ext_code_max: usize::from(account.capabilities.ext_code_max),
            long: account.capabilities.long_message,
            gsm7: DataCoding::from(config.data_coding_gsm7),
            ucs2: DataCoding::from(config.data_coding_ucs2),
        })
    }

    /// The submit that is the same for all parts of one message, or why the account cannot send it.
    pub fn message(&self, message: &Submit, encoding: Encoding) -> Result<SubmitSm, &'static str> {
        let mut submit = self.submit.clone();
        if !message.ext_code.is_empty() {
            if message.ext_code.len() > self.ext_code_max {
                return Err("ext_code too long");
            }
            let source = [self.source.as_str(), &message.ext_code].concat();
            submit.source_addr = text(&source).ok_or("source address too long")?;
        }
        submit.destination_addr = digits(message.number.0);
        submit.data_coding = match encoding {
            Encoding::Gsm7 => self.gsm7,
            Encoding::Ucs2 => self.ucs2,
        };
        Ok(submit)
    }

    /// Writes one part of a message and gives its length. `submit` comes from [`Template::message`].
    pub fn put_part(
        &self,
        out: &mut BytesMut,
        submit: SubmitSm,
        encoded: &Encoded,
        part: usize,
        reference: u16,
        sequence: u32,
    ) -> usize {
        let mut submit = submit;
        let octets = &encoded.parts[part].octets;
        let (number, total) = (encoded.parts[part].index + 1, encoded.parts.len() as u8);
        let mut body = Vec::with_capacity(7 + octets.len());
        if total > 1 {
            match self.long {
                // 3GPP TS 23.040, 9.2.3.24.1 and 9.2.3.24.8.
                LongMessage::Udh8 => body.extend([5, 0, 3, reference as u8, total, number]),
                LongMessage::Udh16 => body.extend([6, 8, 4, (reference >> 8) as u8, reference as u8, total, number]),
                LongMessage::Sar => {
                    submit.push_tlv(MessageSubmissionRequestTlvValue::SarMsgRefNum(reference));
                    submit.push_tlv(MessageSubmissionRequestTlvValue::SarTotalSegments(total));
                    submit.push_tlv(MessageSubmissionRequestTlvValue::SarSegmentSeqnum(number));
                }
                LongMessage::Payload => {}
            }
            if !body.is_empty() {
                submit.esm_class = EsmClass::from(UDH_INDICATOR);
            }
        }
        body.extend_from_slice(octets);
        if body.len() <= SHORT_MESSAGE_MAX {
            submit.set_short_message(OctetString::from_vec(body).expect("its length was just compared"));
        } else {
            let payload = MessagePayload::new(AnyOctetString::from_vec(body));
            submit.push_tlv(MessageSubmissionRequestTlvValue::MessagePayload(payload));
        }
        let before = out.len();
        put(out, &Command::new(CommandStatus::EsmeRok, sequence, submit));
        out.len() - before
    }
}

fn terminated(text: &[u8]) -> Bytes {
    let mut octets = Vec::with_capacity(text.len() + 1);
    octets.extend_from_slice(text);
    octets.push(0);
    Bytes::from(octets)
}

fn text<const MAX: usize>(text: &str) -> Option<COctetString<1, MAX>> {
    COctetString::from_bytes(terminated(text.as_bytes())).ok()
}

/// A number as its digits with the final NUL: at most 20 digits, so it always fits an address of 21 octets.
fn digits(number: u64) -> COctetString<1, 21> {
    let mut octets = [0u8; 21];
    let mut at = 20;
    let mut rest = number;
    loop {
        at -= 1;
        octets[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    COctetString::from_bytes(Bytes::copy_from_slice(&octets[at..])).expect("digits and one NUL are a C string")
}
