//! Whether ClickHouse answers: it is asked twice a second, also while there is nothing to store.

use super::{ClickHouse, failure};
use crate::stuck::{At, Stuck};
use bytes::Bytes;
use flows::Pauses;
use http_body_util::{BodyExt, Empty};
use hyper::StatusCode;
use std::time::{Duration, Instant};

/// From an answer to the next ping, and from a ping to its answer: a silence is known within two seconds.
const PING_INTERVAL: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_millis(1_200);

/// A proxy's answers when the server behind it does not answer. Any other answer, also of a proxy that knows no `/ping`, says nothing
/// bad about ClickHouse.
const AWAY: [StatusCode; 3] = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

impl ClickHouse {
    /// Notes whether ClickHouse answers, while this is polled.
    pub async fn watch_answers(&self, stuck: &Stuck) {
        let (mut answered, mut pauses) = (Instant::now(), Pauses::default());
        loop {
            let mut answer = self.answers().await;
            if let Some(pause) = pauses.look(Instant::now()) {
                tracing::info!("this process was paused for {} s", pause.as_secs());
                self.inserter.begin_again();
                answered = Instant::now();
                answer = self.answers().await;
            }
            let (since, why) = match answer {
                Err(why) => (Some(answered), why),
                Ok(()) => {
                    answered = Instant::now();
                    (self.inserter.silent_since(), "an insert has had no answer for much longer than usual".into())
                }
            };
            match since {
                Some(since) => {
                    stuck.is_since(At::ClickHouse, since, why);
                    stuck.warn();
                }
                None => stuck.is_over(At::ClickHouse),
            }
            tokio::time::sleep(PING_INTERVAL).await;
        }
    }

    /// The answer to one question, or to a second one if the first connection had just been closed.
    async fn answers(&self) -> Result<(), String> {
        let asked = async {
            match self.ping_once().await {
                Err(_) => self.ping_once().await,
                answered => answered,
            }
        };
        let silence = |_| format!("no answer to a ping at {}", self.address());
        tokio::time::timeout(PING_TIMEOUT, asked).await.map_err(silence)?
    }

    async fn ping_once(&self) -> Result<(), String> {
        let answer = self.pings.request(self.endpoint.ping(Empty::<Bytes>::new())).await;
        let answer = answer.map_err(|error| format!("{}: {}", self.address(), failure::describe(&error)))?;
        let status = answer.status();
        // A body that is read to its end leaves the connection open for the next ping.
        let _ = answer.into_body().collect().await;
        if AWAY.contains(&status) {
            Err(format!("{} answers with HTTP status {status}", self.address()))
        } else {
            Ok(())
        }
    }
}
