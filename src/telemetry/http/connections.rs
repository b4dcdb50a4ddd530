//! The open connections of an HTTP server: a limited number, and the one that a new connection displaces.
//!
//! A server that makes new connections wait can be blocked by one client that holds its connections open. Here a new
//! connection is accepted, and that client's own oldest connection is closed.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{AbortHandle, JoinSet};

/// The open connections. Dropping them closes all.
pub struct Connections {
    most: usize,
    open: Vec<Open>,
    tasks: JoinSet<()>,
}

struct Open {
    peer: IpAddr,
    activity: Arc<Activity>,
    task: AbortHandle,
}

/// The state of a connection, and its start.
pub struct Activity(Mutex<Doing>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Doing {
    /// Whether its request is being answered, not waited for.
    answers: bool,
    since: Instant,
}

/// A request that is being answered, until this is dropped.
pub struct Answering(Arc<Activity>);

impl Activity {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Doing { answers: false, since: Instant::now() })))
    }

    /// A request has come.
    pub fn answering(self: &Arc<Self>) -> Answering {
        self.set(true);
        Answering(self.clone())
    }

    fn set(&self, answers: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Doing { answers, since: Instant::now() };
    }

    fn get(&self) -> Doing {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Connections {
    pub fn new(most: usize) -> Self {
        Self { most, open: Vec::new(), tasks: JoinSet::new() }
    }

    /// Makes room for one more; whether one had to be closed for that.
    pub fn make_room(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|open| !open.task.is_finished());
        let crowded = self.open.len() >= self.most;
        if crowded {
            let seen: Vec<_> = self.open.iter().map(|open| (open.peer, open.activity.get())).collect();
            self.open.swap_remove(expendable(&seen)).task.abort();
        }
        crowded
    }

    /// Serves one more.
    pub fn open<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        peer: IpAddr,
        serve: impl FnOnce(Arc<Activity>) -> F,
    ) {
        let activity = Activity::new();
        let task = self.tasks.spawn(serve(activity.clone()));
        self.open.push(Open { peer, activity, task });
    }

    /// Waits until all have ended, and closes those that have not by then.
    pub async fn end(mut self, within: Duration) {
        let _ = tokio::time::timeout(within, async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}

/// The one to close: of the address with the most connections, the one that has waited longest for a request; where all of its
/// requests are being answered, the oldest of them. An address with few connections keeps them, whatever others do.
fn expendable(open: &[(IpAddr, Doing)]) -> usize {
    let of_address = |peer: &IpAddr| open.iter().filter(|(other, _)| other == peer).count();
    let ranked = open.iter().enumerate().max_by_key(|(_, (peer, doing))| (of_address(peer), Reverse(*doing)));
    ranked.map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doing(answers: bool, age: u64) -> Doing {
        let begin = Instant::now().checked_sub(Duration::from_secs(3_600)).unwrap();
        Doing { answers, since: begin + Duration::from_secs(1_000 - age) }
    }

    /// Which is closed, of connections that are given as the last byte of an address, whether they answer, and their age.
    fn closed(open: &[(u8, bool, u64)]) -> usize {
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        expendable(&open.iter().map(|&(last, answers, age)| (address(last), doing(answers, age))).collect::<Vec<_>>())
    }

    #[test]
    fn the_one_that_waited_longest_for_its_request_makes_room() {
        assert_eq!(closed(&[(1, false, 1), (1, false, 3), (1, false, 2)]), 1);
        assert_eq!(closed(&[(1, true, 9), (1, false, 1), (1, true, 8)]), 1, "an answer is not cut short for that");
        assert_eq!(closed(&[(1, true, 2), (1, true, 5), (1, true, 3)]), 1, "unless there are answers only");
    }

    #[test]
    fn the_address_with_the_most_connections_gives_one_of_its_own() {
        assert_eq!(closed(&[(1, false, 9), (2, true, 2), (2, true, 3), (3, false, 8)]), 2);
        assert_eq!(closed(&[(2, false, 1), (2, false, 2), (1, false, 100)]), 1);
    }

    #[tokio::test]
    async fn there_are_never_more_than_that() {
        let mut connections = Connections::new(3);
        let held = Arc::new(tokio::sync::Semaphore::new(0));
        for at in 0..10 {
            assert_eq!(connections.make_room(), at >= 3);
            let held = held.clone();
            connections.open(IpAddr::from([127, 0, 0, 1]), |_| async move { held.acquire().await.map(drop).unwrap() });
            assert!(connections.open.len() <= 3);
        }
        held.add_permits(3);
        connections.end(Duration::from_secs(60)).await;
    }
}
