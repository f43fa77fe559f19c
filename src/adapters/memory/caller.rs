//! A caller that calls nobody, for fleets without a network.

use crate::model::code::{Code, Fault};
use crate::ports::caller::{Call, Called, Caller};

/// Refuses every URL and every call.
pub struct NoCaller;

#[async_trait::async_trait]
impl Caller for NoCaller {
    async fn check(&self, _: &str) -> Result<(), Fault> {
        Err(Fault::new(Code::InputInvalid, "nobody can be called from here"))
    }

    async fn post(&self, _: Call) -> Result<Called, String> {
        Err("nobody can be called from here".into())
    }
}
