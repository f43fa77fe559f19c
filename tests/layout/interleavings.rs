//! The interleavings that broke an early draft of the design, each with the tests that show it: by name, so that none of them
//! gets lost. The numbers are those of that review. Random runs (`tests/simulation/run.rs`) meet most of them too, and do not
//! count here. What has a letter in it follows as 101 for (a) and so on, what it says of one machine as 201 and so on.

use std::collections::BTreeSet;

/// Number, what happens, and the tests, as `path::name`.
type Shown = (u32, &'static str, &'static [&'static str]);

const SHOWN: &[Shown] = &[
    (
        1,
        "a declare that timed out is applied behind its successors, and would make the lane go back",
        &[
            "src/deliver/owners_tests.rs::a_declare_that_arrives_behind_its_successors_changes_nothing",
            "src/deliver/owners_tests.rs::a_declare_that_is_refused_late_sends_nobody",
            "src/deliver/owners_tests.rs::a_declare_that_was_stored_overtaken_and_never_answered_leaves_nobody_in_doubt",
            "src/runtime/control.rs::a_change_is_applied_once_whatever_the_store_answers",
            "src/runtime/control.rs::who_was_overtaken_while_unanswered_holds_nothing",
            "tests/conformance/control.rs::of_many_racers_one_wins_each_round",
            "tests/conformance/cql/faults.rs::a_late_write_on_an_old_version_changes_nothing",
            "tests/conformance/cql/faults.rs::a_change_whose_answer_is_lost_is_made_once",
        ],
    ),
    (
        2,
        "a preparer that was given up wakes and writes its older reading over the packs that are being sent",
        &[
            "src/prepare/tests.rs::of_two_attempts_the_one_that_holds_the_range_wins",
            "src/prepare/tests.rs::packs_of_a_crashed_attempt_are_ghosts",
            "src/model/record.rs::only_one_attempt_wins",
            "tests/conformance/packs.rs::a_manifest_is_written_once",
        ],
    ),
    (
        2,
        "the list changes between the plan and a range, or between the plans of two leaders",
        &[
            "src/coordinate/planning_tests.rs::of_two_leaders_that_plan_at_once_one_plan_stands",
            "src/coordinate/planning_tests.rs::ranges_of_two_different_looks_at_a_list_never_make_one_plan",
            "src/prepare/tests.rs::a_range_with_fewer_records_than_planned_fails",
            "tests/sources/files.rs::a_list_that_changes_is_noticed",
            "tests/sources/folders.rs::what_changes_after_the_plan_is_named",
            "tests/endtoend/plan.rs::a_list_that_changed_after_its_plan_is_not_sent",
        ],
    ),
    (
        3,
        "a replaced owner's answers come after somebody else has claimed the lane",
        &[
            "src/deliver/owners_tests.rs::answers_of_a_replaced_owner_count_and_nobody_of_them_is_sent_again",
            "src/deliver/owners_tests.rs::a_dead_workers_window_is_judged_only_when_nothing_of_it_can_go_out_or_be_answered_any_more",
            "src/model/ledger.rs::a_replaced_owner_declares_and_closes_nothing",
            "src/statistics/tests.rs::a_judgement_makes_uncertain_unless_the_declarer_answered_after_all",
            "tests/conformance/windows.rs::a_later_row_replaces_and_a_judgement_stands_beside_it",
        ],
    ),
    (
        4,
        "one handset is full for minutes while its lane goes on, and its worker dies or stops meanwhile",
        &[
            "src/deliver/stops_tests.rs::a_full_handset_holds_nobody_up_and_a_crash_does_not_leave_it_in_doubt",
            "src/deliver/stops_tests.rs::a_stopped_worker_gives_back_whom_it_did_not_hand_over_or_was_told_not_now",
            "src/model/ledger.rs::not_now_goes_into_a_further_leg",
            "src/model/ledger.rs::a_stopping_owner_lowers_over_what_it_did_not_hand_over",
            "src/model/window.rs::transient_refusals_end_and_throttling_does_not",
            "tests/simulation/scenes.rs::a_retry_sends_exactly_whom_its_plan_named",
        ],
    ),
    (
        5,
        "a declare is under way while the batch is canceled, changes its provider, or ends",
        &[
            "src/deliver/stops_tests.rs::a_declare_under_way_when_the_batch_is_canceled_sends_nobody",
            "src/batch/fences_tests.rs::a_cancel_and_a_pause_are_answered_only_behind_the_fence_of_every_lane",
            "src/batch/fences_tests.rs::a_change_of_provider_is_answered_only_behind_the_fence_of_every_lane",
            "src/coordinate/delivery_tests.rs::a_batch_ends_only_behind_the_fence_of_every_lane",
            "src/model/fence.rs::a_fence_refuses_every_older_dispatch",
        ],
    ),
    (
        5,
        "a worker that has not heard of a pause goes on declaring",
        &[
            "src/deliver/stops_tests.rs::a_declare_rests_on_a_reading_that_is_younger_than_a_second",
            "tests/simulation/scenes.rs::a_pause_says_when_the_last_message_went",
        ],
    ),
    (
        5,
        "a machine sleeps with a declared window and wakes at night",
        &[
            "src/deliver/owners_tests.rs::a_worker_that_wakes_behind_the_limit_hands_nothing_over",
            "src/adapters/smpp/tests/mod.rs::what_is_stopped_or_late_is_never_sent",
        ],
    ),
    (
        6,
        "fewer binds than workers: who has no session declares nothing, and no slot is lent twice when Redis forgets everything",
        &[
            "src/deliver/checks_tests.rs::a_worker_without_a_session_declares_nothing",
            "src/model/slot.rs::there_are_never_more_holders_than_slots_and_everybody_gets_a_turn",
            "src/model/slot.rs::who_is_alone_keeps_it_and_who_is_gone_gives_it_back_when_its_time_is_over",
            "tests/processes/binds.rs::an_account_with_one_slot_has_sessions_in_one_deliverer_at_a_time",
        ],
    ),
    (
        7,
        "one message id stands for many recipients, or is given out again",
        &[
            "src/receipts/meeting_tests.rs::one_id_for_a_hundred_numbers_and_an_id_that_comes_again_lose_nobody",
            "src/receipts/reference.rs::our_own_reference_names_the_recipient",
            "tests/conformance/index.rs::the_newest_comes_first_and_a_number_narrows",
            "tests/conformance/index.rs::entries_are_found_over_runs_merges_and_restarts",
        ],
    ),
    (
        8,
        "a token of the dispatch before the pause comes again after the resume",
        &[
            "src/deliver/owners_tests.rs::a_token_of_an_older_dispatch_claims_nothing_and_is_committed",
            "src/model/ledger.rs::an_old_token_claims_nothing",
            "src/model/batch_tests.rs::a_pause_makes_every_token_out_of_date",
        ],
    ),
    (
        9,
        "a client that was not answered creates its batch again",
        &[
            "src/batch/fences_tests.rs::a_creation_that_comes_twice_is_one_batch",
            "src/runtime/control.rs::a_row_is_created_once",
            "src/access/answers.rs::a_key_carries_out_one_request_once",
            "tests/conformance/cql/faults.rs::a_row_whose_creation_was_not_answered_is_its_creators",
        ],
    ),
    (
        10,
        "Redis forgets who leads, and two leaders work at once",
        &[
            "src/dispatch/tests.rs::two_leaders_at_once_begin_one_dispatch_and_one_end",
            "src/dispatch/tests.rs::a_leader_that_was_overtaken_takes_no_pause_back",
            "src/coordinate/leading_tests.rs::a_job_under_way_is_dropped_when_the_lease_is_lost",
            "tests/conformance/lease.rs::in_memory",
            "tests/conformance/lease.rs::over_redis",
            "tests/conformance/lease.rs::what_memory_forgets_is_the_next_ones",
            "tests/conformance/lease.rs::what_redis_forgets_is_the_next_ones",
            "tests/processes/binds.rs::an_account_with_one_slot_has_sessions_in_one_deliverer_at_a_time",
            "tests/processes/leader.rs::two_leaders_at_once_do_no_harm",
        ],
    ),
    (
        11,
        "a leader dies between the row that says RUNNING and the tokens",
        &[
            "src/dispatch/tests.rs::tokens_of_a_leader_that_died_behind_the_row_are_sent_by_the_next",
            "src/deliver/stops_tests.rs::a_lane_that_two_tokens_name_is_worked_through_once",
        ],
    ),
    (
        12,
        "somebody is in doubt at one account, and the batch moves to another",
        &[
            "src/deliver/owners_tests.rs::who_is_in_doubt_at_one_account_is_sent_through_another_only_when_the_batch_says_so",
            "src/model/order.rs::nobody_is_named_whom_an_account_took_or_may_have_taken",
            "src/adapters/http/tests.rs::with_a_key_the_doubt_is_cleared_by_the_same_request",
            "src/adapters/http/tests.rs::repeats_end_with_their_number_and_with_the_time",
        ],
    ),
    (
        13,
        "texts were prepared for an account that signs, links and splits otherwise than the one that sends them",
        &[
            "src/model/outgoing.rs::an_account_makes_its_own_of_a_message",
            "src/batch/change_tests.rs::a_plan_counts_what_is_left_and_says_what_stands_against_it",
            "tests/simulation/scenes.rs::a_change_of_provider_is_the_one_that_was_shown",
        ],
    ),
    (
        14,
        "a report without a known id fits uncertain recipients of two batches",
        &[
            "src/receipts/meeting_tests.rs::a_report_settles_the_one_uncertain_recipient_that_it_fits_or_nobody",
            "src/model/outcome.rs::a_late_receipt_settles_an_uncertain_recipient",
            "tests/conformance/receipts.rs::uncertain_recipients_are_found_by_account_and_number",
        ],
    ),
    (
        15,
        "receipts of one message's parts meet on two processes, come twice, or before their answer",
        &[
            "src/receipts/meeting_tests.rs::reports_of_one_message_on_two_processes_count_each_once",
            "src/receipts/meeting_tests.rs::a_report_before_its_answer_waits_in_a_row_of_its_own_and_finds_it",
            "src/model/receipt.rs::a_recipient_is_delivered_when_every_part_is",
            "src/model/receipt.rs::nobody_goes_down_the_ladder",
            "tests/conformance/receipts.rs::a_report_is_new_once",
            "tests/conformance/receipts.rs::parts_of_one_message_that_come_to_many_at_once_are_all_kept",
            "tests/conformance/cql/counted.rs::receipts_that_come_twice_in_any_order_to_two_processes_count_once",
        ],
    ),
    (
        16,
        "two batches send to one person at the same time",
        &["src/deliver/checks_tests.rs::parts_of_two_batches_to_one_person_do_not_share_a_reference"],
    ),
    (
        17,
        "pause and resume would start what nobody started; answers come after the cancel",
        &[
            "src/model/batch_tests.rs::nobody_resumes_what_nobody_started",
            "src/model/state.rs::every_cell_is_as_written",
            "src/deliver/stops_tests.rs::answers_that_come_after_a_cancel_are_kept",
            "src/statistics/tests.rs::whoever_is_in_flight_when_a_batch_is_canceled_is_not_canceled_yet",
        ],
    ),
    (
        18,
        "the start is missed, a person says STOP after the seal, or the hours end while it is sent",
        &[
            "src/model/schedule.rs::a_missed_start_follows_its_policy",
            "src/deliver/checks_tests.rs::who_said_stop_after_the_seal_gets_nothing",
            "src/deliver/checks_tests.rs::who_was_not_declared_in_time_gets_nothing_unless_the_batch_says_so",
            "src/deliver/checks_tests.rs::nothing_is_declared_outside_the_hours_of_its_account",
            "tests/simulation/scenes.rs::a_missed_start_is_held_sent_or_canceled_as_the_batch_says",
            "tests/simulation/scenes.rs::a_batch_is_sent_within_its_own_hours",
        ],
    ),
    (
        19,
        "Redis is emptied in the middle of a run: the living look dead, and rates are lent twice",
        &[
            "src/coordinate/prepare_tracker.rs::a_range_is_given_away_by_its_own_sign_of_life_and_by_nothing_else",
            "src/model/rate_shared_tests.rs::a_lost_state_never_grants_twice",
            "src/model/rate_shared_tests.rs::a_new_state_grants_nothing_for_one_lease_and_knows_what_was_learned",
            "src/adapters/redis/credit.rs::a_slice_is_handed_out_for_a_hundred_milliseconds_from_when_it_was_asked_for",
            "tests/conformance/redis/rates.rs::a_state_that_is_lost_in_the_middle_grants_nothing_twice",
        ],
    ),
    (
        20,
        "the store is restored from a backup, or its folder copied, and would send hours of people again",
        &[
            "src/coordinate/recover.rs::only_what_cannot_have_been_sent_is_left_alone",
            "tests/conformance/meta.rs::a_restored_store_is_noticed_until_it_is_accepted",
            "tests/conformance/folder.rs::a_copy_of_the_folder_is_noticed",
            "tests/endtoend/stopped.rs::a_copied_folder_sends_nothing_and_is_recovered_by_hand",
        ],
    ),
    (
        21,
        "power is cut while many lanes are being sent",
        &[
            "src/deliver/stops_tests.rs::a_crash_leaves_few_people_in_doubt_however_many_lanes_there_are",
            "src/model/turn.rs::windows_are_sized_by_the_rate",
            "src/model/turn.rs::tenants_share_alike_whatever_their_number_of_batches",
        ],
    ),
    (
        22,
        "a lane of 781,250 people is one hot partition: rows lie in buckets, and a batch goes by its own keys",
        &[
            "src/adapters/scylla/schema.rs::rows_of_a_large_lane_are_partitioned_by_range_or_bucket",
            "src/adapters/scylla/windows.rs::windows_of_a_lane_lie_in_partitions_of_five_hundred",
            "src/adapters/scylla/receipts.rs::receipts_of_a_lane_lie_in_partitions_of_sixty_four_packs",
            "tests/conformance/lists.rs::each_kind_of_a_batch_goes_alone_and_its_neighbours_stay",
            "tests/conformance/windows.rs::windows_of_a_lane_come_in_the_order_of_their_names",
            "tests/conformance/cql/rows.rs::batches_are_listed_over_days_and_shards",
        ],
    ),
    (
        23,
        "paused and finished work holds up the queue, so that the lag says nothing",
        &[
            "src/deliver/stops_tests.rs::tokens_of_a_paused_batch_are_committed_and_what_is_in_flight_is_answered",
            "src/model/task.rs::a_token_is_done_when_the_ledger_is_past_its_slice_and_the_last_when_the_lane_is",
            "src/runtime/offsets.rs::nothing_is_committed_over_a_gap",
            "tests/conformance/kafka/topics.rs::migrating_twice_is_harmless_and_every_partition_has_an_offset",
        ],
    ),
    (
        24,
        "a partition is revoked while answers take a minute",
        &[
            "src/deliver/owners_tests.rs::a_lane_given_up_in_the_middle_of_a_declare_leaves_nobody_in_doubt_and_takes_no_rate_with_it",
            "src/deliver/owners_tests.rs::a_revoked_partition_is_let_go_within_a_second_however_long_answers_take",
            "src/prepare/tests.rs::a_revoked_partition_is_released_within_a_second_and_its_range_is_free",
            "tests/conformance/kafka/mod.rs::an_owner_that_does_not_let_go_is_not_waited_for_for_ever",
        ],
    ),
    (
        25,
        "a small batch is prepared beside a very large one, and preparation beside delivery",
        &[
            "src/coordinate/prepare_tracker.rs::a_small_batch_does_not_wait_behind_a_large_one",
            "src/model/throughput.rs::preparation_keeps_a_share_while_delivery_runs",
            "tests/endtoend/load.rs::many_batches_at_once_lose_nothing_and_the_urgent_one_ends_first",
        ],
    ),
    (
        26,
        "a small batch has packs of a few, and a seal task for every lane",
        &[
            "src/coordinate/prepare_tracker.rs::a_small_batch_is_sealed_by_few_tasks_and_a_large_one_by_many",
            "src/model/lane.rs::lanes_follow_the_size",
            "src/prepare/shelves.rs::packs_hold_many_whether_the_batch_is_large_or_small",
        ],
    ),
    (
        27,
        "deliverers scale to none, and receipts still have to come in",
        &[
            "tests/processes/binds.rs::receipts_come_in_by_the_gateways_sessions_when_no_deliverer_is_left",
            "tests/conformance/kafka/topics.rs::migrating_twice_is_harmless_and_every_partition_has_an_offset",
        ],
    ),
    (
        28,
        "two versions share rows and tokens during an upgrade and its way back",
        &[
            "src/adapters/rows/frame.rs::rows_read_back_and_version_n_reads_what_n_plus_1_adds",
            "src/adapters/rows/control.rs::fields_of_a_later_version_are_passed_over_at_any_depth",
            "src/adapters/kafka/wire.rs::a_later_version_is_read_and_a_broken_body_is_not",
            "tests/conformance/cql/schema.rs::another_format_is_refused_by_a_start_and_by_migrate",
            "tests/processes/upgrade.rs::a_rolling_upgrade_and_its_way_back_keep_sending_and_nobody_is_lost_doubled_or_in_doubt",
        ],
    ),
    (
        29,
        "the last lanes are late because each has a small share of the rate",
        &[
            "src/deliver/stops_tests.rs::the_last_lane_gets_the_whole_rate",
            "src/model/rate_shared_tests.rs::who_is_gone_is_not_waited_for",
        ],
    ),
    (
        30,
        "numbers and texts outlive their purpose, and credentials are seen",
        &[
            "src/coordinate/sweeper_tests.rs::numbers_and_texts_go_first_then_what_happened_then_the_batch",
            "src/coordinate/sweeper.rs::each_kind_is_let_go_after_its_own_time",
            "src/roles/config_tests.rs::secrets_come_from_files_and_are_never_printed",
            "src/adapters/smpp/tests/secrets.rs::a_changed_password_is_used_by_the_next_bind_and_a_session_that_is_bound_goes_on",
            "tests/conformance/erasure.rs::messages_of_all_attempts_are_emptied_in_their_places",
            "tests/conformance/erasure.rs::what_stands_outside_batches_is_found_and_removed",
            "tests/endtoend/told.rs::everything_is_told_across_a_crash_and_a_person_can_be_erased",
            "tests/endtoend/masked.rs::logs_hold_no_number_and_no_text",
        ],
    ),
    // What had a letter instead of a number.
    (
        101,
        "another build counts lanes otherwise, or finds a store of other sizes",
        &[
            "src/model/lane.rs::the_hash_is_the_one_that_is_stored",
            "tests/conformance/folder.rs::a_folder_of_another_format_is_refused",
        ],
    ),
    (
        102,
        "a process is told to stop while messages are in flight",
        &[
            "tests/endtoend/stopped.rs::after_sigterm_nobody_is_uncertain",
            "tests/processes/starts.rs::a_deliverer_that_is_told_to_stop_leaves_nobody_in_doubt",
        ],
    ),
    (
        103,
        "a pack is damaged",
        &[
            "src/deliver/checks_tests.rs::people_of_a_pack_that_cannot_be_read_fail_and_their_lane_goes_on",
            "src/statistics/tests.rs::people_of_a_pack_that_cannot_be_read_fail_and_the_rest_goes_on",
            "tests/conformance/packs.rs::a_damaged_pack_is_noticed_and_its_neighbours_are_read",
        ],
    ),
    (
        104,
        "all batches of a day are rows of one hot partition",
        &[
            "src/adapters/scylla/schema.rs::rows_of_a_large_lane_are_partitioned_by_range_or_bucket",
            "src/adapters/scylla/batch_list.rs::batches_of_one_day_are_spread_over_eight_partitions",
            "tests/conformance/cql/rows.rs::batches_are_listed_over_days_and_shards",
        ],
    ),
    (105, "a callback of many receipts has one that cannot be read", &["src/adapters/http/receipt.rs::all_or_nothing"]),
    (
        107,
        "one person is looked for in a very large batch",
        &[
            "src/statistics/tests.rs::one_person_of_a_batch_costs_one_pack_and_the_small_columns_of_one_lane",
            "src/statistics/tests.rs::a_number_is_explained_by_its_own_lines",
        ],
    ),
    (
        108,
        "all numbers of a lane are in memory while it is sealed, and some stand in many records, also of different ranges",
        &[
            "src/prepare/seal.rs::a_lane_of_a_very_large_batch_is_sealed_exactly_and_in_little_memory",
            "src/coordinate/prepare_tracker.rs::a_small_batch_is_sealed_by_few_tasks_and_a_large_one_by_many",
            "src/model/pack.rs::of_duplicates_the_first_record_stays",
            "src/prepare/tests.rs::every_record_is_accounted_for",
        ],
    ),
    // Where one machine differs from many.
    (
        201,
        "power is cut between a declare's answer and the disk",
        &[
            "tests/conformance/disk.rs::what_was_answered_survives_a_power_cut_at_any_moment",
            "tests/conformance/disk.rs::a_failed_sync_ends_the_store",
        ],
    ),
    (
        202,
        "two processes open one folder",
        &[
            "tests/conformance/folder.rs::a_second_user_of_the_folder_is_refused_by_name",
            "tests/endtoend/alongside.rs::commands_work_while_another_process_holds_the_folder",
        ],
    ),
    (
        203,
        "a receipt is acknowledged before it is on disk",
        &[
            "src/adapters/smpp/tests/receipts.rs::a_receipt_is_acknowledged_once_it_is_durable",
            "src/receipts/listener_tests.rs::a_listener_hears_of_each_report_once_and_before_it_is_acknowledged",
        ],
    ),
    (
        204,
        "everything dies at once, at any moment",
        &["tests/endtoend/killed.rs::kills_at_random_moments_lose_nobody_and_repeat_nobody"],
    ),
    (
        205,
        "no answer is ever lost on one machine, and what a fleet does about lost ones would never run",
        &["tests/simulation/mod.rs::nobody_is_lost_and_nobody_gets_it_twice"],
    ),
    (
        206,
        "no row ends by itself in a folder",
        &[
            "src/coordinate/sweeper.rs::each_kind_is_let_go_after_its_own_time",
            "src/coordinate/sweeper_tests.rs::numbers_and_texts_go_first_then_what_happened_then_the_batch",
            "tests/conformance/index.rs::old_runs_are_let_go",
            "tests/conformance/lists.rs::old_parked_reports_and_uncertain_entries_go",
            "tests/conformance/lists.rs::each_kind_of_a_batch_goes_alone_and_its_neighbours_stay",
        ],
    ),
    (
        207,
        "a list is read on from the place that another engine gave",
        &["tests/conformance/control.rs::batches_are_listed_newest_first_page_by_page"],
    ),
];

/// All that the review lists: its thirty, (a) to (h), and what differs on one machine.
const LISTED: [std::ops::RangeInclusive<u32>; 3] = [1..=30, 101..=108, 201..=207];

/// What it lists and nothing can show, and why.
const NOT_SHOWN: &[(u32, &str)] = &[(106, "CMPP's own way of sending again: no account speaks CMPP yet")];

/// Whether a file has a test of this name: a function behind a test's attribute, and none that leaves it out.
fn is_there(path: &str, name: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begins = |line: &&str| {
        let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let Some(at) = lines.iter().position(begins) else { return false };
    let attributes = || lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    let is_test = attributes().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
    is_test && !attributes().any(|line| line.starts_with("#[ignore"))
}

#[test]
fn every_interleaving_has_its_tests() {
    let mut missing = vec![];
    let mut named = BTreeSet::new();
    for (number, _, tests) in SHOWN {
        assert!(!tests.is_empty(), "{number} has no test");
        for test in *tests {
            let (path, name) = test.split_once("::").expect("a path and a name");
            if !is_there(path, name) {
                missing.push(format!("{number}: {test}"));
            }
            assert!(named.insert((number, test)), "{test} stands twice under {number}");
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    let shown: BTreeSet<u32> = SHOWN.iter().map(|(number, ..)| *number).collect();
    let not_shown: BTreeSet<u32> = NOT_SHOWN.iter().map(|(number, _)| *number).collect();
    let listed: BTreeSet<u32> = LISTED.into_iter().flatten().collect();
    assert_eq!(listed.len(), 45, "the review lists as many");
    assert!(shown.is_disjoint(&not_shown));
    assert_eq!(shown.union(&not_shown).copied().collect::<BTreeSet<_>>(), listed, "each is shown, or it is said why not");
}
