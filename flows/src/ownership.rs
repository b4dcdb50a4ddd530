//! The right to write the rows of a partition: the owner of its newest token has it.
//!
//! Kafka says which member owns a partition, but not when a former owner's last insert has ended. So each lease writes
//! a *fencing token*. Each insert carries the tokens of its partitions, and refuses itself if one of them is not the
//! newest. The server lists an insert as running before that check. So when a new token is durable, an older insert is
//! in one of three states. It has ended, and its rows can be seen. Or it runs, and the new owner waits for it. Or it is
//! refused, whenever it arrives. This argument needs no clock.
//!
//! The idea is that of Martin Kleppmann's "How to do distributed locking" (2016), with the check inside the insert.

use crate::{Backoff, ErrorKind, Failure, LeaseLost};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// The table of leases, and what the server knows of running inserts. Implemented over ClickHouse; by a double in tests.
pub trait LeaseTable: Send + Sync + 'static {
    /// The newest lease of each of these partitions that has one: the largest epoch, and of several with that one the largest
    /// token.
    fn newest(&self, partitions: &[i32]) -> impl Future<Output = Result<BTreeMap<i32, Newest>, Failure>> + Send;

    /// Writes a lease with this token for each partition, under this epoch literally. When it returns, they are durable.
    ///
    /// # Errors
    /// When that is not certain. The write may still come about, at any time, also twice.
    fn write(&self, token: Uuid, epochs: &[(i32, u64)]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Returns when each insert that touches one of these partitions, and runs as this begins, has ended. Inserts of other
    /// processes may be ended early.
    fn quiesce(&self, partitions: &[i32]) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The newest lease of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// How many leases there were before, at least.
    pub epoch: u64,
    /// The tokens that its owner's inserts carry.
    pub token: Uuid,
    /// The consumer group of its owner.
    pub group: String,
}

/// Whose leases may be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Those of a consumer group, and of another one if that is to be taken over.
    Group {
        /// The group.
        group: String,
        /// Another group whose leases may be taken over.
        take_over: Option<String>,
    },
    /// All groups: a healer has no lasting right.
    Any,
}

impl Claim {
    /// The group that a partition belongs to, if that is another one.
    pub fn is_refused<'n>(&self, newest: &'n Newest) -> Option<&'n str> {
        let Self::Group { group, take_over } = self else { return None };
        let is_ours = newest.group == *group || take_over.as_ref() == Some(&newest.group);
        (!is_ours).then_some(newest.group.as_str())
    }

    /// The claim of a process that has opened a lease: it takes over no other group any more.
    ///
    /// A take-over is for the start of a process, and never a reaction to being fenced. Otherwise two groups that name
    /// each other would fence each other without end.
    #[must_use]
    pub fn after_opening(&self) -> Self {
        match self {
            Self::Group { group, .. } => Self::Group { group: group.clone(), take_over: None },
            Self::Any => Self::Any,
        }
    }
}

/// Why a lease was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The table could not be asked or written.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Somebody else has opened a lease at the same time, and that one counts.
    #[error("another member has opened a lease of partition {0} at the same time")]
    RaceLost(i32),
    /// The rows of this partition belong to another consumer group.
    #[error("partition {partition} belongs to group {group}")]
    OtherGroup {
        /// The partition.
        partition: i32,
        /// The group of its newest lease.
        group: String,
        /// This process has opened leases before: so the other group has taken over since.
        has_opened: bool,
    },
}

/// The tokens that a member's inserts carry: one for each partition that it holds a lease of.
#[derive(Debug)]
pub struct Tokens {
    /// The beginning of all tokens of this process.
    process: u64,
    held: Mutex<BTreeMap<i32, Uuid>>,
    /// Something was held at some time.
    has_opened: AtomicBool,
    /// One renewal at a time.
    renewing: tokio::sync::Mutex<()>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            process: rand::random(),
            held: Mutex::default(),
            has_opened: AtomicBool::new(false),
            renewing: tokio::sync::Mutex::default(),
        }
    }
}

impl Tokens {
    /// A new random token.
    pub fn new_token(&self) -> Uuid {
        Uuid::from_u64_pair(self.process, rand::random())
    }

    /// Whether a token was made here: also one whose write was not confirmed, and which is not used for that.
    fn is_ours(&self, token: Uuid) -> bool {
        token.as_u64_pair().0 == self.process
    }

    /// The token of each of these partitions; nil, which no lease has, for one that is not held.
    pub fn of(&self, partitions: &[i32]) -> Vec<(i32, Uuid)> {
        let held = self.held();
        partitions.iter().map(|at| (*at, held.get(at).copied().unwrap_or_default())).collect()
    }

