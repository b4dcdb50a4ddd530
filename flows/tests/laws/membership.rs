//! Laws of the member: when it opens and ends leases, which records it delivers and commits, and when partitions may be
//! given back.

use flows::{
    Action, Arrival, Commit, Ended, Input, Loss, Member, NextCommit, Notes, OffsetRange, OffsetRanges, Outcome, Start,
    StartOffsets,
};
use std::time::{Duration, Instant};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const TOPIC: &str = "topic-id";

/// A member, and a clock that the test moves.
struct Driven {
    member: Member,
    now: Instant,
}

impl Driven {
    fn new() -> Self {
        Self { member: Member::new(DRAIN_TIMEOUT), now: Instant::now() }
    }

    /// A member that consumes these partitions from these offsets on; its commits at the start are taken.
    fn consuming(starts: &[(i32, i64)]) -> Self {
        let mut driven = Self::new();
        driven.assign(starts.iter().map(|(at, _)| *at));
        driven.starts(1, starts);
        driven.commits();
        driven
    }

    fn tell(&mut self, input: Input) -> Vec<Action> {
        self.member.handle(input, self.now)
    }

    fn assign(&mut self, partitions: impl IntoIterator<Item = i32>) -> Vec<Action> {
        let partitions = partitions.into_iter().collect();
        self.tell(Input::Assigned { partitions, id: id() });
        self.tell(Input::Id(id()))
    }

    fn revoke(&mut self, partitions: impl IntoIterator<Item = i32>, is_lost: bool) -> Vec<Action> {
        self.tell(Input::Revoked { partitions: partitions.into_iter().collect(), is_lost })
    }

    fn starts(&mut self, lookup: u64, starts: &[(i32, i64)]) -> Vec<Action> {
        self.starts_in(TOPIC, lookup, starts)
    }

    fn starts_in(&mut self, topic: &str, lookup: u64, starts: &[(i32, i64)]) -> Vec<Action> {
        let starts =
            starts.iter().map(|&(at, offset)| (at, Start { offset, ..Start::default() }, OffsetRanges::default()));
        self.tell(Input::StartOffsets(lookup, StartOffsets { source: topic.into(), starts: starts.collect() }))
    }

    fn deliver(&mut self, partition: i32, offsets: std::ops::Range<i64>) {
        for offset in offsets {
            assert!(matches!(self.member.arrive(partition, offset), Arrival::New(_)), "{partition}/{offset}");
        }
    }

    /// Time passes, and the member is told so each second.
    fn passes(&mut self, time: Duration) -> Vec<Action> {
        let (end, mut actions) = (self.now + time, Vec::new());
        while self.now < end {
            self.now = end.min(self.now + Duration::from_secs(1));
            actions.extend(self.tell(Input::Tick));
        }
        actions
    }

    /// The next commit.
    fn commit(&mut self) -> Option<Box<Commit>> {
        match self.member.next_commit(self.now) {
            NextCommit::Now(commit) => Some(commit),
            _ => None,
        }
    }

    /// Takes the next commit, and returns its offsets.
    fn commits(&mut self) -> Vec<(i32, i64)> {
        let Some(commit) = self.commit() else { return Vec::new() };
        let offsets = offsets(&commit);
        self.tell(Input::Committed(commit, Outcome::Taken));
        offsets
    }
}

fn id() -> Option<String> {
    Some("member".into())
}

fn offsets(commit: &Commit) -> Vec<(i32, i64)> {
    commit.offsets.iter().map(|&(at, offset, _)| (at, offset)).collect()
}

fn looks_up(actions: &[Action]) -> Option<Vec<i32>> {
    actions.iter().find_map(|action| match action {
        Action::LookUp { partitions, .. } => Some(partitions.clone()),
        _ => None,
    })
}

#[test]
fn a_lease_begins_where_the_lookup_says_and_holds_what_is_assigned() {
    let mut driven = Driven::new();
    assert_eq!(looks_up(&driven.assign([0, 1])), Some(vec![0, 1]));
    assert_eq!(driven.member.arrive(0, 5), Arrival::NotOurs, "nothing is delivered before that is known");
    let actions = driven.starts(1, &[(0, 5), (1, 7)]);
    assert_eq!(actions, [Action::Consume { lease: 1, starts: vec![(0, 5), (1, 7)], losses: vec![] }]);
}

