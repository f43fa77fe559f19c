//! The command line as it is typed. `--help` is the first documentation anybody reads, so every flag says what it does.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use super::service_args::{
    AccountCommand, BatchCommand, CreateArgs, KeyCommand, NumberCommand, SuppressCommand, WebhookCommand,
};
use crate::model::schedule::LateStart;
use crate::model::window::OnUncertain;

/// The exit codes, as `--help` and the README show them.
pub const EXIT_CODES: &str = "Exit codes:
  0  all settled: every recipient that was to be sent was taken, and its receipt came or was waited for
  1  some recipients failed or are uncertain, are not settled yet, or nothing could be prepared
  2  the input was refused: nothing was sent because of it
  3  it could not run: the data folder, the disk or the network";

const EXAMPLES: &str = "Examples:
  smsfleet quickstart                                   watch ten thousand messages go through a simulated provider
  smsfleet check-config --reference > smsfleet.toml     begin a configuration
  smsfleet send --recipients list.csv --template 'Hello {{name}}' --account main --dry-run
  smsfleet report 3f9a2c11                              the first digits of a batch id are enough";

/// Sends batches of text messages to millions of people and accounts for every one of them.
#[derive(Debug, Parser)]
#[command(name = "smsfleet", version, about, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), propagate_version = true)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// What holds for all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of all commands.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// The folder that holds everything durable [default: smsfleet-data]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The configuration [default: ./smsfleet.toml, else smsfleet.toml in the data folder]
    #[arg(long, global = true, value_name = "FILE", env = "SMSFLEET_CONFIG")]
    pub config: Option<PathBuf>,
    /// A service on the network, such as https://sms.example:8080 [default: the process that holds the data folder, else the
    /// folder itself]
    #[arg(long, global = true, value_name = "URL", env = "SMSFLEET_SERVER")]
    pub server: Option<String>,
    /// The API key for --server; better in the environment, where other users of this machine do not see it
    #[arg(long, global = true, value_name = "KEY", env = "SMSFLEET_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// The authorities that --server's certificate is checked with, a PEM file [default: the public ones]
    #[arg(long, global = true, value_name = "FILE", env = "SMSFLEET_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// More log lines: -v info, -vv debug, -vvv trace
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No log lines but errors, and no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// No colours
    #[arg(long, global = true, env = "NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_color: bool,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send ten thousand messages through a simulated provider and see the report
    #[command(after_help = "Everything is real and durable but the provider. Nothing leaves this machine.
