//! Columns for fields that a table does not name, drafted from the messages that have them.

use super::draft::{Sample, is_plain};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The messages in which a field has a value before it becomes a column: a type that is drafted from fewer says little about the next one.
const LEAST: u64 = 100;

/// The messages that are looked at between two questions: looking at one costs more than decoding it.
const MESSAGES: u32 = 500;

/// Profiles of fields, nested ones too: 5 MB at most.
const PROFILES: usize = 250;

/// A column for a field that the table does not name. It takes messages without the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewColumn {
    /// The field's name, which needs no quotes in SQL.
    pub name: String,
    /// The type that took all values so far.
    pub kind: String,
    /// The expression of its DEFAULT, where the type has no null.
    pub default: Option<&'static str>,
    /// In how many messages it had a value.
    pub seen: u64,
}

/// Looks at some of the fields that a table does not name, in memory of a fixed size.
#[derive(Debug)]
pub struct Evolution {
    /// How many more messages are looked at.
    room: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sample: Sample,
    /// Fields that have a column, or will not get one.
    decided: HashSet<String>,
}

impl Default for Evolution {
    fn default() -> Self {
        let state = State { sample: Sample::with_room(PROFILES), decided: HashSet::new() };
        Self { room: AtomicU32::new(MESSAGES), state: Mutex::new(state) }
    }
}

impl Evolution {
    /// Whether the values of a field with this name are looked at now. Other names than plain ones stand for parts of objects, or for values.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.room.load(Relaxed) > 0 && is_plain(name)
    }

    /// Looks at these fields of a message.
    pub(crate) fn note(&self, payload: &[u8], names: &[String]) {
        // Threads that decode at the same time look at a few messages more.
        self.room.store(self.room.load(Relaxed).saturating_sub(1), Relaxed);
        let State { sample, decided } = &mut *self.state();
        sample.add_fields(Some(payload), |name| names.iter().any(|other| other == name) && !decided.contains(name));
    }

    /// The columns for fields that had a value in enough messages, and are not decided. More messages are looked at from now on.
    pub fn due(&self) -> Vec<NewColumn> {
        self.room.store(MESSAGES, Relaxed);
        let State { sample, decided } = &*self.state();
        sample.new_columns(LEAST).into_iter().filter(|column| !decided.contains(&column.name)).collect()
    }

    /// The field has a column, or will not get one.
    pub fn decide(&self, name: &str) {
        self.state().decided.insert(name.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic in the middle of a message, a count would only be less exact.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(evolution: &Evolution, payload: &str, times: u64) {
        let names =
            ["n", "text", "object", "list", "mixed", "twice", "null", "other name", "a.b", "_offset", "1st", "index"];
        for _ in 0..times {
            evolution.due();
            let wanted: Vec<_> =
                names.iter().filter(|name| evolution.wants(name)).map(|name| (*name).to_owned()).collect();
            evolution.note(payload.as_bytes(), &wanted);
        }
    }

    fn due(evolution: &Evolution) -> Vec<String> {
        let shown = |column: NewColumn| {
            let default = column.default.map_or_else(String::new, |default| format!(" DEFAULT {default}"));
            format!("{} {}{default}", column.name, column.kind)
        };
        evolution.due().into_iter().map(shown).collect()
    }

    #[test]
    fn a_field_with_enough_values_is_a_column_that_takes_messages_without_it() {
        let evolution = Evolution::default();
        let payload = |mixed: &str| {
            format!(
                r#"{{"n":1,"text":"a long text","object":{{"a":1}},"list":[1],"mixed":{mixed},"twice":1,"twice":2,"null":null,"known":7,
                "other name":1,"a.b":1,"_offset":1,"1st":1,"index":1}}"#
            )
        };
        note(&evolution, &payload("1"), LEAST - 1);
        assert_eq!(due(&evolution), [""; 0], "too few");
        note(&evolution, &payload("[true]"), 1);
        let columns = [
            "n Nullable(Int64)",
            "text LowCardinality(Nullable(String))",
            "object JSON DEFAULT '{}'::JSON",
            "list Array(Int64) DEFAULT []",
            "mixed Nullable(String)",
        ];
        assert_eq!(due(&evolution), columns);
        evolution.decide("n");
        note(&evolution, &payload("1"), LEAST);
        assert_eq!(due(&evolution), columns[1..]);
    }

    #[test]
    fn only_so_many_messages_are_looked_at_between_two_questions_and_so_many_fields_at_all() {
        let evolution = Evolution::default();
        for nth in 0..u64::from(MESSAGES) * 3 {
            let name = format!("field_{}", nth % (MESSAGES as u64 * 2));
            if evolution.wants(&name) {
                evolution.note(format!(r#"{{"{name}":1}}"#).as_bytes(), &[name]);
            }
        }
        assert_eq!(evolution.state().sample.messages(), u64::from(MESSAGES));
        assert_eq!(evolution.state().sample.new_columns(0).len(), PROFILES);
    }
}
