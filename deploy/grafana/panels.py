"""What the dashboards show: each panel a question, its queries, and the alerts that point to it. `generate` makes the JSON.

Batch ids are never labels of metrics, so no dashboard shows one batch: `smsfleet report BATCH`, `smsfleet explain BATCH` and the
API do. (A Grafana without plugins has no data source that reads JSON over HTTP.) The Batch dashboard shows all that are active.
"""


def m(name, *labels):
    """A metric of the namespaces and processes that are chosen above."""
    return name + "{" + ",".join(['namespace=~"$namespace"', 'instance=~"$instance"', *labels]) + "}"


def rate(name, *labels):
    return f"rate({m(name, *labels)}[$__rate_interval])"


def quantile(q, name, by, *labels):
    return f"histogram_quantile({q}, sum by ({', '.join(['le', *by])}) ({rate(name + '_bucket', *labels)}))"


ACCOUNT = 'account=~"$account"'
ACCEPTED = 'class="accepted"'
PREPARE, DELIVERY = 'queue="prepare"', 'queue="delivery"'
RUNNING = 'state="RUNNING"'
ENDED = 'state=~"accepted|failed|uncertain|suppressed|expired"'
FINAL = 'rung!~"ACCEPTD|ENROUTE"'
LAG = "smsfleet_queue_lag_recipients"
RATE = "cps"

FLEET = {
    "uid": "smsfleet-fleet",
    "title": "smsfleet / Fleet",
    "description": "What is going on, and what limits it?",
    "panels": [
        dict(id=1, title="How many messages go out?", unit=RATE, queries=[
            (f"sum by (account) ({rate('smsfleet_deliver_recipients_total')})", "{{account}}"),
        ], description="Recipients of windows that closed, a second, by account. Nothing while something waits below: look at what "
            "limits it."),
        dict(id=2, title="What are the batches doing?", unit="short", queries=[
            (f"max by (step, state) ({m('smsfleet_coordinate_steps')}) > 0 or max by (step, state) "
             f"({m('smsfleet_coordinate_steps', RUNNING)})", "{{step}} {{state}}"),
        ], description="Steps of active batches, by state. PAUSED ones wait for a person, or for room on the disk."),
        dict(id=3, title="Does what waits get less?", unit="short", queries=[
            (f"max by (queue) ({m(LAG)})", "{{queue}}"),
        ], alerts=["LagGrowsWhileCapacityIsFree"], description="Work that could be done now: records to be prepared, and recipients to "
            "be sent. Paused batches and closed hours are left out, so this should fall."),
        dict(id=4, title="How much of what the accounts take is used?", unit="percentunit", max=1, steps=[(None, "green"), (0.9, "yellow")],
             queries=[
            (f"sum by (account) ({rate('smsfleet_deliver_segments_total')}) / (max by (account) "
             f"({m('smsfleet_rates_capacity_segments_per_second')}) > 0)", "{{account}}"),
        ], description="Segments handed over, as a share of what the account takes. Near 100 %: the account is the limit, and more "
            "processes change nothing. Low while something waits: the fleet is."),
        dict(id=5, title="Is it the window that limits?", unit="percentunit", max=1, steps=[(None, "green"), (0.9, "yellow")], queries=[
            (f"sum by (account) ({m('smsfleet_deliver_in_flight')}) / (sum by (account) ({m('smsfleet_provider_window_parts')}) > 0)",
             "{{account}}"),
        ], description="Parts in flight, as a share of those that may be. Near 100 % with the rate unused: answers are slow, or there are "
            "too few binds."),
        dict(id=6, title="Does somebody lead?", unit="short", queries=[
            (f"max by (instance) ({m('smsfleet_coordinate_leading')})", "{{instance}}"),
            (f"sum(increase({m('smsfleet_coordinate_leader_terms_total')}[$__rate_interval]))", "terms that began"),
        ], alerts=["NoLeader"], steps=[(None, "red"), (1, "green")], description="1 where the leader is. Exactly one should be; a term "
            "that begins is a take-over."),
        dict(id=7, title="Which of the leader's jobs fail?", unit=RATE, queries=[
            (f"sum by (task) ({rate('smsfleet_coordinate_task_failures_total')})", "{{task}}"),
        ], alerts=["CoordinatorJobFails"], steps=[(None, "green"), (0.1, "red")], description="Rounds that failed, a second. The next "
            "round tries again; what goes on failing is not done."),
        dict(id=8, title="When will everything be sent?", kind="stat", unit="s", queries=[
            (f"max({m(LAG, DELIVERY)}) / (sum({rate('smsfleet_deliver_recipients_total')}) > 0)", "left"),
        ], description="Who waits, over the pace of now. Empty while nothing is sent."),
        dict(id=9, title="Which builds run?", kind="stat", unit="short", queries=[
            (f"count by (version, commit) ({m('smsfleet_build_info')})", "{{version}} {{commit}}"),
        ], description="Processes by version and commit. More than one during an upgrade only."),
    ],
}

