//! Who may do what: roles, keys of the API, and the entries of the audit trail.

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::time::Timestamp;

/// What a key may do. Each role may do all that the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees batches, reports and accounts; no recipient, no text.
    Viewer,
    /// Creates and commands batches, sees recipients, keeps the suppression list.
    Operator,
    /// Changes rates, keys and webhooks, reads the audit trail, erases and exports people's data.
    Admin,
}

/// All roles, the weakest first.
pub const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

impl Role {
    /// The name that people and other programs see.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// The tenant of a key that sees all tenants.
pub const ALL_TENANTS: &str = "*";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The key's id; `local` for whoever holds the data folder.
    pub key: String,
    /// The key's name, as people chose it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose batches it sees; [`ALL_TENANTS`] for all.
    pub tenant: String,
}

impl Caller {
    /// Whoever can open the data folder, or its socket, may do everything in it.
    pub fn local() -> Caller {
        Caller { key: "local".into(), name: "local".into(), role: Role::Admin, tenant: ALL_TENANTS.into() }
    }

    /// The only tenant it sees; `None` when it sees all.
    pub fn only_tenant(&self) -> Option<&str> {
        (self.tenant != ALL_TENANTS).then_some(self.tenant.as_str())
    }

    /// Whether what belongs to `tenant` exists for this caller.
    pub fn sees(&self, tenant: &str) -> bool {
        self.only_tenant().is_none_or(|only| only == tenant)
    }
}

/// A key of the API as it is stored: its secret only as a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id: the part of the key that may be shown.
    pub id: String,
    /// What it is for, in its owner's words.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose batches it sees.
    pub tenant: String,
    /// SHA-256 of the secret, in hexadecimal. The secret has 190 random bits, so that a slow hash would guard nothing.
    pub digest: String,
    /// When it was created.
    pub created: Timestamp,
    /// After this instant it opens nothing any more.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key opens anything at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|at| now < at)
    }

    /// Who asks with it.
    pub fn caller(&self) -> Caller {
        Caller { key: self.id.clone(), name: self.name.clone(), role: self.role, tenant: self.tenant.clone() }
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Came {
    /// It is about to be carried out. An entry without a later one of the same request was cut off by a crash.
    Asked,
    /// It was carried out.
    Done,
    /// It was refused.
    Refused(Code),
}

/// An entry of the audit trail. Nothing changes or removes one but retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Names the request: the entry before a command and the one after it share it.
    pub request: String,
    /// The key's id.
    pub key: String,
    /// The key's name at that time.
    pub who: String,
    /// Its role.
    pub role: Role,
    /// Whose thing it is about.
    pub tenant: String,
    /// What was asked, such as `batch.pause`.
    pub action: String,
    /// What it is about: a batch id, an account, a key id. Never a number of a person: those are masked.
    pub target: String,
    /// What came of it.
    pub came: Came,
    /// How it was before.
    pub before: Standing,
    /// How it was after; what was asked for, in an entry that says `asked`.
    pub after: Standing,
}

/// How a thing stood: names and what they stood at, in words.
pub type Standing = std::collections::BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_the_one_before_may() {
        assert!(ROLES.is_sorted());
        for role in ROLES {
            assert_eq!(serde_json::to_string(&role).ok(), Some(format!("\"{}\"", role.name())));
        }
    }

    #[test]
    fn a_key_opens_nothing_after_its_end() {
        let key = ApiKey {
            id: "a".into(),
            name: "n".into(),
            role: Role::Viewer,
            tenant: "t".into(),
            digest: String::new(),
            created: Timestamp(0),
            expires: Some(Timestamp(10)),
            revoked: None,
        };
        assert!(key.is_valid(Timestamp(9)) && !key.is_valid(Timestamp(10)));
        assert!(!ApiKey { revoked: Some(Timestamp(1)), ..key.clone() }.is_valid(Timestamp(2)));
        assert!(key.caller().sees("t") && !key.caller().sees("u") && Caller::local().sees("u"));
    }
}
