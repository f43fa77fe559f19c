"""Queries that have no data in the run of live.py, by panel and letter, each with its reason. Whatever else is empty is wrong."""

# What only a cluster has. These must be empty: one that is not needs no excuse any more.
CLUSTER = {
    ("accounts", 9, "A"): "bind slots are lent to workers of a cluster; an embedded fleet has all sessions",
}

# What counts failures that a healthy run may well not have.
FAILURES = {
    ("store", 4, "A"): "no call on a control row needs to fail",
    ("store", 8, "B"): "lanes may be taken over before the new process is scraped for the first time",
    ("store", 7, "A"): "no lane needs to stand still",
}

# Counters that need not be seen to grow in such a run.
STILL = {
    "smsfleet_queue_broken_messages_total": "nobody writes a message that cannot be read",
    "smsfleet_coordinate_leader_terms_total": "the only process leads before it is read first",
    "smsfleet_coordinate_task_failures_total": "no job needs to fail",
    "smsfleet_deliver_outside_hours_total": "must not",
    "smsfleet_receipts_inbound_repeated_total": "the simulator tells messages of people once",
    "smsfleet_receipts_opt_out_unreadable_total": "all senders are numbers",
    "smsfleet_links_clicks_dropped_total": "few links are opened",
    "smsfleet_store_requests_total": "of a cluster's store alone",
    "smsfleet_store_unreadable_rows_total": "nobody damages a row",
    "smsfleet_store_errors_total": "no call needs to fail",
    "smsfleet_store_conflicts_total": "there is nobody else",
}