#[test]
fn nothing_is_looked_up_while_the_client_has_another_id_than_its_partitions_were_assigned_to() {
    let mut driven = Driven::new();
    assert_eq!(driven.tell(Input::Assigned { partitions: vec![0], id: id() }), [Action::AskId]);
    assert_eq!(driven.tell(Input::Id(Some("another".into()))), []);
    driven.now += Duration::from_secs(1);
    assert_eq!(driven.tell(Input::Id(None)), [Action::Rejoin]);
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![0]), "it was only a moment");
}

#[test]
fn stored_offsets_pass_and_a_gap_belongs_to_the_record_after_it() {
    let mut driven = Driven::new();
    driven.assign([0]);
    let stored = OffsetRanges::new(vec![OffsetRange::new(3, 5)]);
    let starts = vec![(0, Start { offset: 2, ..Start::default() }, stored)];
    driven.tell(Input::StartOffsets(1, StartOffsets { source: TOPIC.into(), starts }));
    assert_eq!(driven.member.arrive(0, 2), Arrival::New(OffsetRange::new(2, 3)));
    assert_eq!(driven.member.arrive(0, 4), Arrival::AlreadyStored(OffsetRange::new(3, 5)));
    assert_eq!(driven.member.arrive(0, 8), Arrival::New(OffsetRange::new(5, 9)));
    assert_eq!(driven.member.arrive(0, 8), Arrival::OutOfSync);
    assert_eq!(driven.member.arrive(1, 0), Arrival::NotOurs);
}

#[test]
fn partitions_go_when_their_pipeline_has_drained_and_the_commit_is_taken() {
    let mut driven = Driven::consuming(&[(0, 0), (1, 0)]);
    driven.deliver(0, 0..3);
    assert_eq!(driven.revoke([0], false), [Action::EndStream]);
    assert_eq!(driven.member.arrive(0, 3), Arrival::NotOurs, "the stream has ended");
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 3), (1, 0)])));
    assert!(driven.member.is_releasing(), "its last commit is not taken yet");
    let commit = driven.commit().unwrap();
    assert_eq!(offsets(&commit), [(0, 3), (1, 0)]);
    let actions = driven.tell(Input::Committed(commit, Outcome::Taken));
    assert_eq!(actions, [Action::Release(vec![(0, Some(3))]), Action::AskId]);
    // A kept partition continues at its position, without a lookup.
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![]));
    assert_eq!(driven.starts(2, &[]), [Action::Consume { lease: 2, starts: vec![(1, 0)], losses: vec![] }]);
}

#[test]
fn a_commit_that_does_not_come_through_holds_up_a_rebalance_for_two_seconds() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    driven.revoke([0], false);
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 3)])));
    driven.passes(Duration::from_millis(1_900));
    assert!(driven.member.is_releasing());
    driven.passes(Duration::from_millis(100));
    assert!(!driven.member.is_releasing());
    assert_eq!(driven.commit(), None, "its new owner finds the rows stored, and commits them");
}

#[test]
fn a_client_that_is_evicted_waits_for_no_commit() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    let commit = driven.commit().unwrap();
    driven.tell(Input::Committed(commit, Outcome::Evicted));
    driven.tell(Input::Shutdown);
    driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 3)])));
    assert!(driven.member.has_left());
}

#[test]
fn a_member_that_has_lost_its_partitions_leaves_without_waiting_for_their_commit() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    assert!(driven.commit().is_some(), "it is in flight, and the coordinator is away");
    driven.revoke([0], true);
    driven.tell(Input::Ended(1, Ended::Stopped));
    driven.tell(Input::Shutdown);
    assert!(driven.member.has_left());
}

#[test]
fn a_lost_lease_is_cancelled_and_waits_only_for_its_pipeline_to_notice() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    assert_eq!(driven.revoke([0], true), [Action::EndStream, Action::Cancel { timed_out: false }]);
    assert!(driven.member.is_releasing());
    driven.tell(Input::Ended(1, Ended::Stopped));
    assert!(!driven.member.is_releasing());
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.revoke([0], true);
    driven.passes(Duration::from_secs(5));
    assert!(!driven.member.is_releasing(), "nor at any later time");
}

