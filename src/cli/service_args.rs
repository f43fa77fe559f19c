//! What is typed to a service: batches, accounts, the suppression list, keys. The words are the API's.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::args::{BatchArgs, RecipientsArgs};
use crate::model::access::Role;

/// What can be done with batches.
#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Create a batch from a list and prepare it
    #[command(after_help = CREATE_HELP)]
    Create(Box<CreateArgs>),
    /// List batches, newest first
    List(ListArgs),
    /// Show a batch and the commands that are possible now
    Show {
        /// The batch: its id, or the first digits of it
        batch: String,
        /// Go on showing its progress until it is over
        #[arg(long)]
        watch: bool,
    },
    /// Prepare a batch that was created without it
    #[command(name = "entry-process", alias = "prepare")]
    EntryProcess(OneBatch),
    /// Start the delivery of a prepared batch
    Start(OneBatch),
    /// Start exactly the plan with this hash, and refuse if anything changed
    Approve {
        /// The batch: its id, or the first digits of it
        batch: String,
        /// The hash of the plan, as `batch show` prints it
        plan_hash: String,
        /// What names the command
        #[command(flatten)]
        once: OnceArgs,
    },
    /// Begin nothing new of a batch
    Pause {
        /// The batch: its id, or the first digits of it
        batch: String,
        /// Wait up to so many seconds until nothing is in flight, and say when the last message was handed over
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u8).range(1..=60))]
        wait: Option<u8>,
        /// What names the command
        #[command(flatten)]
        once: OnceArgs,
    },
    /// Go on with a paused batch
    Resume(OneBatch),
    /// End a batch: what was not sent stays unsent
    Cancel(OneBatch),
    /// Send what is left through another provider type; shows the plan first
    ChangeProvider {
        /// The batch: its id, or the first digits of it
        batch: String,
        /// The provider type
        provider_type: String,
        /// Whether it is committed
        #[command(flatten)]
        commit: CommitArgs,
        /// What names the command
        #[command(flatten)]
        once: OnceArgs,
    },
    /// Send again who was refused, or who was left unsent; shows the plan first
    Retry(RetryArgs),
    /// Print a batch's report, counted from the store
    Report {
        /// The batch: its id, or the first digits of it
        batch: String,
    },
    /// Stream every recipient of a batch with its history
    Recipients(RecipientsArgs),
}

const CREATE_HELP: &str =
    "A batch is named by an idempotency key. Without --key the key is made from the list and all options, so the same
command, run again, finds the same batch.

Examples:
  smsfleet batch create --recipients list.csv --template 'Hello {{name}}' --account main
  smsfleet batch create --source s3://lists/spring/ --template-file text.txt --account main --auto-trigger
  smsfleet batch show 3f9a2c11 --watch";

/// A batch, and what names the command on it.
#[derive(Args, Clone, Debug)]
pub struct OneBatch {
    /// The batch: its id, or the first digits of it
    pub batch: String,
    /// What names the command.
    #[command(flatten)]
    pub once: OnceArgs,
}