The provider refuses some on purpose: the exit code is 0 when every row is accounted for.")]
    Quickstart(QuickstartArgs),
    /// Send one batch, through to its report; run it again after a kill and it goes on
    #[command(after_help = SEND_HELP)]
    Send(Box<SendArgs>),
    /// Run the whole fleet as a service over the data folder: API, receipts, unfinished batches
    #[command(visible_alias = "serve", after_help = ALL_HELP)]
    All,
    /// Run a coordinator of a cluster: it leads, or waits to lead
    #[command(after_help = ROLE_HELP)]
    Coordinator,
    /// Run a preparer of a cluster: it reads lists, renders messages, seals lanes
    #[command(after_help = ROLE_HELP)]
    Prepare,
    /// Run a deliverer of a cluster: it sends, and takes the receipts of its sessions
    #[command(after_help = ROLE_HELP)]
    Deliver,
    /// Run a gateway of a cluster: API, callbacks of providers, receiving sessions, short links
    #[command(after_help = ROLE_HELP)]
    Gateway,
    /// Make, or bring up to date, the tables and the topics of a cluster
    Migrate,
    /// List the processes of a cluster: who is alive, who leads, who has what, what waits
    Fleet,
    /// List batches, newest first
    Batches,
    /// Print a batch's report, counted from the store
    Report {
        /// The batch: its id, or the first digits of it
        batch: String,
    },
    /// Stream every recipient of a batch with its history
    #[command(after_help = "Example: smsfleet recipients 3f9a2c11 --status failed,uncertain --format csv > open.csv")]
    Recipients(RecipientsArgs),
    /// Say what happened to a number, or what limits a batch
    Explain {
        /// The batch: its id, or the first digits of it
        batch: String,
        /// A number with its country code, such as +8613800138000
        #[arg(allow_hyphen_values = true)]
        number: Option<String>,
    },
    /// Begin nothing new of a batch
    Pause {
        /// The batch
        batch: String,
    },
    /// Go on with a paused batch
    Resume {
        /// The batch
        batch: String,
    },
    /// End a batch: what was not sent stays unsent
    Cancel {
        /// The batch
        batch: String,
    },
    /// Create, watch and command batches of the service
    #[command(subcommand)]
    Batch(BatchCommand),
    /// See accounts, and change their rates while they send
    #[command(subcommand)]
    Account(AccountCommand),
    /// Keep the list of those who get nothing
    #[command(subcommand)]
    Suppress(SuppressCommand),
    /// Make, list and revoke keys of the API
    #[command(subcommand)]
    Key(KeyCommand),
    /// Tell servers of yours what happens, and see what could not be told
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// See, export or erase one person's number
    #[command(subcommand)]
    Number(NumberCommand),
    /// List what people wrote, newest first
    Inbox {
        /// Only answers to this batch
        #[arg(long, value_name = "BATCH")]
        batch: Option<String>,
    },
    /// List who did what, newest first
    Audit {
        /// Only about this batch
        #[arg(long, value_name = "BATCH")]
        batch: Option<String>,
    },
    /// Send a generated list to a simulator while processes of a fleet of its own are killed, frozen and stopped; print a verdict
    #[command(after_help = DRILL_HELP)]
    Drill(DrillArgs),
    /// Run the provider simulator on its own (SMPP 3.4 and HTTP)
    #[command(after_help = "Prints a JSON report of what it received when it is stopped with Ctrl-C.")]
    SimulateProvider(SimulateArgs),
    /// Check the configuration and print what is in force, without secrets
    CheckConfig(CheckArgs),
    /// Make a restored store or a copied data folder usable: what may have been sent since becomes uncertain
    Recover {
        /// The moment of the backup, such as 2024-05-01T12:00:00Z
        #[arg(long, value_name = "TIME")]
        since: String,
    },
    /// Print version, commit and formats
    Version,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const ALL_HELP: &str =
    "The API is on serve.listen, or on 127.0.0.1:8080; its description is at /openapi.json. The network needs a key:

  smsfleet key create --name desk --role operator

Whoever may open the data folder needs none: commands on this machine go through the socket in the folder.
Ctrl-C once ends in order: nothing new is handed over, answers are waited for. Twice ends at once.";

const ROLE_HELP: &str =
    "There may be any number of each role. Servers that are away at the start are waited for; /readyz on serve.listen says for
which. Ctrl-C once ends in order: nothing new is handed over, answers are waited for. Twice ends at once.";

const DRILL_HELP: &str =
    "Without a cluster in the configuration one process `smsfleet all` runs over a folder of its own, which goes when all is well;
--data-dir names one that stays. With a cluster a coordinator that leads, one that waits, a preparer, three deliverers and a
gateway run on this machine, in a keyspace, topics and keys of their own, which are removed.

The simulator runs in this process, which nothing strikes, and counts by number. Afterwards what the store says of every
record is compared with what the list implies and what the simulator saw: nobody may be lost, get it twice, or have failed
without a refusal. A kill may leave people uncertain.

Nothing is sent to a provider: a configuration with an account that leads elsewhere is refused (SF-5011).
The exit code is 0 when nobody was lost, nobody got it twice and every fault fired, else 1.

Examples:
  smsfleet drill
  smsfleet drill --recipients 200000 --minutes 10 --faults 30 --seed 7
  smsfleet --config cluster.toml drill";

const SEND_HELP: &str =
    "A batch is named by an idempotency key. Without --key the key is made from the list's path, the text and all options as
they are typed, so the same command, run again, goes on with the same batch or prints its report; it never sends twice. The
batch goes on as it was made, also when the configuration has changed since.

Examples:
  smsfleet send --recipients list.csv --template 'Hello {{name}}' --account main
  zcat list.csv.gz | smsfleet send --recipients - --template-file text.txt --account main --dry-run
  smsfleet send --recipients list.csv --template 'Hello {{name}}' --account main --approve 5d2c…

Ctrl-C once ends in order: nothing new is handed over, answers are waited for. Twice ends at once.";