#[test]
fn a_drain_that_takes_too_long_is_cancelled_and_its_offsets_are_looked_up() {
    let mut driven = Driven::consuming(&[(0, 0), (1, 0)]);
    driven.deliver(1, 0..3);
    driven.revoke([0], false);
    assert_eq!(driven.passes(DRAIN_TIMEOUT), [Action::Cancel { timed_out: true }]);
    assert_eq!(driven.tell(Input::Ended(1, Ended::Stopped))[0], Action::EndLease);
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![1]));
}

#[test]
fn delivered_offsets_that_did_not_drain_are_looked_up_and_settled_ones_stay_settled() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..9);
    driven.tell(Input::Settled(1, vec![(0, 4)]));
    // Its pipeline has ended by itself.
    assert_eq!(driven.tell(Input::Ended(1, Ended::Stopped)), [Action::EndLease, Action::AskId]);
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![0]));
    // The group has not heard of the commit yet.
    let actions = driven.starts(2, &[(0, 0)]);
    assert_eq!(actions, [Action::Consume { lease: 2, starts: vec![(0, 4)], losses: vec![] }]);
    assert_eq!(driven.commits(), [(0, 4)]);
}

#[test]
fn a_member_that_was_fenced_asks_the_coordinator_before_it_opens_another_lease() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    let earlier = driven.commit().unwrap();
    driven.tell(Input::Ended(1, Ended::Fenced));
    assert_eq!(driven.tell(Input::Id(id())), []);
    assert_eq!(driven.tell(Input::Committed(earlier, Outcome::Taken)), [], "it was sent before the refusal");
    let commit = driven.commit().unwrap();
    assert_eq!(driven.tell(Input::Committed(commit, Outcome::Failed)), []);
    assert_eq!(driven.commit(), None, "not at once");
    driven.now += Duration::from_millis(250);
    let commit = driven.commit().unwrap();
    let actions = driven.tell(Input::Committed(commit, Outcome::Taken));
    assert_eq!(looks_up(&actions), Some(vec![0]));
    // The same where another lease comes between the lookup's token and its read-back.
    assert_eq!(driven.tell(Input::RaceLost(2)), [Action::AskId]);
    assert_eq!(driven.tell(Input::Id(id())), []);
    assert!(driven.commit().is_some());
}

#[test]
fn a_record_out_of_sync_has_every_start_offset_looked_up_again() {
    let mut driven = Driven::consuming(&[(0, 0), (1, 0)]);
    driven.deliver(0, 0..3);
    assert_eq!(driven.tell(Input::OutOfSync), [Action::EndStream]);
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 3), (1, 0)])));
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![0, 1]));
}

#[test]
fn new_partitions_end_the_lease_and_what_is_kept_is_not_looked_up() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    assert_eq!(driven.tell(Input::Assigned { partitions: vec![1], id: id() }), [Action::EndStream]);
    assert_eq!(
        driven.tell(Input::Assigned { partitions: vec![], id: id() }),
        [],
        "one that gives nothing ends nothing"
    );
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 3)])));
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![1]));
    // Meanwhile another partition is assigned and revoked, so the lookup no longer matches.
    assert_eq!(driven.tell(Input::Assigned { partitions: vec![2], id: id() }), [Action::StopLookup, Action::AskId]);
    assert_eq!(driven.starts(2, &[(1, 9)]), [], "its answer is not taken");
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![1, 2]));
}

#[test]
fn offsets_of_a_lease_that_is_over_are_not_settled() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    driven.tell(Input::Ended(1, Ended::Stopped));
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    assert!(!driven.member.is_commit_pending());
    assert_eq!(driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 3)]))), [], "nor does it end twice");
}

#[test]
fn a_commit_names_the_newest_settled_offset_of_every_partition_and_one_is_in_flight() {
    let mut driven = Driven::consuming(&[(0, 10), (1, 20)]);
    driven.deliver(0, 10..18);
    assert_eq!(driven.commit(), None, "nothing is settled");
    driven.tell(Input::Settled(1, vec![(0, 15)]));
    driven.tell(Input::Settled(1, vec![(0, 12)]));
    let commit = driven.commit().unwrap();
    assert_eq!((offsets(&commit), commit.is_pending), (vec![(0, 15), (1, 20)], true));
    driven.tell(Input::Settled(1, vec![(0, 18)]));
    assert_eq!(driven.commit(), None, "one is in flight");
    driven.tell(Input::Committed(commit, Outcome::Taken));
    assert_eq!(driven.member.confirmed(0), Some(15), "it moved on in the meantime");
    assert_eq!(driven.commits(), [(0, 18), (1, 20)]);
    assert_eq!(driven.commit(), None);
}

