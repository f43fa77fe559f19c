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