BATCH = {
    "uid": "smsfleet-batch",
    "title": "smsfleet / Batch",
    "description": "How far are the active batches, what goes wrong, and when are they done? For one batch: smsfleet report BATCH.",
    "panels": [
        dict(id=1, title="How far are the batches that are being sent?", kind="bargauge", unit="short", queries=[
            (f"max by (state) ({m('smsfleet_coordinate_recipients')})", "{{state}}"),
        ], description="All recipients of active batches in their delivery step, by state: from unsent to an outcome."),
        dict(id=2, title="Does preparation go on?", unit=RATE, queries=[
            (f"sum by (result) ({rate('smsfleet_prepare_records_total')})", "{{result}}"),
            (f"max({m(LAG, PREPARE)})", "records that wait"),
        ], alerts=["PrepareStalled"], right={"records that wait": "short"}, description="Records read, a second, and those that wait (right). "
            "They are counted when their range is done, about a hundred thousand at once."),
        dict(id=3, title="Why can records not be sent?", unit="short", queries=[
            (f"sum by (code) (increase({m('smsfleet_prepare_rejected_total')}[$__range]))", "{{code}}"),
        ], kind="bargauge", instant=True, description="Rejected records in the time shown, by code; the README explains each. Many at once: the "
            "wrong list, the wrong column, the wrong region."),
        dict(id=4, title="How many are accepted, refused, in doubt?", unit="short", queries=[
            (f"max by (state) ({m('smsfleet_coordinate_recipients', ENDED)})",
             "{{state}}"),
        ], alerts=["UncertainAboveShare"], description="Outcomes of active batches so far. In doubt is who was handed over and never answered."),
        dict(id=5, title="Is every record accounted for?", kind="stat", unit="short", steps=[(None, "green"), (1, "red")], queries=[
            (f"max({m('smsfleet_statistics_conservation_difference')})", "difference"),
        ], alerts=["ConservationBroken"], description="Records that no outcome accounts for, over the latest recount of each batch. Must be 0."),
        dict(id=6, title="What did batches come to that are settled?", kind="bargauge", unit="short", instant=True, queries=[
            (f"sum by (outcome) (increase({m('smsfleet_statistics_records_total')}[$__range]))", "{{outcome}}"),
        ], description="Records of batches that were settled in the time shown, by outcome. The sum is all their records."),
        dict(id=7, title="Why are messages refused?", unit=RATE, queries=[
            (f"sum by (account, code) ({rate('smsfleet_deliver_failures_total')})", "{{account}} {{code}}"),
        ], description="Parts refused for good, a second, by account and code. The provider's own code is in the batch's report."),
        dict(id=8, title="When will all be sent?", kind="stat", unit="s", queries=[
            (f"max({m(LAG, DELIVERY)}) / (sum({rate('smsfleet_deliver_recipients_total')}) > 0)", "left"),
        ], description="Who waits, over the pace of now. Empty while nothing is sent."),
        dict(id=9, title="How many lanes wait, are sent, are done?", unit="short", queries=[
            (f"max by (state) ({m('smsfleet_coordinate_lanes')})", "{{state}}"),
        ], description="Lanes of active batches in their delivery step. Few sent at once is right where the rate is small."),
        dict(id=10, title="What has preparation made?", unit=RATE, queries=[
            (f"sum by (result) ({rate('smsfleet_prepare_ranges_total')})", "ranges {{result}}"),
            (f"sum({rate('smsfleet_prepare_packs_total')})", "packs"),
            (f"sum({rate('smsfleet_prepare_lanes_sealed_total')})", "lanes sealed"),
        ], description="Ranges that ended, packs written and lanes sealed, a second. A failed range fails its batch."),
    ],
}