/// What `send` is told.
#[derive(Args, Clone, Debug, Default)]
pub struct SendArgs {
    /// The list: CSV or JSON Lines, also gzip or zstd. A file, a folder of files, or an address such as s3://bucket/key; `-` is
    /// standard input
    #[arg(long, value_name = "FILE")]
    pub recipients: PathBuf,
    /// The batch.
    #[command(flatten)]
    pub batch: BatchArgs,
    /// Stop after the seal and print the plan: who would get what, and what it costs
    #[arg(long, conflicts_with = "approve")]
    pub dry_run: bool,
    /// Send exactly the plan with this hash, and refuse if anything changed
    #[arg(long, value_name = "HASH")]
    pub approve: Option<String>,
    /// Price of a segment for this run's estimate and report
    #[arg(long, value_name = "PRICE")]
    pub price: Option<f64>,
    /// Stop waiting for receipts after this many seconds without a new one
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub wait_receipts: u64,
}

/// What a batch is told, its list apart.
#[derive(Args, Clone, Debug, Default)]
pub struct BatchArgs {
    /// The text, with {{column}} or ${column} for each recipient's own values
    #[arg(long, value_name = "TEXT", required_unless_present = "template_file", conflicts_with = "template_file")]
    pub template: Option<String>,
    /// The file that holds the text
    #[arg(long, value_name = "FILE")]
    pub template_file: Option<PathBuf>,
    /// The account to send through, by its name in the configuration
    #[arg(long, value_name = "NAME", conflicts_with = "provider_type")]
    pub account: Option<String>,
    /// The provider type to send through: any of its accounts
    #[arg(long, value_name = "NAME")]
    pub provider_type: Option<String>,
    /// The signature, put before the text as 【…】
    #[arg(long, value_name = "TEXT")]
    pub signature: Option<String>,
    /// The long link that the text names as itself, {{url}} or ${url}; each recipient gets a short one
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// What short codes are put behind, such as https://s.example/
    #[arg(long, value_name = "URL")]
    pub link_base: Option<String>,
    /// Digits behind the sender's number; leading zeros count
    #[arg(long, value_name = "DIGITS")]
    pub ext_code: Option<String>,
    /// The campaign's id
    #[arg(long, value_name = "ID", default_value = "")]
    pub campaign_id: String,
    /// The campaign's name
    #[arg(long, value_name = "NAME", default_value = "")]
    pub campaign_name: String,
    /// The programme the campaign belongs to
    #[arg(long, value_name = "ID", default_value = "")]
    pub program_id: String,
    /// Your own number for this run
    #[arg(long, value_name = "ID", default_value = "")]
    pub task_id: String,
    /// Your own number for the content
    #[arg(long, value_name = "ID", default_value = "")]
    pub content_id: String,
    /// Not before this moment, such as 2024-05-01T09:00:00+02:00
    #[arg(long, value_name = "TIME")]
    pub schedule: Option<String>,
    /// Not after this moment
    #[arg(long, value_name = "TIME")]
    pub not_after: Option<String>,
    /// When it may be sent, such as "08:00-22:00 Asia/Shanghai"; narrows the hours of the accounts
    #[arg(long, value_name = "HOURS")]
    pub hours: Option<String>,
    /// What happens to a start that was missed
    #[arg(long, value_enum, value_name = "POLICY")]
    pub late_start: Option<LateStartWord>,
    /// What is done with recipients that were handed over and never answered
    #[arg(long, value_enum, value_name = "POLICY")]
    pub on_uncertain: Option<OnUncertainWord>,
    /// 0 to 9; larger goes first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub priority: Option<u8>,
    /// Region of numbers without a country code, such as CN
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// The column that holds the number [default: found by its name]
    #[arg(long, value_name = "NAME")]
    pub number_column: Option<String>,
    /// How the list is read where that cannot be found out, such as "delimiter=;" or "encoding=gb18030;header=no"
    #[arg(long, value_name = "KEY=VALUE;…", default_value = "")]
    pub dialect: String,
    /// The idempotency key: the same key never makes a second batch
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

/// What `quickstart` is told.
#[derive(Args, Clone, Debug)]
pub struct QuickstartArgs {
    /// Rows of the list
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub recipients: u32,
}

/// What `drill` is told.
#[derive(Args, Clone, Debug)]
pub struct DrillArgs {
    /// Rows of the list
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub recipients: u32,
    /// The seed of when what happens to whom [default: drawn, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long sending would take if nothing happened
    #[arg(long, value_name = "MINUTES", default_value_t = 1.0)]
    pub minutes: f64,
    /// How often a process is killed, frozen or stopped
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub faults: u32,
    /// Seconds that a frozen process stands still [default: longer than every lease]
    #[arg(long, value_name = "SECONDS")]
    pub freeze: Option<f64>,
    /// Only remove a namespace of a cluster that a drill left behind
    #[arg(long, value_name = "NAMESPACE", exclusive = true)]
    pub remove: Option<String>,
}

/// What `recipients` is told.
#[derive(Args, Clone, Debug)]
pub struct RecipientsArgs {
    /// The batch: its id, or the first digits of it
    pub batch: String,
    /// Only these, with commas between: accepted, failed, uncertain, expired, canceled, rejected, duplicate, suppressed, open,
    /// delivered, undelivered, pending, unknown
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// How they are written
    #[arg(long, value_enum, default_value_t = FormatWord::Jsonl)]
    pub format: FormatWord,
    /// Show the texts too
    #[arg(long)]
    pub text: bool,
}

/// What `simulate-provider` is told.
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// A TOML file with the simulator's behaviour; see --reference
    #[arg(long, value_name = "FILE")]
    pub behaviour: Option<PathBuf>,
    /// Change one key, such as --set faults.rate=1000 or --set receipts.never_share=0.01
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print all keys with their defaults
    #[arg(long)]
    pub reference: bool,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
}

