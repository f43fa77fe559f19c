//! Errors as problem documents (RFC 9457), with the same code that the log line and the command line show.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::views::CommandView;
use crate::model::code::{Code, Fault};
use crate::ports::StoreError;

/// A problem document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A name of the kind of problem (RFC 9457, 3.1.1).
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's meaning.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong and where.
    pub detail: String,
    /// The code.
    #[schema(value_type = String)]
    pub code: Code,
    /// What to do about it.
    pub advice: String,
    /// What is possible with the batch instead, when a command on it was refused.
    #[serde(default, skip_serializing_if = "<[CommandView]>::is_empty")]
    #[schema(value_type = Vec<CommandView>, required = false)]
    pub commands: Box<[CommandView]>,
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        Problem {
            kind: format!("urn:smsfleet:problem:{}", fault.code),
            title: fault.code.meaning().to_owned(),
            status: fault.code.http_status(),
            detail: fault.context,
            code: fault.code,
            advice: fault.code.advice().to_owned(),
            commands: Box::default(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        Fault::from(error).into()
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        Fault::new(problem.code, problem.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if self.code == Code::TooManyRequests {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
