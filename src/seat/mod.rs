//! A seat: what lets an ingester that is started again after a crash have its partitions back at once, and safely.
//!
//! Kafka keeps a dead member's partitions until its session is over, unless one with the same name comes back (static
//! membership, KIP-345). So each ingester of a machine takes a free seat: a file that it locks, and that holds a random name.
//! The lock ends with the process and not before; a frozen process keeps its seat, and no two living ones have one name.
//!
//! Who comes back that soon may meet inserts that its predecessor sent and that have not begun yet. So the file also says until
//! when, by ClickHouse's clock, one of them may begin; that is waited for before the group is joined. It is no state that
//! anything depends on: without the file there is another name, and the old one's session has to end first, which takes longer
//! than any insert lives.

mod kept;

use anyhow::Result;
use kept::Kept;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A seat, for as long as this lives.
#[derive(Debug)]
pub struct Seat {
    /// None for a member that has no name, and keeps no file.
    kept: Option<Kept>,
    inserts: Mutex<Inserts>,
}

/// Inserts that were sent and whose end is not known. Times are ClickHouse's, in milliseconds since the Unix epoch.
#[derive(Debug, Default)]
struct Inserts {
    /// Until when one of whoever had the seat before may begin.
    predecessor: i64,
    under_way: usize,
    /// Until when one of those may begin.
    latest: i64,
    /// Until when one of ours may begin whose end was never learned.
    doubted: i64,
    /// What the file says.
    written: i64,
    /// The file cannot be written any more, and was emptied: whoever comes next takes another name.
    blank: bool,
}

impl Seat {
    /// For a member without a name.
    pub fn none() -> Self {
        Self { kept: None, inserts: Mutex::default() }
    }

    /// The first free seat among those of `place`, which says what is shared: the cluster, the topic and the group.
    ///
    /// # Errors
    /// When there is no directory for it.
    pub fn any(place: &[&str]) -> Result<Self> {
        Self::any_in(&kept::directory()?, place)
    }

    /// The seat of this name.
    ///
    /// # Errors
    /// When there is no directory for it, or a living process has it.
    pub fn named(name: &str, place: &[&str]) -> Result<Self> {
        Self::named_in(&kept::directory()?, name, place)
    }

    fn any_in(directory: &Path, place: &[&str]) -> Result<Self> {
        Ok(Self::sit(Kept::any(directory, place)?)?)
    }

    fn named_in(directory: &Path, name: &str, place: &[&str]) -> Result<Self> {
        Ok(Self::sit(Kept::named(directory, name, place)?)?)
    }

    /// What a predecessor left stays noted until somebody has waited for it.
    fn sit((kept, predecessor): (Kept, i64)) -> io::Result<Self> {
        kept.write(predecessor)?;
        let inserts = Inserts { predecessor, written: predecessor, ..Inserts::default() };
        Ok(Self { kept: Some(kept), inserts: Mutex::new(inserts) })
    }

    /// The name to be known by in the group.
    pub fn name(&self) -> Option<&str> {
        self.kept.as_ref().map(|kept| kept.name.as_str())
    }

    /// Whether nobody else can have this name: who is put out of the group for it was put out by itself.
    pub fn is_ours_alone(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.is_ours_alone)
    }

    /// Until when, by ClickHouse's clock, an insert may begin of whoever had this seat before, or one of ours whose end is not
    /// known: milliseconds since the Unix epoch, in the past if there is none, [`i64::MAX`] if nothing is known.
    pub fn may_begin_until(&self) -> i64 {
        self.inserts().until()
    }

    /// Somebody has waited until nothing of the predecessor can begin any more.
    pub fn succeeds(&self) {
        self.inserts().predecessor = 0;
    }

    /// Notes that an insert is about to be sent that may begin until `expires_ms`.
    ///
    /// # Errors
    /// When that cannot be noted; then it must not be sent.
    pub fn sends(self: &Arc<Self>, expires_ms: i64) -> io::Result<Sending> {
        let mut inserts = self.inserts();
        self.note(&mut inserts, expires_ms)?;
        inserts.under_way += 1;
        inserts.latest = inserts.latest.max(expires_ms);
        Ok(Sending { seat: self.clone(), expires_ms, ended: false })
    }

    fn note(&self, inserts: &mut Inserts, new: i64) -> io::Result<()> {
        let until = inserts.until().max(new);
        let Some(kept) = self.kept.as_ref().filter(|_| !inserts.blank && inserts.written != until) else {
            return Ok(());
        };
        match kept.write(until) {
            Ok(()) => inserts.written = until,
            // Emptying works on a full disk, too.
            Err(_) => {
                kept.empty()?;
                inserts.blank = true;
            }
        }
        Ok(())
    }

    fn inserts(&self) -> MutexGuard<'_, Inserts> {
        // Numbers that are each updated in one step: a panic elsewhere leaves them whole.
        self.inserts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inserts {
    fn until(&self) -> i64 {
        self.predecessor.max(self.latest).max(self.doubted)
    }
}