ACCOUNTS = {
    "uid": "smsfleet-accounts",
    "title": "smsfleet / Accounts and routes",
    "description": "Which ways are open, how fast are they, and what do they answer?",
    "account": True,
    "panels": [
        dict(id=1, title="Which accounts can be reached?", unit="short", queries=[
            (f"max by (account) ({m('smsfleet_provider_up', ACCOUNT)})", "{{account}} up"),
            (f"max by (account) ({m('smsfleet_provider_wanted', ACCOUNT)})", "{{account}} wanted"),
            (f"sum by (account) ({m('smsfleet_provider_sessions', ACCOUNT)})", "{{account}} sessions"),
        ], alerts=["AccountDown"], steps=[(None, "red"), (1, "green")], description="Whether any process can hand messages over, whether any "
            "waits for it, and the sessions bound in all."),
        dict(id=2, title="How fast may it be, and how fast is it?", unit=RATE, queries=[
            (f"sum by (account) ({rate('smsfleet_deliver_segments_total', ACCOUNT)})", "{{account}} sent"),
            (f"max by (account) ({m('smsfleet_rates_segments_per_second', ACCOUNT)})", "{{account}} allowed"),
            (f"max by (account) ({m('smsfleet_rates_ceiling_segments_per_second', ACCOUNT)}) > 0", "{{account}} ceiling"),
            (f"max by (account) ({m('smsfleet_rates_capacity_segments_per_second', ACCOUNT)})", "{{account}} capacity"),
        ], description="Segments a second: sent, allowed by the governor, the configured or live ceiling, and what the fleet counts on."),
        dict(id=3, title="What do the accounts answer?", unit=RATE, queries=[
            (f"sum by (account, class) ({rate('smsfleet_deliver_answers_total', ACCOUNT)})", "{{account}} {{class}}"),
        ], alerts=["AccountThrottled"], description="Answers a second, by class. Some throttled are how a rate is found; many are not."),
        dict(id=4, title="How long do answers take?", unit="s", queries=[
            (quantile(0.5, "smsfleet_deliver_submit_latency_seconds", ["account", "class"], ACCOUNT), "{{account}} {{class}} half"),
            (quantile(0.99, "smsfleet_deliver_submit_latency_seconds", ["account", "class"], ACCOUNT), "{{account}} {{class}} 99 %"),
        ], description="From hand-over to answer, by class. Answers that come together count once."),
        dict(id=5, title="How long is a window open?", unit="s", queries=[
            (quantile(0.5, "smsfleet_deliver_window_latency_seconds", ["account"], ACCOUNT), "{{account}} half"),
            (quantile(0.99, "smsfleet_deliver_window_latency_seconds", ["account"], ACCOUNT), "{{account}} 99 %"),
        ], description="From the declare to the last answer: whoever is in an open window when a process is killed is in doubt."),
        dict(id=6, title="How full are the windows?", unit="short", queries=[
            (f"sum by (account) ({m('smsfleet_deliver_in_flight', ACCOUNT)})", "{{account}} in flight"),
            (f"sum by (account) ({m('smsfleet_provider_window_parts', ACCOUNT)})", "{{account}} at most"),
        ], description="Parts handed over and not answered, and how many may be."),
        dict(id=7, title="Was anything sent outside the hours?", kind="stat", unit="short", steps=[(None, "green"), (1, "red")], queries=[
            (f"sum by (account) (increase({m('smsfleet_deliver_outside_hours_total', ACCOUNT)}[$__range]))", "{{account}}"),
        ], alerts=["SentOutsideHours"], description="Messages handed over outside the hours of account or batch, in the time shown. Must be 0."),
        dict(id=8, title="Who is slowed down?", unit="short", max=1, steps=[(None, "green"), (1, "yellow")], queries=[
            (f"max by (account) ({m('smsfleet_rates_throttled', ACCOUNT)})", "{{account}}"),
        ], description="1 while the account asked to slow down within the last seconds; the rate follows by itself."),
        dict(id=9, title="Are there binds enough?", unit="short", queries=[
            (f"max by (account, state) ({m('smsfleet_provider_bind_slots', ACCOUNT)})", "{{account}} {{state}}"),
        ], description="Workers that may hold sessions of accounts that allow few, and those that do. More deliverers than slots only wait."),
    ],
}

