//! The simulated crowd: shoppers who look at products, put some of them into the cart, and buy some of those.

use crate::{Event, EventType, Reason};
use compact_str::CompactString;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Builder;

/// How many products the shop has.
const PRODUCTS: usize = 500;
/// How much of its weight the n-th most popular product has: 1/n^0.9, a Zipf law as web shops see it.
const SKEW: f64 = 0.9;
/// A shopper remembers this many of the products last seen.
const REMEMBERED: usize = 8;
/// The shares of steps that aim at the cart and at the till; the other steps view a page. A shopper's cart or memory
/// may be empty then, so the resulting shares are near 80 / 15 / 5 %.
const TO_CART: f64 = 0.155;
const TO_TILL: f64 = 0.060;
/// How likely a shopper leaves the shop after a purchase, with whatever else is in the cart.
const LEAVES: f64 = 0.5;

/// A message for the topic: an event, or a message that a fault made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The key: the user.
    pub key: CompactString,
    /// The value; none is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// The event of the shop it was made from; none if it is of a template.
    pub event: Option<Event>,
    /// The deliberate fault of the message, if it has one.
    pub fault: Option<Fault>,
}

/// A deliberate fault of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The message is not an event, and must be rejected for this reason.
    Bad(Reason),
    /// The message repeats the previous one: another offset, the same `event_id`.
    Dup,
    /// Its timestamp is up to an hour older than the time it was sent at.
    Late,
}

/// How often each fault is mixed in: shares of all messages, 0 to 1, together at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Messages that must be rejected.
    pub bad: f64,
    /// Messages that are sent twice.
    pub dup: f64,
    /// Events with an old timestamp.
    pub late: f64,
}

impl std::str::FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, share) = part.split_once('=').ok_or(format!("`{part}` is not NAME=SHARE"))?;
            let share = share.parse().ok().filter(|share| (0.0..=1.0).contains(share));
            let slot = match name {
                "bad" => &mut faults.bad,
                "dup" => &mut faults.dup,
                "late" => &mut faults.late,
                _ => return Err(format!("`{name}` is none of bad, dup, late")),
            };
            *slot = share.ok_or(format!("the share in `{part}` is not a number from 0 to 1"))?;
        }
        let together = faults.bad + faults.dup + faults.late;
        if together <= 1.0 { Ok(faults) } else { Err(format!("the shares add up to {together}, more than 1")) }
    }
}

/// The crowd. The same seed, number of users and faults give the same messages, but for the timestamps.
pub struct Shoppers {
    rng: StdRng,
    crowd: Vec<Shopper>,
    popularity: WeightedIndex<f64>,
    prices: Vec<i64>,
    faults: Faults,
    again: Option<Message>,
}

struct Shopper {
    name: CompactString,
    seen: Vec<usize>,
    cart: Vec<usize>,
}

