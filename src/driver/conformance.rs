//! The suite that every driver must pass, this library's and yours.
//!
//! A scenario is an `async fn` over a [`Fixture`]; it panics where the driver breaks the contract
//! of [`driver`](crate::driver). The themes are modules, and
//! [`conformance_tests!`](crate::conformance_tests) makes one test of each scenario, listed by
//! name:
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use rumormill::driver::conformance::Fixture;
//! use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
//! use rumormill::driver::{Driver, LeaseTimes};
//!
//! struct Memory(Arc<MemoryDriver>);
//!
//! #[async_trait]
//! impl Fixture for Memory {
//!     async fn driver(&self) -> Arc<dyn Driver> {
//!         self.0.client()
//!     }
//!     fn lease(&self) -> LeaseTimes {
//!         LeaseTimes::default()
//!     }
//!     async fn partitions(&self, topic: &rumormill::Topic, partitions: u32) {
//!         // ... such that `declare` makes the topic with so many
//!     }
//! }
//!
//! rumormill::conformance_tests!(
//!     Memory(MemoryDriver::new(MemoryOptions::default())),
//!     start_paused = true
//! );
//! ```
//!
//! A scenario waits for what must happen, with a deadline, and never for time to pass in the hope
//! that it did. Where nothing may happen, it watches for a while; under paused time that is free.

pub mod admin;
pub mod batches;
pub mod broadcast;
pub mod cancelling;
pub mod chance;
pub mod closing;
pub mod deduplicating;
pub mod drains;
pub mod filters;
pub mod groups;
pub mod handlers;
pub mod idempotent;
mod kit;
pub mod lanes;
pub mod leases;
pub mod letters;
pub mod outputs;
pub mod publishing;
pub mod settling;
pub mod splits;
pub mod starts;
pub mod suspects;
pub mod tools;
pub mod topics;
pub mod typed;
pub mod whole;
mod workshop;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::delivery::Partition;
use crate::driver::{Driver, LeaseTimes};
use crate::event_type::Topic;

/// A store of its own for one scenario, and how to reach it.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A client of the fixture's store; each call gives another one of the *same* store.
    async fn driver(&self) -> Arc<dyn Driver>;

    /// The lease times of the consumers: short where time is real.
    fn lease(&self) -> LeaseTimes;

    /// Sees to it that `topic` has so many partitions once it is declared. Called before the
    /// first [`Fixture::driver`].
    async fn partitions(&self, topic: &Topic, partitions: u32);

    /// How long the store knows the ids of deduplicated appends, where a scenario may wait for the
    /// end of it.
    fn dedup_window(&self) -> Option<Duration> {
        None
    }

    /// Puts an entry into a log that is no event, as another program might: these fields and
    /// values. False where nobody else can write to the store.
    async fn foreign(&self, partition: &Partition, fields: Vec<(Bytes, Bytes)>) -> bool {
        let (_, _) = (partition, fields);
        false
    }
}

