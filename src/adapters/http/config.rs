//! How an HTTP account is reached, and where things stand in its answers and receipts.
//!
//! Templates hold `{{name}}` with these names: `number` (digits without a plus sign), `text`, `key` (the message's own key;
//! in a body with several messages, the key of the request), `sender` (with `ext_code` behind it), `ext_code`, `batch` (the
//! batch's part of the key), `secret`, and, in `body` only, `items`. Values are escaped by the kind of body: JSON strings
//! (write the quotes in the template), forms and URLs by percent signs, XML by entities, plain text not at all.
//!
//! Places in answers and receipts are JSON pointers (RFC 6901), such as `/messages/0/id`. The empty pointer is the whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::adapters::secret::Secret;
use crate::adapters::vendor::VendorClass;
use crate::model::schedule::seconds;

/// An HTTP account. How long an answer is waited for stands in [`crate::model::account::Account`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The method: `POST`, `PUT` or `GET`.
    pub method: String,
    /// Where messages go: a template.
    pub url: String,
    /// Headers: templates. Never printed, because they often hold secrets.
    pub headers: BTreeMap<String, Secret>,
    /// What `{{secret}}` stands for.
    pub secret: Secret,
    /// The kind of body; decides how values are escaped.
    pub content_type: String,
    /// The body: a template. With `batch` above 1 it holds `{{items}}`.
    pub body: String,
    /// Messages in one request at most.
    pub batch: u32,
    /// One message of a request with several: a template.
    pub item: String,
    /// What stands between two of them.
    pub separator: String,
    /// The sender: a number or a name.
    pub sender: String,
    /// Requests at once at most.
    pub concurrency: u32,
    /// Where things stand in the answer.
    pub answer: AnswerConfig,
    /// A key under which the provider removes repeats.
    pub idempotency: Option<IdempotencyConfig>,
    /// Receipts that the provider pushes.
    pub receipts: Option<ReceiptConfig>,
    /// Messages of people that the provider pushes.
    pub inbound: Option<InboundConfig>,
    /// A PEM file with the authorities to trust; the public ones when there is none.
    pub ca_file: Option<PathBuf>,
    /// Seconds that connecting may take; half of the account's `answer_timeout` at most.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// Seconds before the first try after a connection failed, or before a repeat under the same key.
    #[serde(with = "seconds")]
    pub retry_min: Duration,
    /// Seconds between tries at most.
    #[serde(with = "seconds")]
    pub retry_max: Duration,
}

impl HttpConfig {
    /// Checks what no type can say: templates, places, relations.
    ///
    /// # Errors
    /// [`crate::model::code::Code::ConfigInvalid`] with what is wrong.
    pub fn check(&self) -> Result<(), crate::model::code::Fault> {
        if let Some(receipts) = &self.receipts {
            super::receipt::check(receipts)?;
        }
        if let Some(inbound) = &self.inbound {
            super::inbound::check(inbound)?;
        }
        super::request::Requests::new(self, Duration::from_secs(1)).map(|_| ())
    }
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            method: "POST".into(),
            url: String::new(),
            headers: BTreeMap::new(),
            secret: Secret::default(),
            content_type: "application/json".into(),
            body: r#"{"from":"{{sender}}","to":"{{number}}","text":"{{text}}"}"#.into(),
            batch: 1,
            item: String::new(),
            separator: ",".into(),
            sender: String::new(),
            concurrency: 8,
            answer: AnswerConfig::default(),
            idempotency: None,
            receipts: None,
            inbound: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// Where things stand in an answer. Pointers other than `items` begin at the item when there are items, else at the whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerConfig {
    /// The array with one answer for each message; absent when one answer stands for all.
    pub items: Option<String>,
    /// Which message an item is about: its value is the message's key or number. Absent when items come in order.
    pub item_of: Option<String>,
    /// The provider's message id.
    pub id: Option<String>,
    /// The provider's error code.
    pub error: Option<String>,
    /// What says that a message was taken. Absent: it was taken when it has an id and no error.
    pub success: Option<Success>,
    /// What the provider's error codes, or HTTP statuses such as `"409"`, mean. Looked up before the table of statuses; a
    /// code that is not here is permanent in an answer with a status of 2xx.
    pub codes: BTreeMap<String, VendorClass>,
}

/// What says that a message was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Success {
    /// Where it stands.
    pub pointer: String,
    /// What stands there, as text.
    pub equals: String,
}

/// A key under which the provider removes repeats.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdempotencyConfig {
    /// The header that carries it.
    pub header: String,
    /// Seconds for which the provider remembers it.
    #[serde(with = "seconds")]
    pub lifetime: Duration,
}

/// Receipts that a provider pushes: JSON or a form, one or many.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReceiptConfig {
    /// What a push must know to be taken.
    pub token: Secret,
    /// The receipts: an array, or one object.
    pub items: String,
    /// The message id.
    pub id: Option<String>,
    /// Our own key, where the provider gives it back.
    pub reference: Option<String>,
    /// The number it was sent to.
    pub number: Option<String>,
    /// The word that says what became of it.
    pub status: String,
    /// What the words mean, in the words of SMPP (DELIVRD, UNDELIV, EXPIRED, DELETED, REJECTD, UNKNOWN, ACCEPTD, ENROUTE),
    /// which need not be listed themselves. A word that is neither here nor there counts as ENROUTE: it is waited on.
    pub statuses: BTreeMap<String, String>,
    /// When: seconds or milliseconds since 1970, `YYYYMMDDhhmmss`, or an ISO 8601 date.
    pub done: Option<String>,
    /// The network's error code.
    pub error: Option<String>,
    /// What a push is answered with once its receipts are durable.
    pub reply: String,
    /// The kind of that answer.
    pub reply_type: String,
}

impl Default for ReceiptConfig {
    fn default() -> ReceiptConfig {
        ReceiptConfig {
            token: Secret::default(),
            items: String::new(),
            id: Some("/id".into()),
            reference: None,
            number: None,
            status: "/status".into(),
            statuses: BTreeMap::new(),
            done: None,
            error: None,
            reply: r#"{"code":0}"#.into(),
            reply_type: "application/json".into(),
        }
    }
}

/// Messages of people that the provider pushes to `/v1/inbound/ACCOUNT`, as JSON (an object or an array), a form, or the query
/// of a GET.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboundConfig {
    /// What a push must know to be taken.
    pub token: Secret,
    /// The messages: an array, or one object.
    pub items: String,
    /// Who sent it.
    pub from: String,
    /// The number it was sent to, with the `ext_code` behind it.
    pub to: Option<String>,
    /// What it says.
    pub text: String,
    /// The provider's own id of it: by it a push that comes again is told.
    pub id: Option<String>,
    /// What a push is answered with once its messages are durable.
    pub reply: String,
    /// The kind of that answer.
    pub reply_type: String,
}

impl Default for InboundConfig {
    fn default() -> InboundConfig {
        InboundConfig {
            token: Secret::default(),
            items: String::new(),
            from: "/from".into(),
            to: Some("/to".into()),
            text: "/text".into(),
            id: Some("/id".into()),
            reply: r#"{"code":0}"#.into(),
            reply_type: "application/json".into(),
        }
    }
}