RECEIPTS = {
    "uid": "smsfleet-receipts",
    "title": "smsfleet / Receipts",
    "description": "What comes back: reports, messages of people, opened links, and what users' servers are told of it.",
    "account": True,
    "panels": [
        dict(id=1, title="Is what was taken reported on?", unit=RATE, queries=[
            (f"sum by (account) ({rate('smsfleet_deliver_answers_total', ACCEPTED, ACCOUNT)})", "{{account}} accepted"),
            (f"sum by (account) ({rate('smsfleet_receipts_reports_total', FINAL, ACCOUNT)})", "{{account}} final reports"),
        ], alerts=["ReceiptsMissing"], description="Parts taken and final reports, a second. The second follows the first, as late as the "
            "network is."),
        dict(id=2, title="How long do reports take?", unit="s", steps=[(None, "green"), (900, "yellow")], queries=[
            (quantile(0.5, "smsfleet_receipts_delivery_latency_seconds", ["account"], ACCOUNT), "{{account}} half"),
            (quantile(0.9, "smsfleet_receipts_delivery_latency_seconds", ["account"], ACCOUNT), "{{account}} 90 %"),
        ], alerts=["ReceiptsLate"], description="From a window's declare to final reports of its recipients, where one process saw both; a sample."),
        dict(id=3, title="Which reports fit nobody?", unit="short", queries=[
            (f"max({m('smsfleet_receipts_parked')})", "parked"),
            (f"max({m('smsfleet_receipts_unmatched')})", "unmatched"),
        ], alerts=["ReceiptsUnmatched"], description="Parked ones are looked for again; unmatched ones were given up. Some are parked while the "
            "answer is still on its way."),
        dict(id=4, title="What do reports say?", unit=RATE, queries=[
            (f"sum by (rung) ({rate('smsfleet_receipts_reports_total', ACCOUNT)})", "{{rung}}"),
            (f"sum({rate('smsfleet_receipts_repeated_total', ACCOUNT)})", "came again"),
        ], description="New reports a second, by what they say, and those that were there before."),
        dict(id=5, title="What do people answer?", unit=RATE, queries=[
            (f"sum by (intent) ({rate('smsfleet_receipts_inbound_total', ACCOUNT)})", "{{intent}}"),
            (f"sum({rate('smsfleet_receipts_inbound_repeated_total', ACCOUNT)})", "came again"),
            (f"sum({rate('smsfleet_receipts_opt_out_unreadable_total', ACCOUNT)})", "opt-outs not obeyed"),
        ], alerts=["OptOutUnreadable"], description="Messages of people a second, by intent. An opt-out whose sender is no number is obeyed by "
            "nobody but you."),
        dict(id=6, title="Are short links opened?", unit=RATE, queries=[
            (f"sum by (result) ({rate('smsfleet_links_requests_total')})", "{{result}}"),
            (f"sum by (kind) ({rate('smsfleet_links_clicks_total')})", "kept: {{kind}}"),
            (f"sum({rate('smsfleet_links_clicks_dropped_total')})", "not kept"),
        ], description="Openings a second. Unknown ones are guesses; unavailable means that the store did not answer."),
        dict(id=7, title="Are users' servers told?", unit=RATE, queries=[
            (f"sum by (result) ({rate('smsfleet_webhooks_events_total')})", "{{result}}"),
        ], description="Events of webhooks a second, by what came of their call."),
        dict(id=8, title="How many events were not told yet?", unit="short", queries=[
            (f"max({m('smsfleet_webhooks_waiting_events')})", "waiting"),
            (f"max({m('smsfleet_webhooks_dead_events')})", "given up"),
        ], steps=[(None, "green"), (10_000, "yellow")], description="Events that wait, and those that were given up after a day and can be replayed."),
    ],
}