/// Makes a `#[tokio::test]` of every scenario, in a module per theme.
///
/// The first argument is an expression, evaluated in each test's async block, that gives a fresh
/// [`Fixture`](crate::driver::conformance::Fixture); the rest are arguments of `#[tokio::test]`.
/// The calling crate needs `tokio` with the features `macros` and `rt`.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr $(, $($flavor:tt)*)?) => {
        $crate::conformance_tests! {
            @themes $fixture, ($($($flavor)*)?),
            publishing: round_trip_of_every_byte_value empty_payload largest_payload
                headers_and_optional_fields_survive receipts_in_order one_answer_per_append
                a_batch_is_one_entry appends_of_one_partition_keep_their_order
                delayed_publish_is_kept_back malformed_entry_is_delivered_as_malformed;
            deduplicating: an_id_is_stored_once the_first_payload_stays
                plain_appends_are_not_compared a_batch_may_be_half_known
                an_id_twice_in_a_batch_is_stored_once another_partition_does_not_know_an_id
                an_id_is_forgotten_after_the_window delayed_events_are_not_deduplicated;
            groups: two_groups_each_get_all one_group_shares budget_is_kept
                a_slow_group_does_not_stop_another group_routes_are_the_union
                a_batch_may_exceed_the_budget;
            starts: new_group_at_earliest new_group_at_new new_group_after_an_id
                new_group_at_a_time an_existing_group_goes_on_where_it_was
                late_subscriber_catches_up restart_catches_up;
            topics: several_partitions_are_all_read topic_that_appears_later_under_a_wildcard
                a_named_topic_may_appear_later a_consumer_gets_its_own_topics_only
                declaring_again_changes_nothing;
            settling: ack_removes parts_of_an_entry_may_be_acked_in_any_order
                retry_comes_after_its_delay_with_attempt_2_and_same_id_time_key
                retry_at_once_comes_at_once a_retry_belongs_to_its_group
                reject_goes_to_the_dead_letters_with_its_cause settle_twice_answers_already
                one_call_may_hold_every_outcome;
            whole: whole_entries_are_acknowledged the_rest_of_an_entry_is_acknowledged
                a_retry_is_acknowledged_as_a_whole a_late_ack_of_a_whole_entry_counts
                a_late_ack_of_a_whole_entry_handed_out_twice_is_refused;
            chance: random_ends_account_for_every_event random_crashes_lose_nothing;
            leases: killed_consumers_work_comes_back a_living_consumer_keeps_its_lease
                a_closed_source_keeps_its_lease partial_progress_survives_a_crash
                a_crash_loses_no_retry lost_lease_changes_nothing
                a_part_of_a_lost_entry_changes_nothing a_late_plain_ack_counts
                a_late_ack_of_what_was_handed_out_twice_is_refused;
            suspects: the_fourth_hand_out_makes_an_entry_suspect
                a_split_keeps_the_suspicion_and_a_retry_ends_it
                a_retry_entry_becomes_suspect_as_well a_note_is_found_by_who_takes_over
                the_end_of_a_suspect_takes_its_note a_suspect_of_a_log_is_not_begun;
            outputs: outputs_appear_with_the_end_and_never_without
                outputs_go_to_several_partitions a_lost_lease_publishes_nothing;
            idempotent: an_id_is_handled_once of_two_copies_one_publishes
                copies_may_be_settled_together a_copy_without_outputs_is_told_as_well
                a_crash_before_the_end_leaves_no_mark only_a_success_leaves_a_mark
                a_mark_ends_with_its_window groups_have_marks_of_their_own
                a_mark_outlives_the_rest_of_its_entry a_repeated_end_is_no_duplicate
                a_lost_lease_leaves_no_mark what_is_parked_by_a_copy_is_let_go
                a_service_handles_an_id_once copies_in_two_lanes_publish_once
                each_event_of_a_batch_is_handled_once a_broadcast_is_refused;
            splits: split_wakes_another_consumer split_keeps_the_attempt
                a_split_may_wait a_split_leaves_the_rest_of_its_entry;
            tools: backlog_tells_the_truth tail_reads_without_a_group
                tail_waits_for_what_comes latest_and_end_tell_the_last topics_are_listed
                a_group_holds_what_it_has_not_settled;
            admin: a_group_is_reported a_topic_is_reported the_unknown_is_refused
                seek_back_repeats_what_it_says seek_back_takes_back_what_is_pending
                seek_forgets_progress seek_forward_skips_what_it_says
                seek_to_the_end_skips_nothing_later a_live_group_is_moved_by_force_only
                seek_drops_more_than_one_step a_topic_grows a_client_learns_that_a_topic_grew
                a_broadcast_follows_a_topic_that_grows
                dead_letters_are_paged redrive_begins_again the_malformed_is_not_redriven
                purge_deletes_what_it_says;
            letters: an_edit_keeps_what_was_published an_edit_and_a_redrive_exclude_each_other
                the_malformed_is_restored_and_not_edited letters_are_restored_as_they_were
                a_dead_letter_parks_its_key a_purge_lets_the_parked_go
                only_later_events_of_the_key_are_parked a_service_that_parks_keeps_the_order;
            closing: publish_after_close_is_not_stored close_ends_a_source close_is_idempotent
                closing_one_client_leaves_the_others a_closed_source_gives_nothing_new;
            cancelling: fetch_dropped_at_any_await_loses_nothing
                append_dropped_at_any_await_is_whole_or_absent
                subscribe_dropped_at_any_await_loses_nothing
                settle_dropped_at_any_await_is_whole_or_absent;
            handlers: one_too_large_is_refused a_failed_event_is_tried_again
                spent_attempts_end_in_the_dead_letters a_rejected_event_is_tried_once
                a_panic_fails_that_event_only a_timeout_cancels_the_work
                a_handler_that_outlives_its_lease_keeps_it an_expired_event_is_not_run
                a_malformed_entry_does_not_stop_the_group;
            typed: rich_payloads_arrive_as_they_were an_undecodable_payload_is_not_retried
                an_unrouted_event_is_acked_and_counted two_versions_of_a_service_share_a_group
                a_version_that_nobody_knows_is_dead_lettered
                a_pattern_does_not_stand_in_for_a_newer_version
                a_handlers_outputs_go_out_with_its_success;
            filters: a_filtered_event_is_acked_and_counted
                a_header_filter_comes_before_decoding a_payload_filter_sees_the_event
                a_filtered_event_takes_no_lane;
            batches: a_batch_comes_together_by_size events_without_a_key_come_together
                a_lone_event_waits_for_its_linger_only
                each_event_of_a_batch_ends_by_itself an_error_or_a_panic_fails_the_whole_batch
                a_timeout_fails_the_whole_batch order_per_key_in_batches
                a_batch_never_mixes_types_or_versions drain_hands_over_a_batch_that_waits
                drain_finishes_or_forces_a_batch_that_runs;
            lanes: order_per_key_under_concurrency a_slow_key_does_not_stop_others
                a_full_lane_pushes_back events_without_a_key_use_every_lane;
            broadcast: every_instance_gets_every_event it_starts_with_what_is_new
                order_per_key_holds_while_handlers_fail a_failure_is_tried_again_in_place
                what_is_not_handled_is_counted nothing_of_it_stays
                it_ends_with_unsubscribe a_topic_that_appears_later_is_read_from_its_beginning
                a_drain_drops_what_waits a_full_lane_stops_reading its_outputs_are_refused;
            drains: drain_finishes_what_runs drain_hands_over_what_waits
                drain_forces_what_does_not_end drain_answers_what_was_accepted
                unsubscribe_starts_no_handler publish_dropped_at_any_await_loses_nothing
                a_dropped_bus_ends_its_workers;
        }
    };
    (@themes $fixture:expr, $flavor:tt, $($theme:ident: $($scenario:ident)*;)*) => {
        $(
            mod $theme {
                #[allow(unused_imports)]
                use super::*;

                $(
                    #[tokio::test $flavor]
                    async fn $scenario() {
                        let fixture = $fixture;
                        $crate::driver::conformance::$theme::$scenario(&fixture).await;
                    }
                )*
            }
        )*
    };
}
