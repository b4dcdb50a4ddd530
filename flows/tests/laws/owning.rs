//! The right of a group to take the leases of another one.

use crate::support::{FakeClickHouse, FakeSink, ms};
use flows::{Claim, ErrorKind, LeaseLost, Newest, OpenError, open_lease, renew_lease};
use std::sync::Arc;
use uuid::Uuid;

/// A member of a group that was started to take another one over.
struct Member {
    sink: FakeSink,
    claim: Claim,
}

fn member(clickhouse: &Arc<FakeClickHouse>, group: &str, take_over: Option<&str>) -> Member {
    let claim = Claim::Group { group: group.into(), take_over: take_over.map(str::to_owned) };
    Member { sink: clickhouse.sink(group), claim }
}

impl Member {
    async fn opens(&self, partitions: &[i32]) -> Result<(), OpenError> {
        open_lease(&self.sink, &self.sink.tokens, &self.claim, partitions).await
    }
}

#[track_caller]
fn is_refused(opened: Result<(), OpenError>, by: &str, it_had_opened: bool) {
    match opened {
        Err(OpenError::OtherGroup { group, has_opened, .. }) => assert_eq!((&*group, has_opened), (by, it_had_opened)),
        other => panic!("refused by {by}: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_groups_that_take_each_other_over_the_one_that_began_last_stays() {
    let clickhouse = Arc::new(FakeClickHouse::taking(ms(1)));
    let (one, other) = (member(&clickhouse, "one", Some("other")), member(&clickhouse, "other", Some("one")));
    one.opens(&[0, 1]).await.unwrap();
    other.opens(&[0, 1]).await.unwrap();
    for _ in 0..3 {
        is_refused(one.opens(&[0, 1]).await, "other", true);
        other.opens(&[0, 1]).await.unwrap();
    }
    // Somebody starts a process for it.
    member(&clickhouse, "one", Some("other")).opens(&[0, 1]).await.unwrap();
    is_refused(other.opens(&[0, 1]).await, "one", true);
}

#[tokio::test(start_paused = true)]
async fn a_process_takes_over_with_its_first_lease_only() {
    let clickhouse = Arc::new(FakeClickHouse::taking(ms(1)));
    member(&clickhouse, "old", None).opens(&[0, 1]).await.unwrap();
    let new = member(&clickhouse, "new", Some("old"));
    new.opens(&[0]).await.unwrap();
    // Another process of the old group may have opened it in the meantime.
    is_refused(new.opens(&[1]).await, "old", true);
    is_refused(new.opens(&[0, 1]).await, "old", true);
    new.opens(&[0, 2]).await.unwrap();
    assert_eq!(clickhouse.owner(1).as_deref(), Some("old"));
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_failed_was_not_the_first() {
    let clickhouse = Arc::new(FakeClickHouse::taking(ms(1)).baffled([ErrorKind::Transient]));
    let new = member(&clickhouse, "new", Some("old"));
    assert!(matches!(new.opens(&[0]).await, Err(OpenError::Failure(_))));
    member(&clickhouse, "old", None).opens(&[0]).await.unwrap();
    new.opens(&[0]).await.unwrap();
    assert_eq!(clickhouse.owner(0).as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_not_named_is_never_taken_over() {
    let clickhouse = Arc::new(FakeClickHouse::taking(ms(1)));
    member(&clickhouse, "old", None).opens(&[0]).await.unwrap();
    is_refused(member(&clickhouse, "new", None).opens(&[0]).await, "old", false);
    is_refused(member(&clickhouse, "new", Some("older")).opens(&[0]).await, "old", false);
}

#[test]
fn after_an_opening_a_claim_is_to_its_own_group_and_one_who_heals_needs_none() {
    let newest = |group: &str| Newest { epoch: 1, token: Uuid::nil(), group: group.into() };
    let claim = Claim::Group { group: "new".into(), take_over: Some("old".into()) };
    for (group, before, after) in
        [("new", None, None), ("old", None, Some("old")), ("third", Some("third"), Some("third"))]
    {
        let newest = newest(group);
        assert_eq!((claim.is_refused(&newest), claim.after_opening().is_refused(&newest)), (before, after), "{group}");
        assert_eq!(Claim::Any.after_opening().is_refused(&newest), None);
    }
}

/// Such a renewal would take partitions back from the member that owns them now.
#[tokio::test(start_paused = true)]
async fn a_lease_that_another_process_has_replaced_is_not_renewed() {
    let clickhouse = Arc::new(FakeClickHouse::taking(ms(1)));
    let (one, other) = (member(&clickhouse, "group", None), member(&clickhouse, "group", None));
    one.opens(&[0, 1]).await.unwrap();
    assert_eq!(renew_lease(&one.sink, &one.sink.tokens, &[0, 1]).await, Ok(Ok(())));
    other.opens(&[1]).await.unwrap();
    assert_eq!(renew_lease(&one.sink, &one.sink.tokens, &[0, 1]).await, Ok(Err(LeaseLost)));
    let held = other.sink.tokens.of(&[1]);
    assert_eq!(renew_lease(&one.sink, &one.sink.tokens, &[0]).await, Ok(Ok(())), "that one is still its own");
    assert_eq!(renew_lease(&other.sink, &other.sink.tokens, &[1]).await, Ok(Ok(())));
    assert_ne!(other.sink.tokens.of(&[1]), held);
}