STORE = {
    "uid": "smsfleet-store",
    "title": "smsfleet / Store and queue",
    "description": "Does the store keep up, and does the queue flow?",
    "panels": [
        dict(id=1, title="How long does a commit take?", unit="s", steps=[(None, "green"), (0.5, "yellow"), (2, "red")], queries=[
            (quantile(0.5, "smsfleet_store_commit_latency_seconds", []), "half"),
            (quantile(0.99, "smsfleet_store_commit_latency_seconds", []), "99 %"),
        ], description="One conditional write every few seconds among all others: a sample. Each window waits for two."),
        dict(id=2, title="What may preparation write?", unit=RATE, queries=[
            (f"max by (kind) ({m('smsfleet_store_budget_packs_per_second')})", "{{kind}}"),
            (f"sum({rate('smsfleet_prepare_packs_total')})", "written"),
        ], alerts=["StoreBudgetAtFloor"], description="Packs a second: what the store takes, what preparation may write of it, the floor, and "
            "what it wrote. While anything is sent preparation has half."),
        dict(id=3, title="What is the store asked?", unit=RATE, queries=[
            (f"sum by (kind) ({rate('smsfleet_store_requests_total')})", "{{kind}}"),
        ], description="Requests a second to a cluster's store, by kind. Conditional ones cost four times a write."),
        dict(id=4, title="Which calls fail, or come second?", unit=RATE, queries=[
            (f"sum by (code) ({rate('smsfleet_store_errors_total')})", "{{code}}"),
            (f"sum({rate('smsfleet_store_conflicts_total')})", "somebody else was first"),
            (f"sum by (table) ({rate('smsfleet_store_unreadable_rows_total')})", "{{table}} row not readable"),
        ], steps=[(None, "green"), (1, "yellow")], description="Calls on control rows that failed and were tried again, and changes of which "
            "another process was first: harmless, and many when two work on one lane. A row that cannot be read is passed over."),
        dict(id=5, title="How many tokens wait, and come?", unit="short", queries=[
            (f"max by (queue) ({m('smsfleet_queue_lag_tokens')})", "{{queue}} waiting"),
            (f"sum by (queue) (increase({m('smsfleet_dispatch_tokens_total')}[$__rate_interval]))", "{{queue}} sent"),
            (f"sum by (queue) (increase({m('smsfleet_queue_broken_messages_total')}[$__rate_interval]))", "{{queue}} not readable"),
        ], description="Tokens that wait, those sent in each step, and messages of the queues that nobody can read: written by a newer version, "
            "or damaged."),
        dict(id=6, title="Who has partitions and lanes?", unit="short", queries=[
            (f"sum by (instance) ({m('smsfleet_deliver_partitions')})", "{{instance}} partitions"),
            (f"sum by (instance) ({m('smsfleet_deliver_lanes')})", "{{instance}} lanes"),
        ], alerts=["PartitionsWithoutOwner"], description="The partitions of all deliverers make 128. A lane is served by the owner of its "
            "partition, a few at a time."),
        dict(id=7, title="Does any partition stand still?", unit="s", steps=[(None, "green"), (900, "red")], queries=[
            (f"max by (partition) ({m('smsfleet_deliver_still_seconds')}) > 0", "partition {{partition}}"),
        ], alerts=["PartitionStuck"], description="How long a lane that is served has not moved, though its account is up and may send. Empty "
            "is good."),
        dict(id=8, title="Do lanes change hands, and how fast?", unit=RATE, queries=[
            (f"sum by (event) ({rate('smsfleet_deliver_windows_total')})", "windows {{event}}"),
            (quantile(0.9, "smsfleet_deliver_take_over_latency_seconds", []), "take-over, 90 %"),
        ], right={"take-over, 90 %": "s"}, description="Windows a second; judged ones were left by a dead owner and make people uncertain. On the right "
            "the time from its last declare to the next owner's claim."),
    ],
}

