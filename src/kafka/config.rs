//! Where Kafka is, and librdkafka's settings: as plain values.

use std::fmt;

/// The name of a setting that was not given: the flag that would give it.
const FLAG: &str = "--kafka";

/// Where Kafka is, and which topic it is about.
#[derive(Clone, Debug, Default)]
pub struct KafkaConfig {
    /// The brokers to begin with: HOST:PORT, separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// Settings of librdkafka, beside the ones that this library makes.
    pub settings: Settings,
}

/// A setting of librdkafka, and where it comes from.
#[derive(Clone)]
pub struct Setting {
    /// As librdkafka names it.
    pub key: String,
    /// Byte for byte. Perhaps a password: it is never shown.
    pub value: String,
    /// The origin of the setting, a flag, a file or a variable, in the user's terms.
    pub from: &'static str,
}

impl fmt::Display for Setting {
    /// The origin and the key of the setting, without the value, which may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}=…", self.from, self.key)
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Settings in the order in which they are to be set: a later one wins.
#[derive(Clone, Debug, Default)]
pub struct Settings(Vec<Setting>);

impl FromIterator<Setting> for Settings {
    fn from_iter<I: IntoIterator<Item = Setting>>(settings: I) -> Self {
        Self(settings.into_iter().collect())
    }
}

impl Settings {
    /// In the order in which they are to be set.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// A setting as the user gave it, without its value.
    pub fn name(&self, key: &str) -> String {
        let given = self.0.iter().rfind(|setting| setting.key == key);
        given.map_or_else(|| format!("{FLAG} {key}=…"), Setting::to_string)
    }
}