#[test]
fn a_lease_that_begins_below_a_commit_whose_answer_was_lost_takes_nothing_back() {
    let mut driven = Driven::consuming(&[(0, 10)]);
    driven.deliver(0, 10..30);
    driven.tell(Input::Settled(1, vec![(0, 30)]));
    let commit = driven.commit().unwrap();
    driven.tell(Input::Committed(commit, Outcome::Failed));
    driven.tell(Input::Ended(1, Ended::Stopped));
    driven.tell(Input::Id(id()));
    driven.starts(2, &[(0, 10)]);
    driven.now += Duration::from_secs(1);
    assert_eq!(driven.commits(), [(0, 30)]);
}

#[test]
fn offsets_of_a_topic_that_was_deleted_are_not_committed_for_its_namesake() {
    let mut driven = Driven::consuming(&[(0, 10)]);
    driven.deliver(0, 10..1_000);
    driven.tell(Input::Settled(1, vec![(0, 1_000)]));
    let commit = driven.commit().unwrap();
    driven.tell(Input::Ended(1, Ended::Stopped));
    driven.tell(Input::Id(id()));
    let actions = driven.starts_in("another", 2, &[(0, 0)]);
    let losses = vec![Loss::made_again(0, 0, 0, 0)];
    assert_eq!(actions, [Action::Consume { lease: 2, starts: vec![(0, 0)], losses }]);
    assert_eq!(commit.source, TOPIC);
    driven.tell(Input::Committed(commit, Outcome::Taken));
    assert_eq!(driven.member.confirmed(0), Some(0));
    assert_eq!(driven.commits(), [(0, 0)]);
}

#[test]
fn kept_partitions_of_a_topic_that_was_created_again_are_looked_up_too() {
    let mut driven = Driven::consuming(&[(0, 10)]);
    driven.tell(Input::Assigned { partitions: vec![1], id: id() });
    driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 10)])));
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![1]));
    assert_eq!(driven.starts_in("another", 2, &[(1, 0)]), [Action::AskId]);
    assert_eq!(looks_up(&driven.tell(Input::Id(id()))), Some(vec![0, 1]));
    let actions = driven.starts_in("another", 3, &[(0, 0), (1, 0)]);
    assert!(matches!(&actions[..], [Action::Consume { losses, .. }] if losses.len() == 2), "{actions:?}");
}

#[test]
fn offsets_of_a_topic_that_was_cut_back_are_not_committed_again() {
    let mut driven = Driven::consuming(&[(0, 10)]);
    driven.deliver(0, 10..1_000);
    driven.tell(Input::Settled(1, vec![(0, 1_000)]));
    assert_eq!(driven.commits(), [(0, 1_000)]);
    driven.tell(Input::Ended(1, Ended::Stopped));
    driven.tell(Input::Id(id()));
    let loss = Some(Loss::out_of_range(0, 1_000, 0, 500));
    let starts = vec![(0, Start { offset: 0, notes: Notes::default(), loss }, OffsetRanges::default())];
    driven.tell(Input::StartOffsets(2, StartOffsets { source: TOPIC.into(), starts }));
    assert_eq!(driven.commits(), [(0, 0)]);
}

#[test]
fn notes_go_along_with_each_commit_and_what_is_new_has_one_sent() {
    let mut driven = Driven::consuming(&[(0, 10), (1, 20)]);
    for input in [Input::Deleted(0, OffsetRange::new(10, 30)), Input::Gap(0), Input::ReadUpTo(0, 31)] {
        driven.tell(input);
        let commit = driven.commit().unwrap();
        driven.tell(Input::Committed(commit, Outcome::Taken));
    }
    for known in [Input::Gap(0), Input::ReadUpTo(0, 31), Input::ReadUpTo(1, 20)] {
        driven.tell(known);
        assert_eq!(driven.commit(), None);
    }
    driven.tell(Input::Deleted(0, OffsetRange::new(40, 45)));
    let commit = driven.commit().unwrap();
    let (_, _, Notes { read, has_gaps, lost, .. }) = commit.offsets[0].clone();
    assert_eq!((read, has_gaps, lost.map(|lost| lost.messages)), (Some(31), true, Some(25)));
}