PROCESS = {
    "uid": "smsfleet-process",
    "title": "smsfleet / Process",
    "description": "How are the processes themselves?",
    "panels": [
        dict(id=1, title="How many processors does each use?", unit="short", queries=[
            (f"sum by (instance) ({rate('smsfleet_process_cpu_milliseconds_total')}) / 1000", "{{instance}}"),
        ], description="Processors in use, of user and system."),
        dict(id=2, title="How much memory does each hold?", unit="bytes", queries=[
            (f"sum by (instance) ({m('smsfleet_process_resident_bytes')})", "{{instance}}"),
        ], description="Resident memory. It does not grow with the batch."),
        dict(id=3, title="Are there files enough?", unit="percentunit", max=1, steps=[(None, "green"), (0.8, "red")], queries=[
            (f"sum by (instance) ({m('smsfleet_process_open_files')}) / sum by (instance) ({m('smsfleet_process_open_files_limit')})",
             "{{instance}}"),
        ], description="Open files and sockets, as a share of the limit (ulimit -n)."),
        dict(id=4, title="Do the clocks agree?", unit="s", queries=[
            (f"{m('smsfleet_process_clock_seconds')} - timestamp({m('smsfleet_process_clock_seconds')})", "{{instance}}"),
        ], alerts=["ClockSkew"], description="Each process's clock, against that of Prometheus. What matters is how far the lines are apart."),
        dict(id=5, title="Who was started anew?", unit="s", queries=[
            (f"time() - max by (instance) ({m('smsfleet_process_started_seconds')})", "{{instance}}"),
        ], description="How long each process has been running. A line that falls to 0 is a restart."),
        dict(id=6, title="What is HTTP answered?", unit=RATE, queries=[
            (f"sum by (status) ({rate('smsfleet_serve_requests_total')})", "{{status}}"),
            (quantile(0.99, "smsfleet_serve_request_latency_seconds", []), "99 % of answers begin within"),
        ], right={"99 % of answers begin within": "s"}, description="Requests a second by status, and how long answers take (right)."),
        dict(id=7, title="How many tasks are alive?", unit="short", queries=[
            (f"sum by (instance) ({m('smsfleet_process_tasks')})", "{{instance}}"),
        ], description="Tasks of the runtime. A number that only grows is a leak."),
        dict(id=8, title="Does any part stand still?", unit="s", steps=[(None, "green"), (60, "red")], queries=[
            (f"max by (instance) ({m('smsfleet_process_silence_seconds')})", "{{instance}}"),
        ], description="How long the part that owes a sign of life for longest has owed it: seconds, while all is well. At limits.standstill "
            "/healthz says which, and the process is started again."),
    ],
}

DASHBOARDS = {
    "fleet": FLEET,
    "batch": BATCH,
    "accounts": ACCOUNTS,
    "receipts": RECEIPTS,
    "store": STORE,
    "process": PROCESS,
}