impl Shoppers {
    /// A crowd of `users` shoppers, at least one.
    pub fn new(seed: u64, users: usize, faults: Faults) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let width = users.max(1).to_string().len().max(4);
        let crowd = (0..users.max(1))
            .map(|nth| Shopper { name: format!("user_{nth:0width$}").into(), seen: Vec::new(), cart: Vec::new() })
            .collect();
        let popularity = WeightedIndex::new((1..=PRODUCTS).map(|rank| (rank as f64).powf(-SKEW)))
            .expect("weights that are positive and finite");
        // Prices that end in 99, 49 or 00 cents, most of them small.
        let prices = (0..PRODUCTS)
            .map(|_| (4.0 * 60f64.powf(rng.random::<f64>())) as i64 * 100 + [99, 49, 0][rng.random_range(0..3)])
            .collect();
        Self { rng, crowd, popularity, prices, faults, again: None }
    }

    /// The next message, of an event that happens at `due`: nanoseconds since the Unix epoch.
    pub fn next(&mut self, due: i64) -> Message {
        if let Some(again) = self.again.take() {
            return again;
        }
        let event = self.step(due / 1_000_000);
        let dice: f64 = self.rng.random();
        let Faults { bad, dup, late } = self.faults;
        if dice < bad {
            self.spoil(event)
        } else if dice < bad + dup {
            let message = sound(event, None);
            self.again = Some(Message { fault: Some(Fault::Dup), ..message.clone() });
            message
        } else if dice < bad + dup + late {
            let age = self.rng.random_range(60_000..3_600_000);
            sound(Event { timestamp_ms: event.timestamp_ms - age, ..event }, Some(Fault::Late))
        } else {
            sound(event, None)
        }
    }

    /// Some shopper does something.
    fn step(&mut self, timestamp_ms: i64) -> Event {
        let id = Builder::from_random_bytes(self.rng.random()).into_uuid();
        let who = self.rng.random_range(0..self.crowd.len());
        let aim: f64 = self.rng.random();
        let product = self.popularity.sample(&mut self.rng);
        let leaves = self.rng.random_bool(LEAVES);
        let (kind, product) = self.crowd[who].act(aim, product, leaves);
        Event {
            id,
            kind,
            user: self.crowd[who].name.clone(),
            product: format!("prod_{product:03}").into(),
            cents: self.prices[product],
            timestamp_ms,
        }
    }

    /// Makes a message of `event` that must be rejected.
    fn spoil(&mut self, event: Event) -> Message {
        let json = String::from_utf8(event.to_json()).expect("JSON is UTF-8");
        let swap = |from: &str, to: &str| Some(json.replacen(from, to, 1).into_bytes());
        let id = event.id.to_string();
        let price = format!(r#""price":{}"#, serde_json::json!(event.price()));
        let (reason, payload) = match self.rng.random_range(0..8) {
            0 => (Reason::NullPayload, None),
            1 => (Reason::NotJson, Some(json.as_bytes()[..json.len() / 2].to_vec())),
            2 => (Reason::MissingField, swap(&format!("{price},"), "")),
            3 => (Reason::WrongType, swap(&price, r#""price":"free""#)),
            4 => (Reason::BadUuid, swap(&id, "not-a-uuid")),
            5 => (Reason::UnknownType, swap(event.kind.as_str(), "refund")),
            6 => (Reason::BadPrice, swap(&price, r#""price":-1.5"#)),
            _ => (Reason::BadTimestamp, swap(r#""timestamp":""#, r#""timestamp":"x"#)),
        };
        Message { key: event.user.clone(), payload, event: Some(event), fault: Some(Fault::Bad(reason)) }
    }
}

fn sound(event: Event, fault: Option<Fault>) -> Message {
    Message { key: event.user.clone(), payload: Some(event.to_json()), event: Some(event), fault }
}

impl Shopper {
    /// The shopper's action, and its product: the wanted action if it is possible, else a view of `product`.
    fn act(&mut self, aim: f64, product: usize, leaves: bool) -> (EventType, usize) {
        if aim < TO_TILL && !self.cart.is_empty() {
            let bought = self.cart.remove(0);
            if leaves {
                self.seen.clear();
                self.cart.clear();
            }
            (EventType::Purchase, bought)
        } else if (TO_TILL..TO_TILL + TO_CART).contains(&aim)
            && let Some(&liked) = self.seen.last()
        {
            self.cart.push(liked);
            (EventType::AddToCart, liked)
        } else {
            if self.seen.len() == REMEMBERED {
                self.seen.remove(0);
            }
            self.seen.push(product);
            (EventType::PageView, product)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Payload;
    use std::collections::HashMap;

    fn events(seed: u64, count: i64) -> Vec<Event> {
        let mut shoppers = Shoppers::new(seed, 500, Faults::default());
        (0..count).filter_map(|nth| shoppers.next(nth * 10_000_000).event).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        assert_eq!(events(7, 5_000), events(7, 5_000));
        assert_ne!(events(7, 5), events(8, 5));
    }

    #[test]
    fn types_come_out_near_80_15_5() {
        let events = events(1, 200_000);
        for (kind, share) in EventType::ALL.into_iter().zip([0.80, 0.15, 0.05]) {
            let found = events.iter().filter(|event| event.kind == kind).count() as f64 / events.len() as f64;
            assert!((found - share).abs() < 0.01, "{kind:?}: {found}");
        }
    }

    #[test]
    fn a_buyer_has_put_the_product_into_the_cart_and_viewed_it() {
        let mut balance: HashMap<(CompactString, CompactString, EventType), i64> = HashMap::new();
        let mut prices: HashMap<CompactString, i64> = HashMap::new();
        for event in events(2, 100_000) {
            assert_eq!(*prices.entry(event.product.clone()).or_insert(event.cents), event.cents, "prices are fixed");
            let of = |kind| (event.user.clone(), event.product.clone(), kind);
            match event.kind {
                EventType::PageView => {}
                EventType::AddToCart => {
                    assert!(balance.contains_key(&of(EventType::PageView)), "{event:?}")
                }
                EventType::Purchase => {
                    let carts = balance.get_mut(&of(EventType::AddToCart)).expect("an add_to_cart before it");
                    *carts -= 1;
                    assert!(*carts >= 0, "bought more often than put into the cart: {event:?}");
                }
            }
            *balance.entry(of(event.kind)).or_default() += 1;
        }
    }

    #[test]
    fn some_products_are_far_more_popular_than_others() {
        let mut counts: HashMap<CompactString, usize> = HashMap::new();
        events(3, 50_000).into_iter().for_each(|event| *counts.entry(event.product).or_default() += 1);
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_unstable();
        assert!(counts.iter().rev().take(50).sum::<usize>() > 20_000, "the top tenth has over two fifths");
    }

    #[test]
    fn faults_are_what_they_say() {
        let mut shoppers = Shoppers::new(4, 500, "bad=0.1,dup=0.1,late=0.1".parse().unwrap());
        let mut before: Option<Message> = None;
        let mut found: HashMap<&str, usize> = HashMap::new();
        for nth in 0..20_000 {
            let message = shoppers.next(nth * 1_000_000_000);
            let payload = Event::decode(None, message.payload.as_deref());
            let name = match (message.fault, payload) {
                (Some(Fault::Bad(expected)), Payload::Rejected(reject)) => {
                    assert_eq!(reject.reason, expected, "{:?}", reject.detail);
                    expected.as_str()
                }
                (fault, Payload::Event(event)) => {
                    assert_eq!(Some(&event), message.event.as_ref());
                    match fault {
                        None => "none",
                        Some(Fault::Dup) => {
                            assert_eq!(
                                before.as_ref().and_then(|before| before.event.as_ref()).map(|event| event.id),
                                Some(event.id)
                            );
                            "dup"
                        }
                        Some(Fault::Late) => "late",
                        Some(Fault::Bad(reason)) => panic!("{reason:?} was read as an event"),
                    }
                }
                (fault, payload) => panic!("{fault:?}: {payload:?}"),
            };
            *found.entry(name).or_default() += 1;
            before = Some(message);
        }
        assert_eq!(found.len(), 11, "every kind of fault occurs: {found:?}");
        assert!((1_700..2_300).contains(&found["dup"]) && (1_700..2_300).contains(&found["late"]), "{found:?}");
    }

    #[test]
    fn faults_that_make_no_sense_are_refused() {
        for bad in ["bad", "bad=2", "bad=x", "worse=0.1", "bad=0.5,dup=0.4,late=0.2", "bad=NaN"] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }
}
