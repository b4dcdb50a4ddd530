//! Laws of start offsets: by the committed offset, its writer, and the topic's range.

use flows::{AboveEnd, Found, Loss, Notes, Origin, Start, start_offset};

/// A partition with the offsets from 100 up to 200, and a committed offset of one of our members.
fn found(committed: Option<i64>) -> Found {
    let origin = Origin::Here(Notes::default());
    Found { committed, origin, low: 100, high: 200, seen: 0, gone_at: None, from_end: false, may_catch_up: false }
}

fn at(offset: i64) -> Start {
    Start { offset, ..Start::default() }
}

#[test]
fn a_committed_offset_that_the_topic_holds_counts_for_any_committer() {
    for offset in [100, 150, 200] {
        assert_eq!(start_offset(0, found(Some(offset))), Ok(at(offset)));
        let foreign = Found { origin: Origin::Foreign, ..found(Some(offset)) };
        assert_eq!(start_offset(0, foreign), Ok(at(offset)));
        let notes = Notes { from: Some(offset), ..Notes::default() };
        let translated = Found { origin: Origin::OtherCluster("a".into()), ..found(Some(offset)) };
        assert_eq!(start_offset(0, translated), Ok(Start { notes, ..at(offset) }));
    }
}

#[test]
fn without_a_committed_offset_it_begins_where_the_topic_does_or_at_its_end_if_that_is_wanted() {
    assert_eq!(start_offset(0, found(None)), Ok(at(100)));
    assert_eq!(start_offset(0, Found { from_end: true, ..found(None) }), Ok(at(200)));
    // Kafka forgets the committed offsets of a deleted topic; this member does not.
    let gone = Found { gone_at: Some(70), seen: 90, from_end: true, ..found(None) };
    assert_eq!(start_offset(0, gone), Ok(Start { loss: Some(Loss::made_again(0, 70, 90, 100)), ..at(100) }));
}

#[test]
fn messages_that_were_deleted_before_they_were_read_are_lost_and_markers_of_transactions_are_not() {
    let lost = Start { loss: Some(Loss::expired(0, 70, 100)), ..at(100) };
    assert_eq!(start_offset(0, found(Some(70))), Ok(lost));
    let noted =
        |read| Found { origin: Origin::Here(Notes { read: Some(read), ..Notes::default() }), ..found(Some(70)) };
    assert_eq!(start_offset(0, noted(100)).map(|start| (start.offset, start.loss)), Ok((100, None)));
    let some = start_offset(0, noted(90)).map(|start| start.loss);
    assert_eq!(some, Ok(Some(Loss::expired(0, 90, 100))), "up to 90 there was nothing to read");
}

#[test]
fn an_offset_above_the_end_may_be_one_of_a_leader_that_has_to_catch_up_before_the_topic_was_cut_back() {
    let above = AboveEnd { partition: 0, committed: 250, high: 200 };
    assert_eq!(start_offset(0, Found { may_catch_up: true, ..found(Some(250)) }), Err(above));
    let lost = Start { loss: Some(Loss::out_of_range(0, 250, 100, 200)), ..at(100) };
    assert_eq!(start_offset(0, found(Some(250))), Ok(lost));
}

#[test]
fn an_offset_of_a_topic_that_was_deleted_says_nothing_about_its_namesake() {
    for offset in [10, 150, 250] {
        let made_again = Found { origin: Origin::MadeAgain, seen: 300, ..found(Some(offset)) };
        let lost = Start { loss: Some(Loss::made_again(0, offset, 300, 100)), ..at(100) };
        assert_eq!(start_offset(0, made_again), Ok(lost));
    }
}
