//! The tables of what stands around the fleet: receipts, lists, documents, journals.

use super::tables::{Table, table};

/// How long deleted rows of tables that work as queues are kept for a node that was away: longer than a restart, shorter
/// than it takes to pile up what every read has to pass over. What such a node brings back afterwards is noticed by its
/// reader (an entry without its row), or told once more (an event).
const QUEUE: &str = "gc_grace_seconds = 3600";

/// See [`super::tables`].
pub(super) const SERVICE: &[Table] = &[
    // A report is known by its key alone. Once `erased`, its body counts without what names anybody.
    table(
        "receipt",
        "batch_id blob, lane int, bucket bigint, seq bigint, part int, rung int, digest bigint, body blob, erased boolean, \
         PRIMARY KEY ((batch_id, lane, bucket), seq, part, rung, digest)",
    ),
    // Each row has a time to live.
    table(
        "uncertain",
        "account text, number bigint, batch_id blob, lane int, seq bigint, part int, declared_at bigint, \
         PRIMARY KEY ((account, number), batch_id, lane, seq, part)",
    ),
    // Accounts that ever had an uncertain recipient: what is stored of a number is found through them.
    table("uncertain_account", "one int, account text, PRIMARY KEY ((one), account)"),
    table("parked", "id bigint PRIMARY KEY, body blob"),
    // Where the parked ones stand: state 0 waits until `due`, 1 stayed unmatched.
    Table {
        name: "parked_place",
        columns: "state int, shard int, due bigint, id bigint, PRIMARY KEY ((state, shard), due, id)",
        options: QUEUE,
    },
    table("suppressed", "bucket int, number bigint, PRIMARY KEY ((bucket), number)"),
    // Random bits of the last change of each bucket, in one partition that every process reads several times a second.
    table("suppression_mark", "one int, bucket int, nonce bigint, PRIMARY KEY ((one), bucket)"),
    // The counter and the key; changed under conditions only.
    table("link_state", "name text PRIMARY KEY, value blob"),
    // A block stands in every segment of numbers that it reaches into.
    Table {
        name: "link_block",
        columns: "segment bigint, first bigint, len bigint, batch_id blob, PRIMARY KEY ((segment), first)",
        options: "CLUSTERING ORDER BY (first DESC)",
    },
    // Changed under conditions only.
    table("document", "shelf int, bucket int, name text, body text, nonce bigint, PRIMARY KEY ((shelf, bucket), name)"),
    table(
        "journal",
        "stream int, shard int, scope text, at bigint, id bigint, body text, PRIMARY KEY ((stream, shard), scope, at, id)",
    ),
    Table {
        name: "journal_queue",
        columns: "stream int, shard int, scope text, at bigint, id bigint, body text, PRIMARY KEY ((stream, shard), scope, at, id)",
        options: QUEUE,
    },
];
