//! The fault harness attacks the promises of `docs/guarantees.md` on a real Kafka and a real ClickHouse.
//!
//! `ci/faults` starts the services and runs this; `ci/test` runs the short version of every scenario. Each scenario
//! draws its settings (batch size, partitions, members, moments) from a seed, which it prints. An oracle that reads
//! Kafka and ClickHouse with clients of its own judges it. The rules of `tests/it` apply here, too.
//!
//! Other tests prove the remaining faults: F12, F13 `it rejects`, F15, F16, F19 `it basics`, F18 `it errors`, F22 `it
//! settings`, F26 `it refusals`.

mod answers;
mod brokers;
mod clickhouse;
mod commits;
mod groups;
mod ingester;
mod inserts;
mod members;
mod offsets;
mod owners;
mod scenario_run;
mod scene;
mod soak;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod topic;
mod two_topics;

use libtest_mimic::{Arguments, Trial};
use scenario_run::{Scenario, ScenarioRun};
use std::process::ExitCode;

/// All of them, by the number of the fault.
const SCENARIOS: &[Scenario] = &[
    ("f01_the_ingester_is_killed_again_and_again", ingester::killed),
    ("f01_one_of_two_is_killed_again_and_again", ingester::one_of_two_killed),
    ("f01_killed_with_an_insert_on_its_way", ingester::killed_with_an_insert_on_its_way),
    ("f01_killed_with_two_topics", two_topics::killed),
    ("f02_it_dies_at_each_step_with_1_partition", steps::die_1),
    ("f02_it_dies_at_each_step_with_3_partitions", steps::die_3),
    ("f02_it_dies_at_each_step_with_12_partitions", steps::die_12),
    ("f02_each_step_stalls_and_fails", steps::stall_and_fail),
    ("f03_it_is_stopped_under_load", ingester::stopped),
    ("f03_it_is_stopped_while_clickhouse_is_down", ingester::stopped_without_clickhouse),
    ("f03_it_is_stopped_while_clickhouse_is_slow", ingester::stopped_while_clickhouse_is_slow),
    ("f04_clickhouse_is_killed_during_inserts", clickhouse::killed),
    ("f05_clickhouse_is_frozen", clickhouse::frozen),
    ("f06_connections_are_cut", answers::cut),
    ("f07_answers_that_say_try_again", answers::transient),
    ("f07_answers_that_say_stop", answers::permanent),
    ("f08_the_broker_is_killed", brokers::killed),
    ("f08_leader_and_coordinator_of_three_are_killed", brokers::one_of_three_killed),
    ("f09_members_join_and_leave_cooperative", members::cooperative),
    ("f09_members_join_and_leave_eager", members::eager),
    ("f09_handed_on_with_an_insert_on_its_way", members::handed_on_with_an_insert_on_its_way),
    ("f10_frozen_past_its_session_then_woken", ingester::frozen),
    ("f10_frozen_in_a_drain", ingester::frozen_in_a_drain),
    ("f10_frozen_with_an_insert_named_and_not_sent", ingester::frozen_before_sending),
    ("f10_cut_off_from_kafka_alone", members::cut_off),
    ("f11_commits_fail_again_and_again", commits::fail),
    ("f14_disk_full_read_only_too_many_parts", clickhouse::refuses),
    ("f17_committed_offset_out_of_range", topic::out_of_range),
    ("f20_the_broker_stalls_under_the_producer", brokers::stalls),
    ("f21_everything_at_random", soak::soak),
    ("f23_a_second_group_is_refused_or_takes_over", groups::second),
    ("f24_a_member_is_removed_by_hand", owners::removed_by_hand),
    ("f24_two_processes_have_one_instance_id", owners::instance_id_twice),
    ("f24_the_clock_of_clickhouse_is_set_back", owners::clock_set_back),
    ("f24_the_leases_are_emptied", owners::leases_emptied),
    ("f25_an_insert_is_held_back", inserts::held_back),
    ("f25_inserts_are_repeated", inserts::repeated),
    ("f25_answers_are_lost", inserts::answers_lost),
    ("f27_offsets_are_set_by_hand", offsets::set_by_hand),
    ("f27_offsets_are_set_back_while_an_audit_heals", offsets::set_back_while_healing),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = SCENARIOS.iter().map(|&(name, run)| {
        Trial::test(name, move || {
            ScenarioRun::run(name, run);
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