/// What `check-config` is told.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The file [default: as for every command]
    pub file: Option<PathBuf>,
    /// Print all keys, explained, with their defaults
    #[arg(long)]
    pub reference: bool,
}

/// See [`LateStart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LateStartWord {
    /// Pause the batch; a person decides
    Hold,
    /// Send all the same
    Send,
    /// Cancel the batch
    Cancel,
}

impl From<LateStartWord> for LateStart {
    fn from(word: LateStartWord) -> LateStart {
        match word {
            LateStartWord::Hold => LateStart::Hold,
            LateStartWord::Send => LateStart::Send,
            LateStartWord::Cancel => LateStart::Cancel,
        }
    }
}

/// See [`OnUncertain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnUncertainWord {
    /// List them; a late receipt may settle them
    Hold,
    /// Send again, up to three times, knowing that some get it more than once
    Resend,
    /// Ask the provider where the protocol can
    Query,
}

impl From<OnUncertainWord> for OnUncertain {
    fn from(word: OnUncertainWord) -> OnUncertain {
        match word {
            OnUncertainWord::Hold => OnUncertain::Hold,
            OnUncertainWord::Resend => OnUncertain::Resend,
            OnUncertainWord::Query => OnUncertain::Query,
        }
    }
}

/// How recipients are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatWord {
    /// One JSON object a line, history included
    Jsonl,
    /// For spreadsheets
    Csv,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_read() {
        let send =
            ["smsfleet", "send", "--recipients", "l.csv", "--template", "x", "--account", "a", "--priority", "7", "--json"];
        let cli = Cli::try_parse_from(send).expect("it is valid");
        assert!(cli.global.json && matches!(&cli.command, Command::Send(args) if args.batch.priority == Some(7)));
        for wrong in [
            &["smsfleet", "send", "--recipients", "l.csv"][..],
            &["smsfleet", "send", "--recipients", "l.csv", "--template", "x", "--dry-run", "--approve", "y"],
            &["smsfleet", "send", "--recipients", "l.csv", "--template", "x", "--priority", "10"],
            &["smsfleet", "recipients", "abcd", "--format", "xml"],
            &["smsfleet", "recover"],
            &["smsfleet", "batch", "retry", "3f9a", "--unsent", "--number", "+8613800138000"],
            &["smsfleet", "batch", "retry", "3f9a", "--unsent", "--code", "SF-5001"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
        Cli::try_parse_from(["smsfleet", "batch", "retry", "3f9a", "--unsent"]).expect("it is valid");
        let explain = Cli::try_parse_from(["smsfleet", "explain", "3f9a", "+8613800138000"]).expect("it is valid");
        assert!(matches!(explain.command, Command::Explain { number: Some(_), .. }));
    }
}
