"""Queries that have no data in the run of live.py, by panel and letter, each with its reason. Whatever else is empty is wrong."""

# What only a cluster has. These must be empty: one that is not needs no excuse any more.
CLUSTER = {
    ("accounts", 9, "A"): "bind slots are lent to workers of a cluster; an embedded fleet has all sessions",
    ("store", 3, "A"): "requests are counted towards a cluster's store; the embedded one has its commits",
    ("store", 5, "C"): "only a queue of Kafka can hold a message that nobody can read",
}

# What counts failures that a healthy run may well not have.
FAILURES = {
    ("receipts", 5, "B"): "no message of a person needs to come twice",
    ("store", 4, "A"): "no call on a control row needs to fail",
    ("store", 7, "A"): "no lane needs to stand still",
}