#[test]
fn a_shutdown_waits_for_its_drain_and_for_the_last_commits_for_ten_seconds() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    assert_eq!(driven.tell(Input::Shutdown), [Action::EndStream]);
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 3)])));
    driven.passes(Duration::from_millis(9_900));
    assert!(!driven.member.has_left());
    driven.passes(Duration::from_millis(100));
    assert!(driven.member.has_left() && driven.member.is_commit_pending());
    // Later events change nothing.
    driven.revoke([0], false);
    assert!(!driven.member.is_releasing());
    assert_eq!(driven.tell(Input::Assigned { partitions: vec![0], id: id() }), []);
}

#[test]
fn a_stop_during_the_drain_of_a_rebalance_has_the_whole_drain_timeout() {
    let mut driven = Driven::consuming(&[(0, 0), (1, 0)]);
    driven.deliver(0, 0..3);
    driven.revoke([0], false);
    driven.passes(DRAIN_TIMEOUT - Duration::from_secs(1));
    assert_eq!(driven.tell(Input::Shutdown), []);
    assert_eq!(driven.passes(Duration::from_secs(20)), []);
    assert_eq!(driven.tell(Input::Shutdown), [], "the first request counts");
    assert_eq!(driven.passes(DRAIN_TIMEOUT - Duration::from_millis(20_001)), []);
    assert_eq!(driven.passes(Duration::from_millis(1)), [Action::Cancel { timed_out: true }]);
    driven.tell(Input::Ended(1, Ended::Stopped));
    driven.passes(Duration::from_secs(10));
    assert!(driven.member.has_left() && !driven.member.is_releasing());
}

#[test]
fn time_limits_do_not_count_a_pause_of_the_process() {
    let mut driven = Driven::consuming(&[(0, 0)]);
    driven.deliver(0, 0..3);
    driven.revoke([0], false);
    driven.passes(Duration::from_secs(10));
    assert_eq!(driven.member.deadline(), Some(driven.now + Duration::from_secs(1)), "it has to be told often enough");
    driven.now += Duration::from_secs(3_600);
    assert_eq!(driven.tell(Input::Tick), []);
    assert_eq!(driven.passes(Duration::from_millis(19_999)), [], "a third of the drain timeout is over");
    assert_eq!(driven.passes(Duration::from_millis(1)), [Action::Cancel { timed_out: true }]);
    driven.tell(Input::Settled(1, vec![(0, 3)]));
    driven.tell(Input::Ended(1, Ended::Drained(vec![(0, 3)])));
    driven.now += Duration::from_secs(60);
    driven.tell(Input::Tick);
    driven.passes(Duration::from_millis(1_900));
    assert!(driven.member.is_releasing(), "the last commit has its two seconds");
    driven.passes(Duration::from_millis(100));
    assert!(!driven.member.is_releasing());
}

#[test]
fn a_source_that_has_ended_is_drained_for_as_long_as_that_takes_and_rebalances_go_on() {
    let mut driven = Driven::consuming(&[(0, 0), (1, 0)]);
    driven.deliver(0, 0..3);
    assert_eq!(driven.tell(Input::ReachedEnd), [Action::EndStream]);
    assert_eq!(driven.passes(Duration::from_secs(3_600)), []);
    driven.revoke([1], false);
    assert_eq!(driven.passes(DRAIN_TIMEOUT), [Action::Cancel { timed_out: true }], "others wait for that partition");
    driven.tell(Input::Ended(1, Ended::Stopped));
    driven.tell(Input::Id(id()));
    driven.starts(2, &[(0, 3)]);
    driven.tell(Input::ReachedEnd);
    driven.tell(Input::Assigned { partitions: vec![1], id: id() });
    assert_eq!(
        driven.passes(DRAIN_TIMEOUT),
        [Action::Cancel { timed_out: true }],
        "a new partition waits for the old ones"
    );
    driven.tell(Input::Ended(2, Ended::Stopped));
    driven.tell(Input::Id(id()));
    driven.starts(3, &[(0, 3), (1, 0)]);
    driven.tell(Input::ReachedEnd);
    let actions = driven.tell(Input::Ended(3, Ended::Drained(vec![(0, 3), (1, 0)])));
    assert_eq!(actions, [Action::EndLease, Action::Done]);
}