    /// Whether this process itself may have caused the refusal of an insert with these tokens: newer ones are held now,
    /// or will be. A renewal writes its token before it holds it. If one of the partitions is no longer held, the rows
    /// are not ours to send.
    pub fn replaced(&self, carried: &[(i32, Uuid)]) -> bool {
        let partitions: Vec<_> = carried.iter().map(|(partition, _)| *partition).collect();
        // In this order: a renewal that has ended in between holds its token.
        let is_renewing = self.renewing.try_lock().is_err();
        let now = self.of(&partitions);
        (is_renewing || now != carried) && now.iter().all(|(_, token)| !token.is_nil())
    }

    /// Whether each of these is the one that is held.
    pub fn are_held(&self, carried: &[(i32, Uuid)]) -> bool {
        let held = self.held();
        carried.iter().all(|(partition, token)| held.get(partition) == Some(token))
    }

    /// Drops the tokens of these partitions.
    pub fn forget(&self, partitions: &[i32]) {
        let mut held = self.held();
        held.retain(|partition, _| !partitions.contains(partition));
    }

    /// A lease of these partitions was opened with this token.
    pub fn hold(&self, partitions: impl IntoIterator<Item = i32>, token: Uuid) {
        self.has_opened.store(true, SeqCst);
        self.held().extend(partitions.into_iter().map(|partition| (partition, token)));
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<i32, Uuid>> {
        // Each change is one step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a lease of these partitions. When this returns, `tokens` holds the newest token of each, and every insert
/// under an older one has ended or will be refused. So if the caller asks *after* this which offsets are stored, the
/// answer stays true.
///
/// # Errors
/// See [`OpenError`]. A token whose write was not confirmed is never used.
pub async fn open_lease(
    table: &impl LeaseTable,
    tokens: &Tokens,
    claim: &Claim,
    partitions: &[i32],
) -> Result<(), OpenError> {
    let newest = table.newest(partitions).await?;
    let has_opened = tokens.has_opened.load(SeqCst);
    let claim = if has_opened { &claim.after_opening() } else { claim };
    for (&partition, lease) in &newest {
        if let Some(group) = claim.is_refused(lease) {
            return Err(OpenError::OtherGroup { partition, group: group.to_owned(), has_opened });
        }
    }
    supersede(table, tokens, partitions, &newest).await
}

/// Opens a new lease of held partitions. After that, every earlier insert is stored and visible, or never will be
/// stored.
///
/// # Errors
/// [`LeaseLost`] when another process holds one of them by now; a failure that will not pass by itself.
pub async fn renew_lease(
    table: &impl LeaseTable,
    tokens: &Tokens,
    partitions: &[i32],
) -> Result<Result<(), LeaseLost>, Failure> {
    let _one_at_a_time = tokens.renewing.lock().await;
    loop {
        let newest = table.newest(partitions).await?;
        if partitions.iter().any(|at| newest.get(at).is_none_or(|lease| !tokens.is_ours(lease.token))) {
            return Ok(Err(LeaseLost));
        }
        match supersede(table, tokens, partitions, &newest).await {
            Ok(()) => return Ok(Ok(())),
            Err(OpenError::Failure(failure)) => return Err(failure),
            // Perhaps to a write of our own, which came late.
            Err(_) => {}
        }
    }
}

async fn supersede(
    table: &impl LeaseTable,
    tokens: &Tokens,
    partitions: &[i32],
    newest: &BTreeMap<i32, Newest>,
) -> Result<(), OpenError> {
    let token = tokens.new_token();
    // The epoch is literal, so a write that arrives late or twice does not become the newest.
    let next = |at: &i32| {
        let epoch = newest.get(at).map_or(Some(1), |lease| lease.epoch.checked_add(1));
        epoch.map(|epoch| (*at, epoch)).ok_or_else(|| spent(*at))
    };
    let epochs = partitions.iter().map(next).collect::<Result<Vec<_>, _>>()?;
    table.write(token, &epochs).await?;
    let read = table.newest(partitions).await?;
    if let Some(&lost) = partitions.iter().find(|at| read.get(at).is_none_or(|lease| lease.token != token)) {
        return Err(OpenError::RaceLost(lost));
    }
    tokens.hold(partitions.iter().copied(), token);
    let mut backoff = Backoff::default();
    while let Err(failure) = table.quiesce(partitions).await {
        if failure.kind == ErrorKind::Permanent {
            return Err(failure.into());
        }
        backoff.wait().await;
    }
    Ok(())
}

/// The newest lease has the largest possible epoch: somebody has written it by hand.
fn spent(partition: i32) -> Failure {
    let message = format!(
        "the newest lease of partition {partition} has the largest epoch that there is, so none can follow it: delete that row from \
         the table `leases`; nothing is lost"
    );
    Failure { kind: ErrorKind::Permanent, ended: true, message }
}
