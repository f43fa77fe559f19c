//! Providers' callbacks: whose they are, what they say, and that they are durable before they are answered.

use std::time::Duration;

use tokio::sync::oneshot;

use super::accounts::HttpAccounts;
use crate::adapters::http::HttpAccount;
use crate::adapters::secret::Secret;
use crate::model::code::{Code, Fault};
use crate::model::inbound::Inbound;
use crate::model::limits::REPORTS_PER_INTAKE;
use crate::model::receipt::Report;
use crate::ports::provider::{ReportSink, Reports};
use crate::runtime::digest::digest;
use crate::serve::fleet::{Callback, CallbackKind, CallbackReply};

/// A callback whose receipts are not durable by then is answered "again, please".
const DURABLE_WITHIN: Duration = Duration::from_secs(20);

/// What takes callbacks.
#[derive(Clone)]
pub struct Callbacks {
    /// Accounts that get their receipts by callback.
    pub http: HttpAccounts,
    /// Where reports go.
    pub reports: ReportSink,
}

impl Callbacks {
    /// Whether a callback's account knows its token; see [`crate::serve::fleet::Live::admits`].
    ///
    /// # Errors
    /// [`Code::AccountUnknown`].
    pub fn admits(&self, kind: CallbackKind, callback: &Callback) -> Result<(), Fault> {
        self.caller(kind, callback).map(|_| ())
    }

    /// Takes delivery reports; see [`crate::serve::fleet::Live::receipts`].
    ///
    /// # Errors
    /// An account or token that nobody knows, a body that cannot be read, a store that does not answer.
    pub async fn receipts(&self, callback: Callback) -> Result<CallbackReply, Fault> {
        let account = self.caller(CallbackKind::Receipts, &callback)?;
        let (body, content_type) = content(&callback);
        let reports = account.parse_receipts(body, content_type)?;
        for reports in reports.chunks(REPORTS_PER_INTAKE) {
            self.take_in(&callback.account, reports.to_vec(), vec![]).await?;
        }
        Ok(reply(account.receipt_reply()))
    }

    /// Takes messages of people, under the same rules.
    ///
    /// # Errors
    /// As for [`Callbacks::receipts`].
    pub async fn inbound(&self, callback: Callback) -> Result<CallbackReply, Fault> {
        let account = self.caller(CallbackKind::Inbound, &callback)?;
        let (body, content_type) = content(&callback);
        let inbound = account.parse_inbound(body, content_type)?;
        for inbound in inbound.chunks(REPORTS_PER_INTAKE) {
            self.take_in(&callback.account, vec![], inbound.to_vec()).await?;
        }
        Ok(reply(account.inbound_reply()))
    }

    /// The account that a callback names and knows the token of. Digests are compared, so that the time it takes says nothing
    /// about the token; and whether the account or the token is wrong is nobody's business.
    fn caller(&self, kind: CallbackKind, callback: &Callback) -> Result<&HttpAccount, Fault> {
        let token = match kind {
            CallbackKind::Receipts => HttpAccount::receipts_token,
            CallbackKind::Inbound => HttpAccount::inbound_token,
        };
        let digest_of = |text: &str| digest([text.as_bytes()]);
        let knows = |token: Secret| {
            !token.is_empty() && callback.token.as_deref().is_some_and(|given| digest_of(given) == digest_of(token.expose()))
        };
        let known = self.http.get(&callback.account).filter(|account| token(account).is_some_and(knows));
        known
            .map(|account| &**account)
            .ok_or_else(|| Fault::new(Code::AccountUnknown, "no account takes callbacks under this name and token"))
    }

    /// Returns once everything is durable.
    async fn take_in(&self, account: &str, reports: Vec<Report>, inbound: Vec<Inbound>) -> Result<(), Fault> {
        let (ack, durable) = oneshot::channel();
        let reports = Reports { account: account.to_owned(), reports, inbound, ack };
        let stored = async { self.reports.send(reports).await.is_ok() && durable.await == Ok(true) };
        match tokio::time::timeout(DURABLE_WITHIN, stored).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Fault::new(Code::StoreUnavailable, "it could not be stored now: send it again")),
        }
    }
}

/// What a callback says, and of which kind it is: without a body it says it in its query.
fn content(callback: &Callback) -> (&[u8], &str) {
    if callback.body.is_empty() {
        (callback.query.as_bytes(), "application/x-www-form-urlencoded")
    } else {
        (&callback.body, &callback.content_type)
    }
}

fn reply((content_type, body): (&str, &str)) -> CallbackReply {
    CallbackReply { content_type: content_type.to_owned(), body: body.to_owned() }
}