/// What names a command.
#[derive(Args, Clone, Debug, Default)]
pub struct OnceArgs {
    /// The idempotency key: the same key carries the command out once and gives the same answer [default: a fresh one]
    #[arg(long = "idempotency-key", value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// What `batch create` is told.
#[derive(Args, Clone, Debug, Default)]
pub struct CreateArgs {
    /// The list on this machine: it is uploaded; `-` is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "source", conflicts_with = "source")]
    pub recipients: Option<PathBuf>,
    /// The list where the service can read it: a file or folder it may read, s3://…, az://…, gs://…, or upload:ID
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<String>,
    /// The batch.
    #[command(flatten)]
    pub batch: BatchArgs,
    /// Whose batch it is; only for keys that see all tenants
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Start the delivery by itself once it is prepared
    #[arg(long)]
    pub auto_trigger: bool,
    /// Only create it; `batch entry-process` prepares it
    #[arg(long)]
    pub no_prepare: bool,
}

/// Which batches are listed.
#[derive(Args, Clone, Debug, Default)]
pub struct ListArgs {
    /// Only those in this state, such as RUNNING
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Only those of this provider type
    #[arg(long, value_name = "NAME")]
    pub provider_type: Option<String>,
    /// Only those of this campaign
    #[arg(long, value_name = "ID")]
    pub campaign_id: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only those created at this moment or later
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Who is tried again.
#[derive(Args, Clone, Debug, Default)]
pub struct RetryArgs {
    /// The batch: its id, or the first digits of it
    pub batch: String,
    /// Who was refused for good
    #[arg(long, required_unless_present_any = ["unsent", "code", "failed_by", "detail", "number"])]
    pub failed: bool,
    /// Who was never taken, and not refused
    #[arg(long, conflicts_with_all = ["failed", "code", "failed_by", "detail", "number"])]
    pub unsent: bool,
    /// Of those who were refused, those with this code
    #[arg(long, value_name = "SF-CODE")]
    pub code: Vec<String>,
    /// Of those who were refused, those by this account
    #[arg(long = "failed-by", value_name = "ACCOUNT")]
    pub failed_by: Vec<String>,
    /// Of those who were refused, those with this code of the provider's own
    #[arg(long, value_name = "TEXT")]
    pub detail: Vec<String>,
    /// Of those who were refused, these numbers
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub number: Vec<String>,
    /// Until when they may be sent; needed once the batch's own limit has passed
    #[arg(long, value_name = "TIME")]
    pub not_after: Option<String>,
    /// Whether it is committed.
    #[command(flatten)]
    pub commit: CommitArgs,
    /// What names the command.
    #[command(flatten)]
    pub once: OnceArgs,
}

/// Whether a plan is committed.
#[derive(Args, Clone, Debug, Default)]
pub struct CommitArgs {
    /// Commit the plan with this hash; without it the plan is shown and nothing is changed
    #[arg(long, value_name = "HASH")]
    pub plan_hash: Option<String>,
    /// Show the plan and commit it at once
    #[arg(long, conflicts_with = "plan_hash")]
    pub yes: bool,
}

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// List accounts: state, rates, errors
    List,
    /// Change an account's rate, while it sends; it stands until it is set back
    Rate {
        /// The account
        account: String,
        /// Segments a second at most, or `configured` to set it back
        rate: String,
    },
}

/// What can be done with the suppression list.
#[derive(Debug, Subcommand)]
pub enum SuppressCommand {
    /// Put numbers on the list: they get nothing more within seconds
    Add {
        /// With country codes, such as +8613800138000
        #[arg(required = true, allow_hyphen_values = true)]
        numbers: Vec<String>,
    },
    /// Take numbers off the list
    Remove {
        /// With country codes
        #[arg(required = true, allow_hyphen_values = true)]
        numbers: Vec<String>,
    },
    /// Say which numbers are on the list
    Check {
        /// With country codes
        #[arg(required = true, allow_hyphen_values = true)]
        numbers: Vec<String>,
    },
    /// Put the numbers of a file on the list, or take them off
    Import {
        /// A file with one number a line, with country codes; `-` is standard input
        file: PathBuf,
        /// Take them off instead
        #[arg(long)]
        remove: bool,
    },
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key; it is shown once
    Create {
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: RoleWord,
        /// Whose batches it sees [default: all that you see]
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// After this moment it opens nothing any more
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List keys
    List,
    /// Revoke a key: every process refuses it within a second
    Revoke {
        /// Its id, as `key list` shows it
        id: String,
    },
}

/// What can be done with webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Tell a server of yours what happens; the secret of its calls is shown once
    Add {
        /// https, at a host that webhooks.allow names
        url: String,
        /// What it is told of: batch, receipt, inbound
        #[arg(long = "event", value_name = "EVENT", required = true)]
        events: Vec<String>,
        /// Whose batches it is told of [default: all that you see]
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
    },
    /// List webhooks
    List,
    /// Tell one again that was stopped, or that ended
    Enable {
        /// The webhook
        id: String,
    },
    /// Tell one nothing for now
    Disable {
        /// The webhook
        id: String,
    },
    /// Remove one, with everything that waits for it
    Remove {
        /// The webhook
        id: String,
    },
    /// List events that were tried for about a day and not taken
    Dead {
        /// Only those of this webhook
        id: Option<String>,
    },
    /// Send dead events again
    Replay {
        /// The webhook
        id: String,
        /// Only those of this batch
        #[arg(long, value_name = "BATCH")]
        batch: Option<String>,
    },
}

/// What can be done with a number.
#[derive(Debug, Subcommand)]
pub enum NumberCommand {
    /// Show what happened to it, over all batches
    History {
        /// With its country code
        #[arg(allow_hyphen_values = true)]
        number: String,
    },
    /// Print everything that is stored about it, as JSON lines
    Export {
        /// With its country code
        #[arg(allow_hyphen_values = true)]
        number: String,
    },
    /// Erase it everywhere; counts and outcomes stay
    Erase {
        /// With its country code
        #[arg(allow_hyphen_values = true)]
        number: String,
    },
}

/// See [`Role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleWord {
    /// Sees batches, reports and accounts; no recipient
    Viewer,
    /// Creates and commands batches, sees recipients, keeps the suppression list
    Operator,
    /// Changes rates, keys and webhooks, reads the audit trail, erases and exports people's data
    Admin,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Role {
        match word {
            RoleWord::Viewer => Role::Viewer,
            RoleWord::Operator => Role::Operator,
            RoleWord::Admin => Role::Admin,
        }
    }
}