/// An insert under way. Dropped without [`Sending::ended`], it stays noted until it has expired.
pub struct Sending {
    seat: Arc<Seat>,
    expires_ms: i64,
    ended: bool,
}

impl Sending {
    /// It is stored, or never will be.
    pub fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut inserts = self.seat.inserts();
        inserts.under_way -= 1;
        if !self.ended {
            inserts.doubted = inserts.doubted.max(self.expires_ms);
        }
        if inserts.under_way == 0 {
            inserts.latest = 0;
            // Where this fails, the file names a later time: the next one waits for longer than it has to.
            let _ = self.seat.note(&mut inserts, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::kept::{UNKNOWN, digest, random_name, read};
    use super::*;
    use std::fs::File;
    use std::path::PathBuf;

    const PLACE: &[&str] = &["localhost:9092", "clicks", "clickstream"];

    /// A directory that is removed in the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let path = std::env::temp_dir().join(random_name());
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn sit(&self) -> Arc<Seat> {
            Arc::new(Seat::any_in(&self.0, PLACE).unwrap())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_seat_that_is_left_is_taken_again_under_its_name() {
        let scratch = Scratch::new();
        let (first, second) = (scratch.sit(), scratch.sit());
        assert_ne!(first.name(), second.name());
        let name = first.name().unwrap().to_owned();
        drop(first);
        assert_eq!(scratch.sit().name(), Some(&*name));
        let elsewhere = Seat::any_in(&scratch.0, &["localhost:9092", "clicks", "others"]).unwrap();
        assert!(![Some(&name[..]), second.name()].contains(&elsewhere.name()));
    }

    #[test]
    fn the_next_one_knows_until_when_an_insert_may_begin() {
        let scratch = Scratch::new();
        let next = |seat: Arc<Seat>| {
            drop(seat);
            scratch.sit()
        };
        let seat = next(scratch.sit());
        assert_eq!(seat.may_begin_until(), 0, "nothing was sent");
        let (early, late) = (seat.sends(5_000).unwrap(), seat.sends(7_000).unwrap());
        late.ended();
        std::mem::forget((early, seat.clone())); // as a crash does
        let copied = read(&File::open(scratch.0.join(format!("{}.0", digest(PLACE)))).unwrap()).unwrap();
        assert_eq!(copied, Some((seat.name().unwrap().to_owned(), 7_000)), "one is under way");

        let other = scratch.sit();
        other.sends(9_000).unwrap().ended();
        let other = next(other);
        assert_eq!(other.may_begin_until(), 0, "it has ended");
        drop(other.sends(11_000).unwrap());
        other.sends(10_000).unwrap().ended();
        assert_eq!(next(other).may_begin_until(), 11_000, "how one of them ended was never learned");
    }

    #[test]
    fn what_a_predecessor_left_stays_noted_until_somebody_has_waited_for_it() {
        let scratch = Scratch::new();
        let seat = scratch.sit();
        drop(seat.sends(8_000).unwrap());
        drop(seat);
        drop(scratch.sit()); // killed at once
        let patient = scratch.sit();
        assert_eq!(patient.may_begin_until(), 8_000);
        patient.succeeds();
        assert_eq!(patient.may_begin_until(), 0);
        patient.sends(3_000).unwrap().ended();
        drop(patient);
        assert_eq!(scratch.sit().may_begin_until(), 0);
    }

    #[test]
    fn an_insert_that_was_let_go_of_may_still_begin() {
        for seat in [Arc::new(Seat::none()), Scratch::new().sit()] {
            drop(seat.sends(8_000).unwrap());
            seat.sends(9_000).unwrap().ended();
            assert_eq!(seat.may_begin_until(), 8_000);
        }
    }

    #[test]
    fn a_file_that_says_nothing_gives_another_name() {
        let scratch = Scratch::new();
        let name = scratch.sit().name().unwrap().to_owned();
        for text in ["", "half-a-na", "name 12\n", "name 000000000000000000x\n"] {
            std::fs::write(scratch.0.join(format!("{}.0", digest(PLACE))), text).unwrap();
            let seat = scratch.sit();
            assert_ne!(seat.name(), Some(&*name));
            assert_eq!(seat.may_begin_until(), 0);
        }
    }

    #[test]
    fn a_name_has_one_living_owner_and_an_unknown_past() {
        let scratch = Scratch::new();
        let seat = Seat::named_in(&scratch.0, "eu-1", PLACE).unwrap();
        assert_eq!((seat.name(), seat.may_begin_until()), (Some("eu-1"), UNKNOWN));
        let refused = Seat::named_in(&scratch.0, "eu-1", PLACE).unwrap_err().to_string();
        assert_eq!(refused, "--instance-id eu-1: another ingester of this machine has it");
        drop(seat);
        let seat = Seat::named_in(&scratch.0, "eu-1", PLACE).unwrap();
        assert_eq!(seat.may_begin_until(), UNKNOWN, "nobody has waited for it");
        seat.succeeds();
        Arc::new(seat).sends(5_000).unwrap().ended();
        assert_eq!(Seat::named_in(&scratch.0, "eu-1", PLACE).unwrap().may_begin_until(), 0);
    }
}
