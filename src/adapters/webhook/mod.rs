//! Calls to users' own servers, with every door shut that a chosen URL could open: an allow-list of hosts, names resolved
//! here, addresses checked before they are connected to, no redirects, bounded time and size.

mod address;
mod caller;
mod rules;

pub use self::caller::HttpCaller;
pub use self::rules::WebhookConfig;
