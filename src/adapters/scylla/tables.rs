//! The tables of the store, in CQL that both servers take.
//!
//! Control rows stand in a CQL partition that is changed under conditions only; data rows in small partitions that nobody
//! ever scans across. Ids of batches are blobs of 16 bytes, so that they read as they are written everywhere else. What is
//! stored in a `body`, `head` or `texts` is a row of [`crate::adapters::rows`].

/// A table.
pub(super) struct Table {
    /// Its name.
    pub name: &'static str,
    /// Columns and primary key.
    pub columns: &'static str,
    /// Options behind `WITH`; empty for none.
    pub options: &'static str,
}

/// A table without options.
pub(super) const fn table(name: &'static str, columns: &'static str) -> Table {
    Table { name, columns, options: "" }
}

/// The fleet's own tables. `control` rows first.
pub(super) const CORE: &[Table] = &[
    // What the store says of itself; changed under conditions only.
    table("meta", "name text PRIMARY KEY, value text"),
    table("fact", "name text PRIMARY KEY, value text"),
    table("sms_batch", "batch_id blob PRIMARY KEY, version bigint, nonce bigint, body blob"),
    // One partition a batch, so that its ranges are listed by one read.
    table(
        "record_range",
        "batch_id blob, range_no bigint, version bigint, nonce bigint, body blob, PRIMARY KEY ((batch_id), range_no)",
    ),
    table("lane_ledger", "batch_id blob, lane int, version bigint, nonce bigint, body blob, PRIMARY KEY ((batch_id, lane))"),
    // Which days have batches; the days stand in one partition.
    Table { name: "batch_day", columns: "one int, day int, PRIMARY KEY ((one), day)", options: "CLUSTERING ORDER BY (day DESC)" },
    Table {
        name: "batch_by_day",
        columns: "day int, shard int, created bigint, batch_id blob, PRIMARY KEY ((day, shard), created, batch_id)",
        options: "CLUSTERING ORDER BY (created DESC, batch_id DESC)",
    },
    // Ordered by the versions of the rows it names, never by a clock: see `batch_list`.
    table("active_batch", "shard int, batch_id blob, created bigint, noted bigint, PRIMARY KEY ((shard), batch_id, created)"),
    // `gone`: see `erasure`.
    table(
        "sms_delivery_pack",
        "batch_id blob, lane int, range_no bigint, attempt bigint, n bigint, head blob, texts blob, gone set<int>, \
         PRIMARY KEY ((batch_id, lane, range_no), attempt, n)",
    ),
    table(
        "reject",
        "batch_id blob, range_no bigint, attempt bigint, n bigint, body blob, gone set<int>, \
         PRIMARY KEY ((batch_id, range_no), attempt, n)",
    ),
    table("manifest", "batch_id blob, lane int, body blob, PRIMARY KEY ((batch_id, lane))"),
    table(
        "send_window",
        "batch_id blob, lane int, bucket bigint, window_no bigint, body blob, judgement blob, \
         PRIMARY KEY ((batch_id, lane, bucket), window_no)",
    ),
    // Which buckets of a lane were ever used; kind 0 is windows, 1 is receipts.
    table("lane_bucket", "batch_id blob, lane int, kind int, bucket bigint, PRIMARY KEY ((batch_id, lane, kind), bucket)"),
    table("retry_pack", "batch_id blob, lane int, name bigint, body blob, PRIMARY KEY ((batch_id, lane), name)"),
    // Each row has a time to live.
    Table {
        name: "provider_message",
        columns: "account text, id_head text, id_tail text, number_hash int, batch_id blob, lane int, seq bigint, part int, \
                  place int, PRIMARY KEY ((account, id_head), id_tail, number_hash, batch_id, lane, seq, part)",
        options: "compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'HOURS', \
                  'compaction_window_size': '12'}",
    },
];
